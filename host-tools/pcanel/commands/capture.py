"""`pcanel capture`: records the frames of a guest's network interfaces into a file while it runs.

FILE is pcapng, for Wireshark, tshark, tcpdump. Frames are as the guest's driver hands them over or gets them: between
guests TCP's data is often not cut into frames, and checksums are not filled in. It ends with --seconds, --count,
Ctrl-C, or with the run.
"""

import argparse
import ast
import struct
import time
from contextlib import suppress
from pathlib import Path

from pcapng import FileWriter, blocks

from pcanel.commands.inside import add_choice, prompt
from pcanel.commands.output import say
from pcanel.commands.recording import add_ends, check_ends, until_stopped
from pcanel.errors import EngineError, InputError, PcanelError
from pcanel.ram.guest import check_name
from pcanel.vmm_import import importable

with importable():
    from vmm.network.words import HEAD, LEAST, MOST, RECORD

_PERIOD = 0.02  # seconds between two looks at the ring
_ETHERNET = 1  # LINKTYPE
_NANOSECONDS = 9  # if_tsresol


def add_to(commands) -> None:
    parser = commands.add_parser("capture", help="record a guest's network frames into a file", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="the guest")
    parser.add_argument("file", type=Path, metavar="FILE")
    add_ends(parser, "frames")
    parser.add_argument("--ring", type=int, default=1 << 20, metavar="BYTES", help="in the monitor's memory (1048576)")
    parser.add_argument(
        "--take-over", action="store_true", help="end another capture of this guest, such as one that was killed"
    )
    add_choice(parser)
    parser.set_defaults(handler=_capture)


def _capture(options: argparse.Namespace) -> int:
    check_ends(options)
    size = options.ring
    if not LEAST <= size <= MOST or size & size - 1:
        raise InputError(f"--ring {size}: must be a power of two from {LEAST} to {MOST}")
    check_name(options.name)
    with prompt(options) as (execute, memory):
        facts = ast.literal_eval(execute(_FACTS.format(name=options.name)).strip())
        if "error" in facts:
            raise InputError(facts["error"])
        if facts["captured"] and not options.take_over:
            raise InputError(f"guest {options.name}: its frames are captured already (--take-over ends that capture)")
        guest = f"vms[{options.name!r}]"
        hpa, identity = ast.literal_eval(execute(_CALL.format(f"print(capture.start({guest}, {size}))")).strip())
        try:
            ring = _Ring(memory, hpa, size, identity)
            with options.file.open("wb") as file:
                writer = _Writer(file, facts)
                _record(options, ring, writer)
        finally:
            with suppress(PcanelError):
                execute(_CALL.format(f"capture.stop({guest}, {identity})"))
    lost = f", {ring.lost} bytes lost (a larger --ring loses fewer)" if ring.lost else ", none lost"
    print(f"{options.file}: {writer.count} frames{lost}")
    return 0


_CALL = "from vmm.network import capture\n{}\ndel capture"
_FACTS = """
def facts(name):
    import cpu, time
    if name not in vms:
        return {{"error": "there is no guest %s; there are: %s" % (name, ", ".join(vms) or "none")}}
    expansion = vms[name].expansion
    if expansion is None or not expansion.ports:
        return {{"error": "guest %s has no network interface: its file has no [[net]]" % name}}
    ports = [port.name for port in expansion.ports]
    return {{"hz": cpu.tsc_hz, "tsc": cpu.rdtsc(), "time": time.time(), "ports": ports,
            "captured": expansion.capture is not None}}
print(facts({name!r}))
del facts
"""


def _record(options: argparse.Namespace, ring: "_Ring", writer: "_Writer") -> None:
    most = options.count or float("inf")
    with until_stopped(options, "frames") as goes_on:
        try:
            while goes_on() and writer.count < most:
                writer.write(ring.take(), most)
                writer.flush()
                time.sleep(_PERIOD)
            writer.write(ring.take(), most)
        except (OSError, ValueError, PcanelError) as error:
            say(f"the recording ends here: {error}")


class _Ring:
    """vmm.network.capture's ring, from the host. lost: bytes of records that were overwritten before they were read."""

    def __init__(self, memory, hpa: int, size: int, identity: int):
        self._identity = identity
        self._memory = memory
        self._hpa = hpa
        self._size = size
        self._read = 0
        self.lost = 0

    def take(self) -> bytes:
        """The records that were written since the last time."""
        written = self._written()
        size = written - self._read
        if size > self._size:  # where records begin is not known any more, but at the end
            self.lost += size
            self._read = written
            return b""
        at = self._read % self._size
        first = min(size, self._size - at)
        data = self._bytes(at, first) + self._bytes(0, size - first)
        self._read = written
        if self._written() - (written - size) > self._size:  # the first of them have been overtaken meanwhile
            self.lost += size
            return b""
        return data

    def _written(self) -> int:
        """EngineError where the ring is none any more."""
        written, _, identity = struct.unpack("<QQQ", self._memory.read(self._hpa, 24))
        if identity != self._identity:
            raise EngineError("the guest is gone, or another capture has taken it over")
        return written

    def _bytes(self, at: int, size: int) -> bytes:
        return self._memory.read(self._hpa + HEAD + at, size) if size else b""


class _Writer:
    """The file. Times are the host's clock when it began, and the TSC since."""

    def __init__(self, file, facts: dict):
        self._facts = facts
        self._start = time.time_ns()
        self.count = 0
        options = {"shb_userappl": "pcanel"}
        section = blocks.SectionHeader(options=options)
        for name in facts["ports"]:
            section.new_member(
                blocks.InterfaceDescription,
                link_type=_ETHERNET,
                snaplen=0,
                options={"if_name": name, "if_tsresol": bytes((_NANOSECONDS,))},
            )
        self._section = section
        self.flush = file.flush
        self._writer = FileWriter(file, section)

    def write(self, data: bytes, most: float) -> None:
        """Records as they lie in the ring, until there are `most` in the file."""
        at = 0
        while at < len(data) and self.count < most:
            length, size, tsc, number, out, kept = struct.unpack_from("<IIQHHI", data, at)
            when = self._start + (tsc - self._facts["tsc"]) * 10**9 // self._facts["hz"]
            self._writer.write_block(
                self._section.new_member(
                    blocks.EnhancedPacket,
                    interface_id=number,
                    timestamp_high=when >> 32,
                    timestamp_low=when & 0xFFFFFFFF,
                    packet_len=size,
                    packet_data=data[at + RECORD : at + RECORD + kept],
                )
            )
            self.count += 1
            at += length
