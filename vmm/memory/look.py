"""Accesses to guest memory without side effects: for the prompt, symbols, debugger and dumps.

A read checks no rights, sets no accessed or dirty flag and reads no device. The address space need not be the current
one. An address that cannot be read raises ValueError with the reason. Code that emulates the CPU uses
vmm/memory/linear.py.
"""

import struct

import micropython
import uctypes
from micropython import const
from vmx import tables

from vmm.memory import paging
from vmm.memory.guest import FIRST_PAGE, HPA_HIGH, HPA_LOW, SIZE_HIGH, SIZE_LOW, WORDS
from vmm.memory.paging import ADDRESS, PS, RSVD, XD
from vmm.vtx.x86 import EFER_LMA, MASK64, PAGE

_PROGRAM_PCID = const(1 << 11)


class Space:
    """One address space of a guest. walker: loaded, and not shared; memory: vmm.memory.guest.GuestMemory."""

    def __init__(self, walker, memory):
        self._walker = walker
        self._memory = memory
        long = walker.mode >= 48 and walker.no_execute
        self.root = walker.root if long else -1  # walk() leaves other modes to the Walker
        self.shift = walker.shift if long else 39
        self.paged = walker.mode != 0  # addresses are translated by tables in the guest's memory

    def translate(self, gva):
        """Return the gpa. ValueError with the reason if there is none."""
        gpa = walk(self._memory.table, self.root, self.shift, gva, 0)
        if gpa >= 0:
            return gpa
        gpa = self._walker.translate(gva, paging.PEEK)
        if gpa >= 0:
            return gpa
        if gpa == paging.NOT_CANONICAL:
            why = "is not canonical"
        elif gpa == paging.UNBACKED:
            why = "has page tables outside guest memory"
        elif ~gpa & RSVD:
            why = "has a page-table entry with reserved bits"
        else:
            why = "is not mapped"
        raise ValueError("gva %#x %s" % (gva & MASK64, why))

    def _pieces(self, gva, size):
        """[(gpa, size), ...] of the whole range. ValueError."""
        out = []
        if size < 0:
            raise ValueError("%d bytes: a number from 0 up" % size)
        while size:
            gpa = self.translate(gva)
            piece = min(size, PAGE - (gva & (PAGE - 1)))
            if not self._memory.has(gpa, piece):
                raise ValueError("gva %#x is gpa %#x, where there is no RAM" % (gva & MASK64, gpa))
            out.append((gpa, piece))
            gva += piece
            size -= piece
        return out

    @micropython.viper
    def number(self, gva: int, size: int) -> uint:
        """Return the little-endian unsigned number of `size` bytes, 1 to 8. ValueError."""
        hpa = -1
        if (gva & PAGE - 1) + size <= PAGE:
            memory = self._memory
            hpa = int(walk(memory.table, self.root, self.shift, gva, 1))
        if hpa < 0 or int(memory.covered) >= 0:
            return uint(self._number(gva, size))
        if size == 8:
            words = ptr32(hpa)
            return uint(words[0]) | uint(words[1]) << 32
        data = ptr8(hpa)
        value = uint(0)
        while size > 0:
            size -= 1
            value = value << 8 | uint(data[size])
        return value

    def _number(self, gva, size):
        return int.from_bytes(self.read(gva & MASK64, size), "little")

    def read(self, gva, size):
        """Return bytes. ValueError."""
        if 0 < size <= PAGE - (gva & (PAGE - 1)) and self._memory.covered < 0:
            hpa = walk(self._memory.table, self.root, self.shift, gva, 1)
            if hpa >= 0:
                return uctypes.bytes_at(hpa, size)
        return b"".join([self._memory.read(gpa, piece) for gpa, piece in self._pieces(gva, size)])

    def write(self, gva, data):
        """Write bytes, regardless of the pages' rights: all of them, or ValueError."""
        at = 0
        for gpa, piece in self._pieces(gva, len(data)):
            self._memory.write(gpa, data[at : at + piece])
            at += piece


