"""`pcanel run`: starts the monitor with its guests and owns it until it ends."""

import argparse
import re
import time
from pathlib import Path

from pcanel import history
from pcanel.commands.output import check_timeout, program, say, show
from pcanel.console import compile_pattern, readable
from pcanel.engines.choose import ENGINES
from pcanel.errors import EngineError, InputError, PcanelError, PolicyError
from pcanel.guest.set import alone
from pcanel.modules import BootModule
from pcanel.monitor import DEFAULT_MEMORY, REPL, Monitor
from pcanel.options import check_option
from pcanel.paths import ELF
from pcanel.repl import RemoteError
from pcanel.terminal import Line, Terminal, is_terminal

_LIMIT = 900  # seconds for --exec and --until together, where --timeout says nothing else
_PERIOD = 0.25
_LAST_WORDS = 0.5  # seconds that a failed monitor has to finish what it says


def add_to(commands) -> None:
    parser = commands.add_parser("run", help="start the monitor", description=__doc__)
    parser.add_argument("guests", nargs="*", type=Path, metavar="GUEST.toml", help="guests to start")
    parser.add_argument("--engine", default="auto", metavar="NAME", help=f"auto, {', '.join(ENGINES)} (default auto)")
    parser.add_argument("--cpu", metavar="MODEL", help="the engine's CPU model")
    parser.add_argument("--memory", type=int, default=DEFAULT_MEMORY, metavar="MB", help="memory of the machine")
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.py",
        help="Python to run on the monitor before the guests start (repeatable)",
    )
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a further boot module; file:/PATH puts it into the file system (repeatable)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a word for the monitor's command line, e.g. heap=32M (repeatable)",
    )
    parser.add_argument("--image", type=Path, default=ELF, metavar="FILE", help="another ELF or an ISO to boot")
    parser.add_argument("--uefi", action="store_true", help="boot the ISO by UEFI (QEMU)")
    parser.add_argument("--headless", action="store_true", help="no terminal: consoles go to logs only")
    parser.add_argument("--exec", metavar="PYTHON", dest="code", help="run this once booted, print what it prints, end")
    parser.add_argument("--until", metavar="REGEX", help="end when a console shows this")
    parser.add_argument("--on", metavar="CONSOLE", help="where --until looks: repl or a guest (default: everywhere)")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds after which to give up")
    parser.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    _check(options)
    pattern = _pattern(options.until)
    batch = options.code is not None or pattern is not None
    on_terminal = is_terminal() and not options.headless and not batch
    monitor = Monitor(
        engine=options.engine,
        cpu=options.cpu,
        memory=options.memory,
        guests=options.guests,
        policies=options.policy,
        modules=[_module(word) for word in options.module] + (_history() if on_terminal else []),
        cmdline=" ".join(options.option),
        image=options.image,
        uefi=options.uefi,
        paced=on_terminal,
        reset_ends=batch,  # a caller that waits for a result expects no second boot
    )
    if options.on is not None and options.on not in monitor.names:
        raise InputError(f"--on {options.on}: there is no such console; there are {', '.join(monitor.names)}")
    with monitor:
        _introduce(monitor, on_terminal)
        if on_terminal:
            return _at_the_terminal(monitor)
        return _headless(monitor, options, pattern, batch)


def _check(options: argparse.Namespace) -> None:
    check_timeout(options.timeout)
    if options.on is not None and options.until is None:
        raise InputError("--on goes with --until")
    for word in options.option:
        check_option(word)


def _pattern(until: str | None) -> re.Pattern | None:
    try:
        return None if until is None else compile_pattern(until)
    except re.error as error:
        raise InputError(f"--until {until!r}: {error}") from error


def _module(word: str) -> BootModule:
    name, equals, path = word.partition("=")
    if not equals or not name or not path:
        raise InputError(f"--module {word!r}: must be NAME=FILE")
    return BootModule(name, Path(path))


def _history() -> list[BootModule]:
    """The lines that were typed in earlier runs."""
    lines = history.load()
    return [BootModule(history.MODULE, lines)] if lines else []


