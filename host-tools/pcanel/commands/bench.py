"""`pcanel bench`: what an exit costs, measured; docs/benchmarks.md explains it."""

import argparse

from pcanel.bench import profile
from pcanel.bench.trace import trace
from pcanel.commands.output import say
from pcanel.paths import BUILD, ELF


def add_to(commands) -> None:
    parser = commands.add_parser("bench", help="what an exit costs, measured", description=__doc__)
    parser.add_argument("--cpu", metavar="MODEL", help="Bochs's CPU model")
    parser.add_argument("--profile", metavar="ROW", help="where the instructions of one exit of this row go")
    parser.set_defaults(handler=_bench)


def _bench(options: argparse.Namespace) -> int:
    instructions = trace(options.profile, options.cpu)
    names = profile.name_all(instructions, ELF)
    listing = BUILD / "bench" / f"{options.profile}.trace"
    profile.write_listing(listing, instructions, names)
    print(profile.report(options.profile, names))
    say(f"each instruction: {listing}")
    return 0
