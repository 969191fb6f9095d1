"""`pcanel bench`: what an exit costs, measured; docs/benchmarks.md explains it."""

import argparse
from pathlib import Path

from pcanel.bench import kvm, native, profile, versions
from pcanel.bench.measures import EXITS
from pcanel.bench.monitored import Monitored
from pcanel.bench.results import DOCUMENT, JSON, Results, table, write_document, write_json
from pcanel.bench.trace import trace
from pcanel.commands.output import say
from pcanel.engines.bochs import Bochs
from pcanel.paths import BUILD, ELF


def add_to(commands) -> None:
    parser = commands.add_parser("bench", help="what an exit costs, measured", description=__doc__)
    parser.add_argument("--cpu", metavar="MODEL", help="Bochs's CPU model")
    parser.add_argument("--quick", action="store_true", help="the exits only, natively and under the monitor")
    parser.add_argument("--json", type=Path, default=JSON, metavar="FILE", help="where the figures go")
    parser.add_argument("--document", type=Path, default=DOCUMENT, metavar="FILE", help="gets the table of a whole run")
    parser.add_argument("--profile", metavar="ROW", help="where the instructions of one exit of this row go")
    parser.set_defaults(handler=_bench)


def _bench(options: argparse.Namespace) -> int:
    if options.profile:
        return _profile(options)
    cpu = options.cpu or Bochs.default_cpu
    results = Results(versions.collect("bochs", cpu))
    say("the exits natively, without a monitor")
    results.native = native.rows(cpu)
    say("the exits under the monitor")
    with Monitored(cpu) as bench:
        results.pcanel = bench.rows()
    if not options.quick:
        say("the exits under KVM")
        results.kvm = kvm.rows(cpu)
    document = results.document(EXITS)
    write_json(document, options.json)
    if not options.quick:
        write_document(document, EXITS, options.document)
    print(table(document))
    return 0


def _profile(options: argparse.Namespace) -> int:
    instructions = trace(options.profile, options.cpu)
    names = profile.name_all(instructions, ELF)
    listing = BUILD / "bench" / f"{options.profile}.trace"
    profile.write_listing(listing, instructions, names)
    print(profile.report(options.profile, names))
    say(f"each instruction: {listing}")
    return 0
