"""What commands that record a running guest into a file have in common: when they end."""

import argparse
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pcanel.commands.output import say
from pcanel.errors import InputError


def add_ends(parser, what: str) -> None:
    """--seconds and --count. what: is counted."""
    parser.add_argument("--seconds", type=float, metavar="S", help="end after so long")
    parser.add_argument("--count", type=int, metavar="N", help=f"end after so many {what}")


def check_ends(options: argparse.Namespace) -> None:
    """InputError for one that is not above 0."""
    for name in ("seconds", "count"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name} {value:g}: must be more than 0")


@contextmanager
def until_stopped(options: argparse.Namespace, what: str) -> Iterator[Callable[[], bool]]:
    """Yield goes_on(): whether neither Ctrl-C, SIGTERM nor the terminal's end has come, nor the end of --seconds. what:
    is recorded."""
    stop = []
    ends = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda *_: stop.append(1)) for number in ends}
    say(f"recording the {what} of {options.name}; Ctrl-C ends it")
    end = time.monotonic() + options.seconds if options.seconds else None
    try:
        yield lambda: not stop and not (end and time.monotonic() >= end)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
