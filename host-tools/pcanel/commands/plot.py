"""`pcanel plot`: draws a trace that `pcanel trace NAME FILE.csv` wrote.

Two pictures beside FILE, as PNG and SVG: FILE.exits has exits over time by reason and the distribution of their
durations, FILE.guests has each guest's CPU use and the lateness of its timers.
"""

import argparse
from pathlib import Path

from pcanel.errors import InputError


def add_to(commands) -> None:
    parser = commands.add_parser("plot", help="draw a trace", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.csv")
    parser.add_argument("--output", type=Path, metavar="PATH", help="another beginning of the pictures' names")
    parser.add_argument("--reasons", type=int, default=8, metavar="N", help="reasons with a colour of their own (8)")
    parser.set_defaults(handler=_plot)


def _plot(options: argparse.Namespace) -> int:
    from pcanel.tracing import plot  # matplotlib takes a second

    if options.reasons < 1:
        raise InputError(f"--reasons {options.reasons}: must be 1 or more")
    for path in plot.draw(options.file, options.output or options.file.with_suffix(""), options.reasons):
        print(path)
    return 0
