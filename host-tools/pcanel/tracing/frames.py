"""vCPU frames in the monitor's memory: counters, and the rings of records (vmm/vtx/frame.py, vmm/vtx/recording.py)."""

import ast
import struct
from collections.abc import Callable
from dataclasses import dataclass

from pcanel.ram.guest import Memory
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx import frame, reasons, recording
    from vmm.vtx.x86 import PAGE

Execute = Callable[[str], str]


@dataclass(frozen=True)
class Guest:
    """One guest of vmm.insight.exits.facts.of(). vcpus: (hpa of the frame, state)."""

    name: str
    state: str
    priority: int
    share: int
    vcpus: list[tuple[int, str]]


@dataclass(frozen=True)
class Facts:
    """hz: of the host TSC. tsc: when the monitor was asked. heap: bytes, and how many are free."""

    hz: int
    tsc: int
    heap: tuple[int, int]
    guests: list[Guest]


def ask(execute: Execute) -> Facts:
    """The monitor's facts about its guests."""
    said = ast.literal_eval(execute("from vmm.insight.exits import facts\nprint(facts.of(vms))\ndel facts").strip())
    said["guests"] = [Guest(**guest) for guest in said["guests"]]
    return Facts(**said)


class Frame:
    """A copy of a vCPU frame."""

    def __init__(self, memory: Memory, hpa: int):
        self._data = memory.read(hpa, PAGE)

    def word(self, index: int) -> int:
        """64 bits at an index of vmm.vtx.frame."""
        return struct.unpack_from("<Q", self._data, 4 * index)[0]

    @property
    def starts(self) -> int:
        """How often the guest was started or reset; 0 once it is gone."""
        return self.word(frame.STARTS)

    @property
    def guest_ticks(self) -> int:
        return self.word(frame.GUEST_TICKS)

    @property
    def host_ticks(self) -> int:
        return self.word(frame.HOST_TICKS)

    @property
    def entry_tsc(self) -> int:
        """Host TSC of the last entry."""
        return self.word(frame.ENTRY_TSC)

    def timed(self) -> tuple[int, int, int]:
        """Entries for a timer's deadline, the sum of their lateness, the longest; host TSC ticks."""
        return self.word(frame.TIMED), self.word(frame.LATE), self.word(frame.LATEST)

    def exits(self) -> dict[str, tuple[int, int]]:
        """{reason: (exits, host ticks)} of the reasons that occurred."""
        found = {}
        for number, name in reasons.each():
            count = self.word(frame.COUNT + 2 * number)
            if count:
                found[name] = count, self.word(frame.TICKS + 2 * number)
        return found


class Ring:
    """The records of one vCPU from now on. lost: how many were overwritten before they were read."""

    def __init__(self, memory: Memory, frame_hpa: int):
        self._memory = memory
        self._words = frame_hpa + 4 * frame.TRACE_RING
        self._ring, self._size, self._next = self._state()
        self.lost = 0

    def _state(self) -> tuple[int, int, int]:
        """(hpa of the ring or 0, its records, how many have been written)."""
        ring, mask, head = struct.unpack("<3Q", self._memory.read(self._words, 24))
        return ring, mask + 1, head

    def take(self) -> bytes:
        """The records that have come since the last call and whose exits are over. Empty: the ring has gone, too."""
        ring, size, head = self._state()
        if not ring or (ring, size) != (self._ring, self._size) or head < self._next:
            self._ring, self._size, self._next = ring, size, head
            return b""
        first = max(self._next, head - size)
        data = self._read(first, head)
        _, _, now = self._state()
        whole = max(first, now - size)  # older ones were overwritten meanwhile
        data = data[(whole - first) * recording.RECORD_SIZE :]
        if data and is_open(data[-recording.RECORD_SIZE :]):
            data = data[: -recording.RECORD_SIZE]
        self.lost += whole - self._next
        self._next = whole + len(data) // recording.RECORD_SIZE
        return data

    def _read(self, first: int, end: int) -> bytes:
        """Records by their numbers; at most as many as the ring has."""
        parts = []
        while first < end:
            at = first % self._size
            count = min(end - first, self._size - at)
            parts.append(self._memory.read(self._ring + at * recording.RECORD_SIZE, count * recording.RECORD_SIZE))
            first += count
        return b"".join(parts)


def is_open(record: bytes) -> bool:
    """Whether its exit is not over."""
    return struct.unpack(recording.RECORD_FORMAT, record)[7] == recording.UNKNOWN_DURATION
