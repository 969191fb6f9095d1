"""`pcanel top`: guests, CPU use, exits by reason, latency and heap, in a table that is kept up to date.

Counters are read from the monitor's memory, not at its prompt: guests run on, and the prompt may be in use. The
list of guests and the heap are asked for by the monitor's mailbox whenever no line runs there. q or Ctrl-C ends it.
"""

import argparse
import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator

from pcanel.commands.inside import add_choice, prompt
from pcanel.errors import InputError, PcanelError
from pcanel.tracing import table
from pcanel.tracing.frames import ask

_ASK = 5  # seconds between two questions at the prompt


def add_to(commands) -> None:
    parser = commands.add_parser("top", help="what guests do, live", description=__doc__)
    parser.add_argument("--every", type=float, default=1, metavar="S", help="seconds between two tables (1)")
    parser.add_argument("--count", type=int, metavar="N", help="end after so many tables")
    add_choice(parser)
    parser.set_defaults(handler=_top)


def _top(options: argparse.Namespace) -> int:
    if not options.every > 0:
        raise InputError(f"--every {options.every:g}: must be more than 0")
    if options.count is not None and options.count < 1:
        raise InputError(f"--count {options.count}: must be 1 or more")
    with prompt(options) as (execute, memory):
        facts = ask(execute)
        live = sys.stdout.isatty()
        with table.Screen(live) as screen, _keys(live and sys.stdin.isatty()) as keyboard:
            _tables(options, execute, memory, facts, screen, keyboard)
    return 0


@contextlib.contextmanager
def _keys(wanted: bool) -> Iterator[list]:
    """The files on which a key ends it: the terminal, which gives each key at once meanwhile, or none."""
    if not wanted:
        yield []
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield [sys.stdin]
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _ended(seconds: float, keyboard: list) -> bool:
    """Wait so long; whether q or Ctrl-C has come, or the terminal has gone."""
    end = time.monotonic() + seconds
    try:
        while select.select(keyboard, [], [], max(end - time.monotonic(), 0))[0]:
            if os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b""):
                return True
    except KeyboardInterrupt:
        return True
    return False


def _tables(options, execute, memory, facts, screen, keyboard) -> None:
    before = table.snapshot(memory, facts)
    asked = time.monotonic()
    shown = 0
    note = ""
    while options.count is None or shown < options.count:
        if _ended(options.every, keyboard):
            return
        if time.monotonic() - asked >= _ASK:
            asked = time.monotonic()
            try:
                facts = ask(execute)
                note = ""
            except PcanelError:
                note = "the prompt is in use: guests and heap as they were"
        after = table.snapshot(memory, facts)
        screen.show(table.tables(facts, before, after, note))
        before = after
        shown += 1
