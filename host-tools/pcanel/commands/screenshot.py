"""`pcanel screenshot`: what a guest's screen shows, as a picture."""

import argparse
from pathlib import Path

from pcanel.commands.inside import add_choice, looked_at


def add_to(commands) -> None:
    parser = commands.add_parser("screenshot", help="write a guest's screen as a picture", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="the guest")
    parser.add_argument("file", type=Path, metavar="FILE", help="such as screen.png")
    add_choice(parser)
    parser.set_defaults(handler=_screenshot)


def _screenshot(options: argparse.Namespace) -> int:
    from pcanel.screen import file, source  # with numpy

    with looked_at(options) as (evaluate, memory):
        print(file.write(options.file, source.ask(evaluate, options.name), memory))
    return 0
