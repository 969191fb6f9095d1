"""A guest's RAM, by guest-physical address.

RAM is contiguous in host memory; the part that does not fit below the hole for devices lies
at 4 GiB (vmm/memory/e820.py has the map). Reads and writes outside RAM raise ValueError:
devices are accessed by the bus only.
"""

import struct
from array import array

import micropython
import uctypes
from micropython import const

PIECE = const(0x8000)  # bytes copied at once: no guest can preempt a copy

# Words of a segment in `table`, whose first word is the number of segments
WORDS = const(5)
FIRST_PAGE = const(1)  # gpa >> 12
SIZE_LOW = const(2)
SIZE_HIGH = const(3)
HPA_LOW = const(4)
HPA_HIGH = const(5)


class GuestMemory:
    """read, write and view guest RAM; segments: ((gpa, size, hpa), ...), at whole pages. table: the same for locate().

    The gpa of read_u8() to read_u64() is taken modulo 2**64.
    """

    def __init__(self, segments):
        self._set(tuple(segments))
        self.covered = -1  # number of the page of RAM that a device hides, -1: none

    def _set(self, segments):
        self.segments = segments
        self.size = sum(size for _, size, _ in segments)
        words = [len(segments)]
        for gpa, size, hpa in segments:
            words += [gpa >> 12, size & 0xFFFFFFFF, size >> 32, hpa & 0xFFFFFFFF, hpa >> 32]
        self.table = array("I", words)

    def forget(self):
        """The RAM has been given back: every later access raises."""
        self._set(())

    def hpa(self, gpa, size=1):
        """Host-physical address of [gpa, gpa + size). ValueError outside RAM."""
        for base, length, hpa in self.segments:
            if base <= gpa and gpa + size <= base + length:
                return hpa + gpa - base
        return _outside(gpa, size)

    def has(self, gpa, size=1):
        """Whether [gpa, gpa + size) is RAM that the guest can access."""
        return gpa >> 12 != self.covered and locate(self.table, gpa, size) >= 0

    def view(self, gpa, size):
        """A writable memoryview of guest RAM: no copy."""
        return memoryview(uctypes.bytearray_at(self.hpa(gpa, size), size))

    def read(self, gpa, size):
        """Return bytes."""
        hpa = locate(self.table, gpa, size) if size >= 0 else -1
        return uctypes.bytes_at(hpa, size) if hpa >= 0 else _outside(gpa, size)

    def write(self, gpa, data):
        """Write a bytes-like object."""
        size = len(data)
        if size <= PIECE:
            if size:
                self.view(gpa, size)[:] = data
            return
        self.hpa(gpa, size)  # checks all of it before the first byte is written
        source = memoryview(data)
        for at in range(0, size, PIECE):  # views of equal size: storing into a larger view is slow
            piece = source[at : at + PIECE]
            self.view(gpa + at, len(piece))[:] = piece

    # These four in viper, since walks of lists and page tables consist of them.

    @micropython.viper
    def read_u8(self, gpa: int) -> uint:
        hpa = int(locate(self.table, gpa, 1))
        if hpa < 0:
            _outside(gpa, 1)
        return uint(ptr8(hpa)[0])

    @micropython.viper
    def read_u16(self, gpa: int) -> uint:
        hpa = int(locate(self.table, gpa, 2))
        if hpa < 0:
            _outside(gpa, 2)
        return uint(ptr16(hpa)[0])

    @micropython.viper
    def read_u32(self, gpa: int) -> uint:
        hpa = int(locate(self.table, gpa, 4))
        if hpa < 0:
            _outside(gpa, 4)
        return uint(ptr32(hpa)[0])

    @micropython.viper
    def read_u64(self, gpa: int) -> uint:
        hpa = int(locate(self.table, gpa, 8))
        if hpa < 0:
            _outside(gpa, 8)
        words = ptr32(hpa)
        return uint(words[0]) | uint(words[1]) << 32

    def write_u8(self, gpa, value):
        uctypes.bytearray_at(self.hpa(gpa, 1), 1)[0] = value & 0xFF

    def write_u16(self, gpa, value):
        struct.pack_into("<H", uctypes.bytearray_at(self.hpa(gpa, 2), 2), 0, value & 0xFFFF)

    def write_u32(self, gpa, value):
        struct.pack_into("<I", uctypes.bytearray_at(self.hpa(gpa, 4), 4), 0, value & 0xFFFFFFFF)

    def write_u64(self, gpa, value):
        struct.pack_into("<Q", uctypes.bytearray_at(self.hpa(gpa, 8), 8), 0, value & 0xFFFFFFFFFFFFFFFF)


def _outside(gpa, size):
    raise ValueError("gpa %#x+%#x is outside guest memory" % (gpa & 0xFFFFFFFFFFFFFFFF, size))


@micropython.viper
def locate(table: ptr32, gpa: int, size: int) -> int:
    """The hpa of [gpa, gpa + size) by a GuestMemory's table; -1 outside RAM."""
    i = 0
    end = int(table[0]) * WORDS
    while i < end:
        at = gpa - (int(table[i + FIRST_PAGE]) << 12)
        if at >= 0 and size <= (int(table[i + SIZE_LOW]) | int(table[i + SIZE_HIGH]) << 32) - at:
            return (int(table[i + HPA_LOW]) | int(table[i + HPA_HIGH]) << 32) + at
        i += WORDS
    return -1
