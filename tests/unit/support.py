"""Guest memory for tests: the protocol of vmm/memory/guest.py over a bytearray."""

import struct
from array import array

import uctypes


class Memory:
    """RAM from gpa 0 to `size`. Every access outside raises ValueError."""

    def __init__(self, size):
        self.size = size
        self.data = bytearray(size)
        self.covered = -1
        hpa = uctypes.addressof(self.data)
        self.table = array("I", [1, 0, size & 0xFFFFFFFF, size >> 32, hpa & 0xFFFFFFFF, hpa >> 32])  # for locate()

    def has(self, gpa, size=1):
        return 0 <= gpa and gpa + size <= self.size

    def view(self, gpa, size):
        if gpa < 0 or size < 0 or gpa + size > self.size:
            raise ValueError("gpa %#x+%#x is outside guest memory" % (gpa, size))
        return memoryview(self.data)[gpa : gpa + size]

    def read(self, gpa, size):
        return bytes(self.view(gpa, size))

    def write(self, gpa, data):
        self.view(gpa, len(data))[:] = data

    def _get(self, gpa, code):
        return struct.unpack(code, self.view(gpa, struct.calcsize(code)))[0]

    def read_u8(self, gpa):
        return self._get(gpa, "<B")

    def read_u16(self, gpa):
        return self._get(gpa, "<H")

    def read_u32(self, gpa):
        return self._get(gpa, "<I")

    def read_u64(self, gpa):
        return self._get(gpa, "<Q")

    def write_u8(self, gpa, value):
        self.write(gpa, struct.pack("<B", value))

    def write_u16(self, gpa, value):
        self.write(gpa, struct.pack("<H", value))

    def write_u32(self, gpa, value):
        self.write(gpa, struct.pack("<I", value))

    def write_u64(self, gpa, value):
        self.write(gpa, struct.pack("<Q", value))
