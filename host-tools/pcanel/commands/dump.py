"""`pcanel dump`: a guest as a core file that drgn, crash and readelf open."""

import argparse
import sys
import time
from pathlib import Path

from pcanel import vmcore
from pcanel.commands.inside import add_choice, opened
from pcanel.commands.output import say

_PERIOD = 0.5  # seconds between two words of progress


def add_to(commands) -> None:
    parser = commands.add_parser("dump", help="write a guest as a core file", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="the guest")
    parser.add_argument("file", type=Path, metavar="FILE")
    add_choice(parser)
    parser.set_defaults(handler=_dump)


def _dump(options: argparse.Namespace) -> int:
    with opened(options, options.name) as (facts, memory):
        began = time.monotonic()
        written = vmcore.write(options.file, facts, memory, Progress())
        took = time.monotonic() - began
    print(vmcore.summary(options.file, facts, written, took))
    return 0


class Progress:
    """Prints the progress now and then, on a terminal."""

    def __init__(self):
        self._next = time.monotonic() + _PERIOD

    def __call__(self, done: int, size: int) -> None:
        if sys.stderr.isatty() and time.monotonic() >= self._next:
            self._next += _PERIOD
            say(f"{done >> 20} of {size >> 20} MiB")
