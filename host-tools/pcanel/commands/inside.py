"""What commands that look into a guest share: the run, its prompt, the guest's memory, its screen."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcanel import repl
from pcanel.client import Client
from pcanel.commands.output import say
from pcanel.errors import EngineError
from pcanel.monitor import BOOT_TIMEOUT, REPL
from pcanel.ram import served
from pcanel.ram.guest import Facts, GuestMemory, Memory, ask, held, watched
from pcanel.ram.line import LineMemory
from pcanel.runs import Run, find

Execute = Callable[[str], str]

_TIMEOUT = 120  # seconds for a line at the prompt


def add_choice(parser: argparse.ArgumentParser) -> None:
    """The options that say which monitor, and how to treat its guest."""
    parser.add_argument("--run", metavar="ID", help="which run, where there are several")
    parser.add_argument("--line", metavar="DEVICE", help="a monitor on a PC, by this serial line")
    parser.add_argument("--live", action="store_true", help="let the guest run on: what is read may not agree")


@dataclass(frozen=True)
class _Way:
    """To the monitor. run: None on a PC, whose prompt it is; elsewhere a person at the prompt sees nothing of it."""

    evaluate: Callable[[str], Any]  # the value of an expression
    execute: Execute
    run: Run | None


def _way(options: argparse.Namespace) -> _Way:
    run = None if options.line else find(options.run)
    if run:
        run.wait_booted(BOOT_TIMEOUT)
        with suppress(EngineError):  # it has no mailbox
            client = Client(run)
            return _Way(client.evaluate, client.printed, run)
    at = Path(run.console(REPL)["socket"]) if run else options.line
    return _Way(
        lambda expression: repl.evaluate(at, expression, _TIMEOUT), lambda code: repl.execute(at, code, _TIMEOUT), run
    )


@contextmanager
def _asked(way: _Way, options: argparse.Namespace, name: str) -> Iterator[Facts]:
    with held(way.evaluate, name, not options.live):
        yield ask(way.evaluate, name)


@contextmanager
def asked(options: argparse.Namespace, name: str) -> Iterator[tuple[Facts, Run | None]]:
    """(what the monitor says of the guest, the run, None on a PC); the guest stands still meanwhile unless
    options.live."""
    way = _way(options)
    with _asked(way, options, name) as facts:
        yield facts, way.run


@contextmanager
def opened(options: argparse.Namespace, name: str) -> Iterator[tuple[Facts, GuestMemory]]:
    """The same with the guest's memory."""
    way = _way(options)
    with _asked(way, options, name) as facts, _memory(way) as memory:
        yield facts, watched(memory, facts, not options.live)


@contextmanager
def prompt(options: argparse.Namespace) -> Iterator[tuple[Execute, Memory]]:
    """(its prompt, the machine's memory); guests run on."""
    way = _way(options)
    with _memory(way) as memory:
        yield way.execute, memory


@contextmanager
def looked_at(options: argparse.Namespace) -> Iterator[tuple[Callable[[str], Any], Memory]]:
    """(evaluate(expression) at the monitor, the machine's memory); guests run on."""
    way = _way(options)
    with _memory(way) as memory:
        yield way.evaluate, memory


@contextmanager
def _memory(way: _Way) -> Iterator[Memory]:
    """The machine's memory, past the prompt where that can be."""
    ram = None
    if way.run is not None:
        try:
            ram = served.connect(way.run.path)
        except EngineError as error:
            say(f"{error}; its memory comes by the prompt's line, which is slow")
    with ram or nullcontext(LineMemory(way.execute)) as memory:
        yield memory
