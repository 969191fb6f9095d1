"""`pcanel bench`: what an exit costs, measured; docs/benchmarks.md explains it."""

import argparse
from pathlib import Path

from pcanel.bench import (
    calls,
    conditions,
    debian,
    disk,
    inside,
    kvm,
    latency,
    linux,
    native,
    nested,
    network,
    profile,
    prompt,
    strace,
    versions,
)
from pcanel.bench.measures import ALL, BARE, BARE_CPU, DEBIAN, EXITS, INSIDE, LINUX_CPUS
from pcanel.bench.monitored import Monitored
from pcanel.bench.results import DOCUMENT, JSON, Results, replace_table, table, write_document, write_json
from pcanel.bench.trace import trace
from pcanel.commands.output import say
from pcanel.engines.bochs import Bochs
from pcanel.errors import InputError
from pcanel.paths import BUILD, ELF, ROOT
from pcanel.symbols import Symbols

_LATENCY_JSON = BUILD / "latency.json"
_LATENCY_DOCUMENT = ROOT / "docs/latency.md"
_LATENCY_MARK = "<!-- the table, from build/latency.json -->"


def add_to(commands) -> None:
    parser = commands.add_parser("bench", help="what an exit costs, measured", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="these exits only, natively and under the monitor")
    parser.add_argument("--cpu", metavar="MODEL", help="Bochs's CPU model; without it the other of the table too")
    parser.add_argument("--quick", action="store_true", help="the exits only, natively and under the monitor")
    parser.add_argument("--json", type=Path, default=JSON, metavar="FILE", help="where the figures go")
    parser.add_argument("--document", type=Path, default=DOCUMENT, metavar="FILE", help="gets the table of a whole run")
    parser.add_argument("--latency", action="store_true", help="the real-time guest's timer interrupts instead")
    parser.add_argument(
        "--interrupts", type=int, default=latency.INTERRUPTS, metavar="N", help="of the guest's timer, with --latency"
    )
    parser.add_argument("--inside", action="store_true", help="names and types of a Linux instead, 40 s")
    parser.add_argument("--profile", metavar="ROW", help="where the instructions of one exit of this row go")
    parser.set_defaults(handler=_bench)


def _bench(options: argparse.Namespace) -> int:
    if options.profile:
        return _profile(options)
    if options.latency:
        return _latency(options)
    cpu = options.cpu or Bochs.default_cpu
    results = Results(versions.collect("bochs", cpu), cpu)
    if options.inside:
        results.pcanel = inside.rows(cpu)
        print(table(results.document(INSIDE)))
        return 0
    if options.rows:
        return _some(results, cpu, options.rows)
    _exits(results, cpu, options.quick)
    if not options.quick:
        _system(results, cpu)
        say("some exits of a guest when the monitor itself runs under KVM")
        results.pcanel.update(nested.rows(cpu))
    document = results.document(ALL)
    if not options.quick and not options.cpu:
        bare = Results({}, BARE_CPU)
        say(f"the same on {BARE_CPU}, which has no APIC virtualization")
        _exits(bare, BARE_CPU, False, [measure.name for measure in BARE])
        document["rows"] += bare.rows(BARE)
    write_json(document, options.json)
    if not options.quick:
        write_document(document, ALL, options.document)
    print(table(document))
    return 0


def _some(results: Results, cpu: str, names: list[str]) -> int:
    measures = (*EXITS, *DEBIAN)
    unknown = sorted(set(names) - {measure.name for measure in measures})
    if unknown:
        raise InputError(f"{', '.join(unknown)}: no such row; there are {', '.join(row.name for row in measures)}")
    exits = [measure.name for measure in EXITS if measure.name in names]
    if exits:
        _exits(results, cpu, True, exits)
    if len(exits) < len(names):
        _debian(results, cpu)
    print(table(results.document(tuple(measure for measure in measures if measure.name in names))))
    return 0


def _exits(results: Results, cpu: str, quick: bool, names: list[str] | None = None) -> None:
    say("the exits natively, without a monitor")
    results.native = native.rows(cpu, names=names)
    say("the exits under the monitor")
    with Monitored(cpu) as bench:
        results.pcanel = bench.rows(names=names)
    if conditions.rows_under(conditions.MITIGATED, names):
        with Monitored(cpu, cmdline="") as bench:
            results.pcanel.update(bench.under(conditions.MITIGATED, names=names))
    if not quick:
        say("the exits under KVM")
        results.kvm = kvm.rows(cpu, names=names)