def _introduce(monitor: Monitor, on_terminal: bool) -> None:
    """Says on stderr what was started and where its consoles are."""
    engine = monitor.engine
    words = f" ({engine.words})" if engine.words else ""
    say(f"run {monitor.run.id}: engine {engine.name}{words}, CPU model {engine.cpu} ({monitor.choice.reason})")
    guests = [guest.name for guest in monitor.guests if guest.name in monitor.names]
    for name in [REPL, *guests]:
        attach = "repl" if name == REPL else f"console {name}"
        say(f"{name}: {program()} {attach}, or mpremote connect {monitor.url(name)}")
    for line in alone(monitor.guests):
        say(line)
    if on_terminal:
        keys = ", ".join(f"Ctrl-] {monitor.names.index(name)} for {name}" for name in guests)
        say(f"this terminal shows the prompt{'; ' if keys else ''}{keys}; Ctrl-] q ends the run, Ctrl-] ? tells more")
    else:
        say(f"logs: {monitor.run.path}")


def _at_the_terminal(monitor: Monitor) -> int:
    def line(name: str) -> Line:
        return Line(name, lambda: monitor.look_on(name), monitor.console(name).log, name == REPL)

    def watch() -> str | None:
        monitor.look_for_prompt()
        return monitor.failure()

    reason = Terminal([line(name) for name in monitor.names], "end the run", watch, monitor.news).run(REPL)
    if not reason:
        return 0
    raise EngineError(f"{reason}\n{monitor.engine.log_tail()}")


def _headless(monitor: Monitor, options: argparse.Namespace, pattern: re.Pattern | None, batch: bool) -> int:
    limit = options.timeout or (_LIMIT if batch else None)
    deadline = time.monotonic() + limit if limit else None
    start = _Start(monitor, batch)
    try:
        if options.code is not None:
            monitor.wait_booted(limit)
            start.look()
            monitor.exec(options.code, _left(deadline), show)
        if pattern is not None:
            _until(monitor, pattern, options.on, deadline, start)
        if not batch:
            _until_stopped(monitor, deadline, start)
    except (RemoteError, PolicyError):
        raise
    except PcanelError as error:
        ended = monitor.failure()
        time.sleep(_LAST_WORDS)
        raise PcanelError(f"{ended + ': ' if ended else ''}{_first_line(error)}\n{monitor.tails()}") from error
    finally:
        _tell(monitor)
    return 0


def _tell(monitor: Monitor) -> None:
    for line in monitor.news():
        say(line)


class _Start:
    """What a person would have seen above the first prompt: guests that were refused, policy files that failed.

    A run that waits for a result ends with the latter; any other says so and goes on, as the monitor does.
    """

    def __init__(self, monitor: Monitor, batch: bool):
        self._monitor = monitor
        self._batch = batch
        self._seen = False

    def look(self, ends: bool = False) -> None:
        """Once the prompt is there, or the run `ends` before that. Raises PolicyError."""
        if self._seen or not (self._monitor.look_for_prompt() or ends):
            return
        self._seen = True
        for refused in filter(None, (self._monitor.refusal(guest.name) for guest in self._monitor.guests)):
            say(refused)
        broken = self._monitor.broken_policies()
        if broken and self._batch:
            raise PolicyError("\n".join(broken))
        for text in broken:
            say(text)


def _until(monitor: Monitor, pattern: re.Pattern, name: str | None, deadline: float, start: _Start) -> None:
    consoles = [monitor.console(name)] if name else list(monitor.consoles.values())
    while True:
        start.look()
        for console in consoles:
            if console.shows(pattern):
                start.look(ends=True)
                return
        if monitor.failure():
            raise PcanelError(f"{readable(pattern)} never showed")
        refused = _nobody_left(monitor, name)
        if refused:
            raise PcanelError(refused)
        if time.monotonic() > deadline:
            where = f"console {name} has not" if name else "no console has"
            raise PcanelError(f"{where} shown {readable(pattern)} in time")
        time.sleep(_PERIOD)


def _nobody_left(monitor: Monitor, name: str | None) -> str | None:
    """The monitor's words about the guests that could still print, if it has started none of them."""
    guests = [guest.name for guest in monitor.guests if name in (None, guest.name)]
    refused = [monitor.refusal(guest) for guest in guests]
    return "; ".join(refused) if refused and all(refused) else None


def _until_stopped(monitor: Monitor, deadline: float | None, start: _Start) -> None:
    while not monitor.failure():
        start.look()
        _tell(monitor)
        if deadline and time.monotonic() > deadline:
            raise PcanelError("the time is up (--timeout)")
        time.sleep(_PERIOD)
    raise PcanelError("the monitor is gone")


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 1)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
