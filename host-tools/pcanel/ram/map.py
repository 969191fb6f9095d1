"""Where a machine's memory lies in its engine's process, and copies out of it and into it.

A Map is plain data, so that the owner of a run can hand it to another process together with a descriptor of the
engine's /proc/PID/mem: a process with that descriptor needs no right of its own to read the engine.
"""

import os
from dataclasses import asdict, dataclass
from typing import Self

from pcanel.errors import EngineError

_POINTER = 8


@dataclass(frozen=True)
class Flat:
    """ranges: (hpa, size, address in the process)."""

    ranges: tuple[tuple[int, int, int], ...]

    def place(self, _memory: "Ram", hpa: int, size: int) -> tuple[int | None, int]:
        """(address of [hpa, ...) in the process, or None for zeros; how many bytes lie there). ValueError outside."""
        for base, length, address in self.ranges:
            if base <= hpa < base + length:
                return address + hpa - base, min(size, base + length - hpa)
        raise ValueError(f"hpa {hpa:#x} is outside the machine's memory")


@dataclass(frozen=True)
class Blocks:
    """As Bochs has it: blocks in the order of their first use. table: address of an array of pointers, one for each
    `block` bytes of the machine's `size`; a block that was never used has none."""

    size: int
    block: int
    table: int

    def place(self, memory: "Ram", hpa: int, size: int) -> tuple[int | None, int]:
        if not 0 <= hpa < self.size:
            raise ValueError(f"hpa {hpa:#x} is outside the machine's memory")
        number, at = divmod(hpa, self.block)
        start = memory.block(number)
        return (start + at if start else None), min(size, self.block - at)


Map = Flat | Blocks


def to_data(place: Map) -> dict:
    """A Map as JSON takes it."""
    return {"kind": type(place).__name__, **asdict(place)}


def from_data(data: dict) -> Map:
    """The Map that to_data() was given."""
    fields = dict(data)
    if fields.pop("kind") == "Flat":
        return Flat(tuple((hpa, size, address) for hpa, size, address in fields["ranges"]))
    return Blocks(**fields)


class Ram:
    """Host-physical memory: read(hpa, size), write(hpa, data). Owns a descriptor of the engine's /proc/PID/mem.

    Nothing stops the machine meanwhile: what it changes may be seen in part.
    """

    def __init__(self, descriptor: int, place: Map):
        self._fd = descriptor
        self.place = place
        self._blocks: dict[int, int] = {}

    @classmethod
    def of_process(cls, pid: int, place: Map) -> Self:
        return cls(open_memory(pid), place)

    def block(self, number: int) -> int:
        """The address of a block; once it has one that stays."""
        start = self._blocks.get(number)
        if start is None:
            start = int.from_bytes(self._copy(self.place.table + _POINTER * number, _POINTER), "little")
            if start:
                self._blocks[number] = start
        return start

    def read(self, hpa: int, size: int) -> bytes:
        """`size` bytes. ValueError outside the machine's memory, EngineError where the engine has ended."""
        parts = []
        while size > 0:
            address, length = self.place.place(self, hpa, size)
            parts.append(bytes(length) if address is None else self._copy(address, length))
            hpa += length
            size -= length
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, hpa: int, data: bytes) -> None:
        """Changes memory that the monitor keeps for that, such as its mailbox: guests' memory is the monitor's."""
        at = 0
        while at < len(data):
            address, length = self.place.place(self, hpa + at, len(data) - at)
            if address is None:
                raise ValueError(f"hpa {hpa + at:#x} was never used")
            os.pwrite(self._fd, data[at : at + length], address)
            at += length

    def _copy(self, address: int, size: int) -> bytes:
        data = b""
        try:
            data = os.pread(self._fd, size, address)
            while len(data) < size:
                more = os.pread(self._fd, size - len(data), address + len(data))
                if not more:
                    raise EngineError("the engine has ended")
                data += more
        except OSError as error:
            raise EngineError(f"the engine's memory cannot be read: {error.strerror}") from error
        return data

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception) -> None:
        self.close()


def open_memory(pid: int) -> int:
    """A descriptor of a process's memory. EngineError where this process may not have it."""
    try:
        return os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise EngineError(f"the engine's memory cannot be opened: {error.strerror}") from error