@micropython.viper
def walk(table: ptr32, root: int, shift: int, gva: int, host: int) -> int:
    """The gpa of a gva in 4-level or 5-level paging, or with `host` its hpa.

    Below zero if it is not in RAM, or an entry has reserved bits: paging.Walker.translate(gva, PEEK), which computes
    the same, has the reason. NXE must be set. table: of GuestMemory; root: a CR3; shift: of the Walker. In viper, since
    reading lists and objects of guests consists mostly of walks.
    """
    upper = gva >> (shift + 8) & (1 << 56 - shift) - 1
    if upper != 0 and upper + 1 != 1 << 56 - shift:
        return -1
    end = int(table[0]) * WORDS
    page = root & ADDRESS
    offset = 0
    i = 0
    while True:
        hpa = -1
        left = end
        while left:  # locate(), inlined, beginning with the segment of the table before
            at = page - (int(table[i + FIRST_PAGE]) << 12)
            if at >= 0 and at + PAGE <= int(table[i + SIZE_LOW]) | int(table[i + SIZE_HIGH]) << 32:
                hpa = (int(table[i + HPA_LOW]) | int(table[i + HPA_HIGH]) << 32) + at
                break
            i += WORDS
            if i == end:
                i = 0
            left -= WORDS
        if hpa < 0:
            return -1
        if offset:
            offset = gva & 0xFFF
            return hpa + offset if host else page + offset
        entry = ptr32(hpa + ((gva >> shift & 511) << 3))
        low = int(entry[0])
        if not low & 1:
            return -1
        page = (int(entry[1]) & 0xFFFFF) << 32 | low & 0xFFFFF000
        if shift == 12 or low & PS:
            offset = (1 << shift) - 1
            if shift > 30 or low & offset & 0xFFFFE000 and shift > 12:
                return -1
            page = page & ~offset | gva & offset & 0xFFFFFF000
        shift -= 9


def misuse(gva, what):
    """The ValueError for an argument that is no address or no bytes, such as the name of a symbol."""
    if isinstance(gva, int):
        return ValueError("%r are neither bytes nor a number of them" % (what,))
    more = ": vm.symbols[%r] is that of a symbol" % gva if isinstance(gva, str) else ""
    return ValueError("%r is no address%s" % (gva, more))


@micropython.viper
def translate(vcpu, gva):
    """The gpa of a gva in a vCPU's address space. ValueError with the reason if there is none."""
    root = tables(vcpu)
    levels = int(root) & 7
    if levels:
        # gva and gpa stay objects: converting one to a word and back takes 40 ticks, above 2**62 more.
        gpa = walk(vcpu.memory.table, root, 3 + 9 * levels, gva, 0)
        if int(gpa) >= 0:
            return gpa
    return space(vcpu).translate(gva)


def holding(vcpu, gva, where=None):
    """The address space `where`, a Space or a CR3. None: the current one; or, if that is the user table of Linux's
    page-table isolation and lacks a page of the kernel's half, the kernel's.

    With page-table isolation the user table is 4 KiB behind the kernel's and has another PCID: bits 12 and 11 of CR3
    (arch/x86/entry/calling.h). Both map the same for user mode.
    """
    if isinstance(where, Space):
        return where
    if where is not None:
        return space(vcpu, where)
    current = space(vcpu)
    if not gva >> 63 & 1:
        return current
    cr3 = vcpu.cr3
    if not cr3 & PAGE or not vcpu.efer & EFER_LMA:
        return current
    try:
        current.translate(gva)
        return current
    except ValueError:
        root = cr3 & ADDRESS
    pair = _are_pair(vcpu.vm.memory, root - PAGE, root)
    return space(vcpu, cr3 & ~(PAGE | _PROGRAM_PCID)) if pair else current


def _are_pair(memory, kernels, programs):
    """Whether two top tables, by gpa, map the same for user mode, apart from XD, which the kernel's sets."""
    if not memory.has(kernels, 2 * PAGE):
        return False
    first = struct.unpack("<256Q", memory.read(kernels, PAGE // 2))
    second = struct.unpack("<256Q", memory.read(programs, PAGE // 2))
    differ = [i for i in range(256) if (first[i] ^ second[i]) & ~XD]
    return not differ and any(first)


def space(vcpu, cr3=None):
    """The vCPU's current address space; with `cr3` that of another task in the same paging mode."""
    vm = vcpu.vm
    walker = vm.new_walker()
    walker.follow(vcpu, cr3)
    return Space(walker, vm.memory)