def _system(results: Results, cpu: str) -> None:
    say("the start, memory, the collector, 1 to 100 small guests")
    results.pcanel.update(prompt.rows(cpu))
    columns = (results.native, linux.native), (results.pcanel, linux.monitored), (results.kvm, linux.under_kvm)
    for column, boot_linux in columns:
        say(f"a boot of Linux: {boot_linux.__name__.replace('_', ' ')}")
        boot = boot_linux(cpu)
        column["linux_boot"] = prompt.one(boot.ticks)
        if boot.exits:
            column["linux_boot_exits"] = prompt.one(boot.total)
            results.meta[f"linux_boot_exits_{boot_linux.__name__}"] = boot.exits
        if column is not results.kvm:  # which does not tell what its exits take
            column["linux_boot_guest"] = prompt.one(boot.ticks - boot.monitor)
        if boot.exit_ticks:
            column["linux_boot_monitor"] = prompt.one(boot.monitor)
            results.meta[f"linux_boot_ticks_{boot_linux.__name__}"] = boot.exit_ticks

    _debian(results, cpu)

    say("questions about a Linux")
    results.pcanel.update(inside.rows(cpu))

    for name, devices in (("disks", disk), ("network", network)):
        say(f"a Linux guest's {name}")
        results.pcanel.update({row: prompt.one(ticks) for row, ticks in devices.monitored(cpu).items()})
        results.kvm.update({row: prompt.one(ticks) for row, ticks in devices.KVM_ONCE.items()})
        results.native.update({row: prompt.one(ticks) for row, ticks in devices.NATIVE_ONCE.items()})
    for cpus in LINUX_CPUS:
        say(f"a boot of Linux with {cpus} processors: monitored, under KVM")
        results.pcanel[f"linux_boot_{cpus}"] = prompt.one(linux.monitored(cpu, cpus).ticks)
        results.kvm[f"linux_boot_{cpus}"] = prompt.one(linux.under_kvm(cpu, cpus).ticks)

    say("system calls of ls in Linux: alone, recorded from below, under strace")
    figures = strace.measure(cpu)
    results.pcanel["strace_below"] = prompt.one(figures.below_to_alone)
    results.pcanel["strace_debian"] = prompt.one(figures.strace_to_alone)
    results.pcanel["cr3_pid_other"] = prompt.one(figures.cr3_pid)
    results.pcanel["syscall_pid_other"] = prompt.one(figures.syscall_pid)
    results.pcanel["strace_line"] = prompt.one(figures.line)


def _debian(results: Results, cpu: str) -> None:
    columns = (results.native, debian.native), (results.pcanel, debian.monitored)
    for column, boot_debian in columns:
        say(f"Debian from its own disk: {boot_debian.__name__}")
        boot = boot_debian(cpu)
        column["debian_boot"] = prompt.one(boot.ticks)
    results.pcanel["debian_boot_exits"] = prompt.one(boot.total)
    results.pcanel["debian_boot_monitor"] = prompt.one(boot.monitor)
    results.meta["debian_boot_exits_monitored"] = boot.exits
    results.meta["debian_boot_ticks_monitored"] = boot.exit_ticks
    results.kvm.update({row: prompt.one(ticks) for row, ticks in debian.KVM_ONCE.items()})


def _latency(options: argparse.Namespace) -> int:
    cpu = options.cpu or Bochs.default_cpu
    rows = []
    with latency.Monitored(cpu, options.interrupts) as bench:
        for setting in latency.SETTINGS:
            say(f"the real-time guest under the monitor: {setting}")
            rows.append(bench.run(setting))
        pause = bench.pause()
    say("the real-time guest under KVM: busy")
    rows.append(latency.under_kvm(cpu, options.interrupts))
    document = latency.document(versions.collect("bochs", cpu), rows, pause)
    write_json(document, _LATENCY_JSON)
    replace_table(_LATENCY_DOCUMENT, _LATENCY_MARK, latency.table(document))
    print(latency.table(document))
    return 0


def _profile(options: argparse.Namespace) -> int:
    instructions, functions = trace(options.profile, options.cpu)
    symbols = Symbols(ELF)
    names = profile.name_all(instructions, symbols)
    listing = BUILD / "bench" / f"{options.profile}.trace"
    profile.write_listing(listing, instructions, names)
    print(profile.report(options.profile, names))
    print("\n" + calls.report(calls.attribute(instructions, symbols, functions)))
    say(f"each instruction: {listing}")
    return 0
