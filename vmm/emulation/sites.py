"""Instructions that have touched a device before need not be found and decoded again.

A driver has few places where it reads and writes a device's registers. What is kept of one is
all that its decoding went by: mode, the entries of the page tables that lead to it, its bytes.
If they are what they were, the instruction is the same, and no more is asked; else it is decoded
and kept anew. What cannot be kept goes the longer way, and so does all of a guest that has breakpoints
enabled. Limits: MOV and MOVZX as in fastmov.py, 64-bit code within a page, in the RAM from gpa 0, 4-level
paging. Rights of the code's page are not looked at: the CPU has just fetched from it.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.emulation.fastmov import decode, source
from vmm.vtx.frame import CR3, CS_RIGHTS, DR7, GPA, LENGTH, OUTCOME, RIP, VECTORING_INFO
from vmm.vtx.vmcs_bits import RIGHTS_L

_SITES = const(32)
_WORDS = const(32)  # of a site: 9, three levels of four, four words of code
_HEADER = const(4)  # host address of the RAM (two words), its size, 0

# A site: RIP (two words), and
_RIGHTS = const(2)  # of CS
_NUMBER = const(3)  # as of fastmov.decode()
_VALUE = const(4)  # of the immediate operand
_END = const(5)  # behind the pairs
_TOP = const(6)  # offset in the PML4, and the entry there (two words)
_PAIRS = const(9)  # gpa, and the 32-bit word that must be there

_LARGE = const(0x80)

# Words of the frame (vmm/vtx/frame.py), and bits as in fastmov.py: viper folds constants of its own module only.
_HIGH = const(1 << 12)
_WRITE = const(1 << 13)
_IMMEDIATE = const(1 << 14)


class Sites:
    """Those of one guest. ram, size: host address and bytes of its RAM from gpa 0."""

    def __init__(self, ram, size):
        self._ram = ram
        self._size = size
        self._words = array("I", [0] * (_HEADER + _WORDS * _SITES))
        self._words[0] = ram & 0xFFFFFFFF
        self._words[1] = ram >> 32
        self._words[2] = size

    def handler(self, read, write, slow):
        """Return the handler of EPT violations on one device's page.

        read(offset, size), write(offset, size, value): the device's. slow: the handler for what is
        not known here.
        """
        return bind(_access, uctypes.addressof(self._words), read, write, slow)


@micropython.viper
def _remember(sites: int, vcpu) -> int:
    """Keep the instruction at RIP: 1, or 0 where it is none of those."""
    h = ptr32(sites)
    f = ptr32(vcpu)
    low = int(f[RIP])
    if not f[CS_RIGHTS] & RIGHTS_L or low & 0xFFF > 0xFF1:
        return 0
    ram = int(h[0]) | int(h[1]) << 32
    size = int(h[2])
    rip = low | int(f[RIP + 1]) << 32
    table = (int(f[CR3 + 1]) & 0xFFFFF) << 32 | int(f[CR3]) & 0xFFFFF000
    c = ptr32(sites + 4 * _HEADER + 4 * _WORDS * ((low ^ low >> 5) & (_SITES - 1)))
    c[_RIGHTS] = 0  # matches nothing, while it is not whole
    at = int(_PAIRS)
    shift = 39
    while True:
        if table >= size:
            return 0
        gpa = table + ((rip >> shift & 511) << 3)
        w = ptr32(ram + gpa)
        entry = int(w[0])
        if not entry & 1:
            return 0
        if shift == 39:
            c[_TOP] = gpa - table
            c[_TOP + 1] = entry
            c[_TOP + 2] = w[1]
        else:
            c[at] = gpa
            c[at + 1] = entry
            c[at + 2] = gpa + 4
            c[at + 3] = w[1]
            at += 4
        table = (int(w[1]) & 0xFFFFF) << 32 | entry & 0xFFFFF000
        if shift == 12:
            break
        if entry & _LARGE:
            if shift > 30:
                return 0
            break
        shift -= 9
    offset = (1 << shift) - 1
    gpa = table & (offset ^ -1) | rip & offset
    if gpa + 16 > size:
        return 0
    number = int(decode(ram + gpa, 64))
    if number == 0:
        return 0
    c[_NUMBER] = number
    if number & _IMMEDIATE:
        c[_VALUE] = int(source(vcpu, number, ram + gpa))
    end = gpa + (number & 15)
    while gpa < end:
        w = ptr32(ram + gpa)
        c[at] = gpa
        c[at + 1] = w[0]
        at += 2
        gpa += 4
    c[_END] = at
    c[0] = low
    c[1] = f[RIP + 1]
    c[_RIGHTS] = f[CS_RIGHTS]
    return 1


@micropython.viper
def _access(sites: int, read, write, slow, vcpu) -> int:
    h = ptr32(sites)
    f = ptr32(vcpu)
    low = int(f[RIP])
    c = ptr32(sites + 4 * _HEADER + 4 * _WORDS * ((low ^ low >> 5) & (_SITES - 1)))
    if f[GPA + 1] or f[VECTORING_INFO] & 0x80000000 or f[DR7] & 0xFF:
        return int(slow(vcpu))
    ram = int(h[0]) | int(h[1]) << 32
    table = int(f[CR3]) & 0xFFFFF000
    known = 1
    while True:
        if low == int(c[0]) and f[RIP + 1] == c[1] and f[CS_RIGHTS] == c[_RIGHTS]:
            if table < int(h[2]) and f[CR3 + 1] & 0xFFFFF == 0:
                w = ptr32(ram + table + int(c[_TOP]))
                if w[0] == c[_TOP + 1] and w[1] == c[_TOP + 2]:
                    at = int(_PAIRS)
                    end = int(c[_END])
                    while at < end:
                        w = ptr32(ram + int(c[at]))
                        if w[0] != c[at + 1]:
                            break
                        at += 2
                    if at >= end:
                        break
        if known == 0 or int(_remember(sites, vcpu)) == 0:
            return int(slow(vcpu))
        known = 0
    number = int(c[_NUMBER])
    size = number >> 4 & 15
    offset = int(f[GPA]) & 0xFFF
    if offset + size > 0x1000:
        return int(slow(vcpu))
    f[LENGTH] = number & 15
    f[LENGTH + 1] = 0
    register = number >> 7 & 30
    if number & _WRITE:
        value = int(f[register])
        if number & _IMMEDIATE:
            value = int(c[_VALUE])
        elif number & _HIGH:
            value >>= 8
        if size < 4:
            value &= (1 << (size << 3)) - 1
        write(offset, size, value)
        return int(f[OUTCOME]) | 1
    value = int(read(offset, size))
    if size < 4:
        value &= (1 << (size << 3)) - 1
    into = number >> 16 & 15
    old = int(f[register])
    if into >= 4:
        f[register] = value
        f[register + 1] = 0
    elif into == 2:
        f[register] = old & 0xFFFF0000 | value & 0xFFFF
    elif number & _HIGH:
        f[register] = old & 0xFFFF00FF | (value & 0xFF) << 8
    else:
        f[register] = old & 0xFFFFFF00 | value & 0xFF
    return 1
