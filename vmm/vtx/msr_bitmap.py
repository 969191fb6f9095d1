"""The MSR bitmaps: which RDMSR and WRMSR of a guest exit (SDM Vol. 3C, "MSR-Bitmap Address")."""

import uctypes

from vmm.memory.fill import ones
from vmm.vtx.x86 import PAGE


class Bitmap:
    """One vCPU's bitmaps: 4 KiB at hpa, all set at first."""

    def __init__(self, hpa):
        ones(hpa, PAGE)
        self.hpa = hpa
        self._bytes = uctypes.bytearray_at(hpa, PAGE)
        self._watched = {}  # (index, write): the value of set(), while watch() forces an exit

    def _where(self, index, write):
        if index <= 0x1FFF:
            base, bit = 0x000, index
        elif 0xC0000000 <= index <= 0xC0001FFF:
            base, bit = 0x400, index - 0xC0000000
        else:
            return None
        return base + (0x800 if write else 0) + (bit >> 3), 1 << (bit & 7)

    def exits(self, index, write):
        where = self._where(index, write)
        return where is None or bool(self._bytes[where[0]] & where[1])

    def set(self, index, write, exits):
        """Set whether RDMSR (write False) or WRMSR of `index` exits."""
        if (index, write) in self._watched:
            self._watched[index, write] = exits
        else:
            self._put(index, write, exits)

    def watch(self, index, write, on):
        """Force an exit regardless of set(), or (not on) end that."""
        if on:
            self._watched[index, write] = self.exits(index, write)
            self._put(index, write, True)
        else:
            self._put(index, write, self._watched.pop((index, write)))

    def _put(self, index, write, exits):
        where = self._where(index, write)
        if where:
            byte, mask = where
            self._bytes[byte] = self._bytes[byte] | mask if exits else self._bytes[byte] & ~mask
