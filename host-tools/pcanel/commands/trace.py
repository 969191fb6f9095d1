"""`pcanel trace`: records a guest's exits into a file while it runs.

FILE.csv is for pandas and spreadsheets, any other name is Perfetto's format (https://ui.perfetto.dev, trace_processor).
It ends with --seconds, --count, Ctrl-C, or with the run.
"""

import argparse
import ast
import csv
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pcanel.commands.inside import add_choice, prompt
from pcanel.commands.output import say
from pcanel.commands.recording import add_ends, check_ends, until_stopped
from pcanel.errors import InputError, PcanelError
from pcanel.ram.guest import check_name
from pcanel.tracing import samples
from pcanel.tracing.frames import Frame, Ring, ask
from pcanel.tracing.perfetto_file import Writer
from pcanel.tracing.rows import COLUMNS, named, rows
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx.recording import LEAST, MOST, RECORD_SIZE

_PERIOD = 0.02  # seconds between two looks at the rings
_SAMPLE = 0.1  # seconds between two looks at the counters
_NAMES_AT_ONCE = 200


def add_to(commands) -> None:
    parser = commands.add_parser("trace", help="record a guest's exits into a file", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="the guest")
    parser.add_argument("file", type=Path, metavar="FILE")
    add_ends(parser, "exits")
    parser.add_argument("--ring", type=int, default=1 << 15, metavar="N", help="records of a vCPU's ring (32768)")
    parser.add_argument("--no-symbols", action="store_true", help="do not look up the names of RIPs at the end")
    add_choice(parser)
    parser.set_defaults(handler=_trace)


def _trace(options: argparse.Namespace) -> int:
    check_ends(options)
    if not LEAST <= options.ring <= MOST:
        raise InputError(f"--ring {options.ring}: must be from {LEAST} to {MOST}")
    check_name(options.name)
    with prompt(options) as (execute, memory):
        facts = ask(execute)
        guest = next((guest for guest in facts.guests if guest.name == options.name), None)
        if guest is None:
            there = ", ".join(guest.name for guest in facts.guests) or "none"
            raise InputError(f"there is no guest {options.name}; there are: {there}")
        with options.file.open("wb"):
            pass  # a file that cannot be written ends it here
        trace = _Trace(execute, memory, facts, guest)
        trace.run(options)
        trace.write(options)
    return 0


class _Trace:
    """One recording. The ring is made here, and given back unless it was there before."""

    def __init__(self, execute, memory, facts, guest):
        self._execute = execute
        self._memory = memory
        self._facts = facts
        self._guest = guest
        self._samples: list[samples.Sample] = []
        self._raw = [tempfile.TemporaryFile() for _ in guest.vcpus]  # noqa: SIM115  closed with the process
        self._count = 0
        self._lost = 0
        self._gone = False

    def run(self, options: argparse.Namespace) -> None:
        vm = f"vms[{self._guest.name!r}]"
        had = ast.literal_eval(
            self._execute(f"print({vm}.exits.recording.size)\n{vm}.exits.record({options.ring})").strip()
        )
        rings = [Ring(self._memory, hpa) for hpa, _ in self._guest.vcpus]
        sample_at = 0.0
        with until_stopped(options, "exits") as goes_on:
            try:
                while goes_on():
                    self._take(rings)
                    if options.count and self._count >= options.count:
                        break
                    if time.monotonic() >= sample_at:
                        sample_at = time.monotonic() + _SAMPLE
                        self._samples += samples.take(self._memory, self._facts)
                        if not Frame(self._memory, self._guest.vcpus[0][0]).starts:
                            self._gone = True
                            say(f"guest {self._guest.name} has been destroyed: the trace ends here")
                            break
                    time.sleep(_PERIOD)
                self._take(rings)
                self._samples += samples.take(self._memory, self._facts)
            except (OSError, ValueError, PcanelError) as error:
                say(f"the trace ends here: {error}")
            finally:
                with suppress(PcanelError):
                    self._execute(f"{vm}.exits.record({had})")
        self._lost = sum(ring.lost for ring in rings)

    def _take(self, rings: list[Ring]) -> None:
        for ring, file in zip(rings, self._raw, strict=True):
            data = ring.take()
            file.write(data)
            self._count += len(data) // RECORD_SIZE

    def write(self, options: argparse.Namespace) -> None:
        found = []
        for number, file in enumerate(self._raw):
            file.seek(0)
            found += rows(file.read(), self._facts.hz, self._guest.name, number)
        if options.count:
            found = sorted(found, key=lambda row: row.tsc)[: options.count]
        names = {} if options.no_symbols or self._gone else self._names(sorted({row.rip for row in found}))
        found = named(found, names)
        if options.file.suffix == ".csv":
            with options.file.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(row.texts() for row in found)
        else:
            writer = Writer(options.file)
            writer.exits(found, self._facts.hz)
            writer.counters(self._samples, self._facts.hz)
            writer.close()
        beside = samples.file_of(options.file)
        samples.write(beside, self._samples)
        lost = f", {self._lost} lost (a larger --ring loses fewer)" if self._lost else ", none lost"
        print(f"{options.file}: {len(found)} exits{lost}; counters of all guests in {beside.name}")

    def _names(self, addresses: list[int]) -> dict[tuple[str, int], str]:
        """{(guest, RIP): symbol}; the monitor looks them up."""
        found = {}
        for at in range(0, len(addresses), _NAMES_AT_ONCE):
            piece = addresses[at : at + _NAMES_AT_ONCE]
            line = f"print(facts.names(vms[{self._guest.name!r}], {piece}))"
            code = f"from vmm.insight.exits import facts\n{line}\ndel facts"
            try:
                texts = ast.literal_eval(self._execute(code).strip())
            except PcanelError as error:
                say(f"no names of RIPs: {str(error).splitlines()[-1]}")
                return {}
            found.update({(self._guest.name, gva): text for gva, text in zip(piece, texts, strict=True)})
        return found
