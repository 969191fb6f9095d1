"""What commands that look into a guest share: the run, its prompt, the guest's memory, its screen."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pcanel import repl
from pcanel.client import Client, way_to
from pcanel.commands.output import say
from pcanel.errors import EngineError
from pcanel.monitor import BOOT_TIMEOUT, REPL
from pcanel.ram import served
from pcanel.ram.guest import Facts, GuestMemory, Memory, ask, held
from pcanel.ram.line import LineMemory
from pcanel.runs import Run, find

Execute = Callable[[str], str]

_TIMEOUT = 120  # seconds for a line at the prompt


def add_choice(parser: argparse.ArgumentParser) -> None:
    """The options that say which monitor, and how to treat its guest."""
    parser.add_argument("--run", metavar="ID", help="which run, where there are several")
    parser.add_argument("--line", metavar="DEVICE", help="a monitor on a PC, by this serial line")
    parser.add_argument("--live", action="store_true", help="let the guest run on: what is read may not agree")


@contextmanager
def asked(options: argparse.Namespace, name: str) -> Iterator[tuple[Facts, Run | None]]:
    """(what the monitor says of the guest, the run, None on a PC); the guest stands still meanwhile unless
    options.live."""
    evaluate, run = _evaluate(options)
    with held(evaluate, name, not options.live):
        yield ask(evaluate, name), run


def _evaluate(options: argparse.Namespace) -> tuple[Callable[[str], Any], Run | None]:
    """(evaluate(expression) at the monitor, the run or None)."""
    if options.line:
        return (lambda expression: repl.evaluate(options.line, expression, _TIMEOUT)), None
    run = find(options.run)
    run.wait_booted(BOOT_TIMEOUT)
    return way_to(run), run


@contextmanager
def opened(options: argparse.Namespace, name: str) -> Iterator[tuple[Facts, GuestMemory]]:
    """The same with the guest's memory."""
    with ExitStack() as stack:
        facts, run = stack.enter_context(asked(options, name))
        execute = _prompt(options)[0]
        yield facts, GuestMemory(_memory(stack, execute, run.path if run else None), facts.segments)


@contextmanager
def prompt(options: argparse.Namespace) -> Iterator[tuple[Execute, Memory]]:
    """(its prompt, the machine's memory); guests run on."""
    with ExitStack() as stack:
        execute, directory = _prompt(options)
        yield execute, _memory(stack, execute, directory)


@contextmanager
def looked_at(options: argparse.Namespace) -> Iterator[tuple[Callable[[str], Any], Memory]]:
    """(evaluate(expression) at the monitor, the machine's memory); guests run on."""
    with ExitStack() as stack:
        execute, directory = _prompt(options)
        yield _evaluate(options)[0], _memory(stack, execute, directory)


def _memory(stack: ExitStack, execute: Execute, directory: Path | None) -> Memory:
    """The machine's memory, past the prompt where that can be."""
    if directory is not None:
        try:
            return stack.enter_context(served.connect(directory))
        except EngineError as error:
            say(f"{error}; its memory comes by the prompt's line, which is slow")
    return LineMemory(execute)


def _prompt(options: argparse.Namespace) -> tuple[Execute, Path | None]:
    """(execute(code), the run's directory or None). But with --line a person at the prompt sees nothing of it."""
    if options.line:
        return (lambda code: repl.execute(options.line, code, _TIMEOUT)), None
    run = find(options.run)
    run.wait_booted(BOOT_TIMEOUT)
    with suppress(EngineError):
        return Client(run).printed, run.path
    path = Path(run.console(REPL)["socket"])
    return (lambda code: repl.execute(path, code, _TIMEOUT)), run.path
