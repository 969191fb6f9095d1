"""A guest's RAM, by guest-physical address.

RAM is contiguous in host memory; where the guest has more than fits below the hole for
devices, the rest lies at 4 GiB (vmm/memory/e820.py has the map). Reads and writes outside RAM
raise ValueError: devices are reached through the bus, never through here.
"""

import struct

import uctypes
from micropython import const

_PIECE = const(0x8000)  # bytes copied at once: no guest can preempt a copy


class GuestMemory:
    """read, write and view guest RAM; segments: ((gpa, size, hpa), ...)."""

    def __init__(self, segments):
        self.segments = tuple(segments)
        self.size = sum(size for _, size, _ in self.segments)
        self.covered = -1  # number of a page that a device hides from the guest, -1: none

    def forget(self):
        """The RAM has been given back: every later access raises."""
        self.segments = ()
        self.size = 0

    def hpa(self, gpa, size=1):
        """Host-physical address of [gpa, gpa + size). ValueError outside RAM."""
        for base, length, hpa in self.segments:
            if base <= gpa and gpa + size <= base + length:
                return hpa + gpa - base
        raise ValueError("gpa %#x+%#x is outside guest memory" % (gpa, size))

    def has(self, gpa, size=1):
        """True where [gpa, gpa + size) is RAM that the guest reaches."""
        if gpa >> 12 == self.covered:
            return False
        for base, length, _ in self.segments:
            if base <= gpa and gpa + size <= base + length:
                return True
        return False

    def view(self, gpa, size):
        """A writable memoryview of guest RAM: no copy."""
        return memoryview(uctypes.bytearray_at(self.hpa(gpa, size), size))

    def read(self, gpa, size):
        """Return bytes."""
        return bytes(self.view(gpa, size))

    def write(self, gpa, data):
        """Write a bytes-like object."""
        size = len(data)
        if size <= _PIECE:
            if size:
                self.view(gpa, size)[:] = data
            return
        self.hpa(gpa, size)  # checks all of it before the first byte is written
        source = memoryview(data)
        for at in range(0, size, _PIECE):  # views of equal size: storing into a larger view is slow
            piece = source[at : at + _PIECE]
            self.view(gpa + at, len(piece))[:] = piece

    def read_u8(self, gpa):
        return uctypes.bytearray_at(self.hpa(gpa, 1), 1)[0]

    def read_u16(self, gpa):
        return struct.unpack_from("<H", uctypes.bytearray_at(self.hpa(gpa, 2), 2))[0]

    def read_u32(self, gpa):
        return struct.unpack_from("<I", uctypes.bytearray_at(self.hpa(gpa, 4), 4))[0]

    def read_u64(self, gpa):
        return struct.unpack_from("<Q", uctypes.bytearray_at(self.hpa(gpa, 8), 8))[0]

    def write_u8(self, gpa, value):
        uctypes.bytearray_at(self.hpa(gpa, 1), 1)[0] = value & 0xFF

    def write_u16(self, gpa, value):
        struct.pack_into("<H", uctypes.bytearray_at(self.hpa(gpa, 2), 2), 0, value & 0xFFFF)

    def write_u32(self, gpa, value):
        struct.pack_into("<I", uctypes.bytearray_at(self.hpa(gpa, 4), 4), 0, value & 0xFFFFFFFF)

    def write_u64(self, gpa, value):
        struct.pack_into("<Q", uctypes.bytearray_at(self.hpa(gpa, 8), 8), 0, value & 0xFFFFFFFFFFFFFFFF)
