"""Instructions that have touched a device before need not be found and decoded again.

A driver has few places where it reads and writes a device's registers. What is kept of one is
all that its decoding went by: mode, the entries of the page tables that lead to it, its bytes.
If they are what they were, the instruction is the same, and no more is asked; everything else
goes the longer way (fastmmio.py), which comes back with what is to be remembered. Limits:
64-bit code in the RAM from gpa 0, 4-level paging.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.emulation.fastmov import IMMEDIATE, LENGTH, decode, source

_SITES = const(32)
_WORDS = const(64)  # of a site
_HEADER = const(4)  # host address of the RAM (two words), its size, 0

# A site: RIP (two words), and
_RIGHTS = const(2)  # of CS
_NUMBER = const(3)  # as of fastmov.decode()
_VALUE = const(4)  # of the immediate operand
_END = const(5)  # behind the pairs
_TOP = const(6)  # offset in the PML4, and the entry there (two words)
_PAIRS = const(9)  # gpa, and the 32-bit word that must be there

_LARGE = const(0x80)
_ADDRESS = const(0xFFFFFFFFFF000)

# Words of the frame (vmm/frame.py), and bits as in fastmov.py: viper folds constants of its own module only.
_RIP = const(0x080 // 4)
_LENGTH = const(0x0A0 // 4)
_GPA = const(0x0B0 // 4)
_VECTORING_INFO = const(0x0C8 // 4)
_OUTCOME = const(0x1B8 // 4)
_CR3 = const(0x1E8 // 4)
_CS_RIGHTS = const(0x1F0 // 4)
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

    def remember(self, rip, cr3, rights):
        """Keep the instruction at `rip`, that has just been executed. rights: access rights of CS."""
        words = [rip & 0xFFFFFFFF, rip >> 32, rights, 0, 0, 0, 0, 0, 0]
        table = cr3 & _ADDRESS
        for shift in (39, 30, 21, 12):
            at = table + ((rip >> shift & 511) << 3)
            if at + 8 > self._size:
                return
            low, high = self._word(at), self._word(at + 4)
            if not low & 1:
                return
            if shift == 39:
                words[_TOP : _TOP + 3] = [at - table, low, high]
            else:
                words += [at, low, at + 4, high]
            table = (high << 32 | low) & _ADDRESS
            if shift == 12 or low & _LARGE:
                break
        code = table & ~((1 << shift) - 1) | rip & (1 << shift) - 1
        if rip & 0xFFF > 0xFF1 or code + 16 > self._size:
            return
        number = decode(self._ram + code, 64)
        if not number:
            return
        for at in range(code, code + (number & LENGTH), 4):
            words += [at, self._word(at)]
        words[_NUMBER] = number
        if number & IMMEDIATE:
            words[_VALUE] = source(array("I", words), number, self._ram + code)
        words[_END] = len(words)
        start = _HEADER + _WORDS * _slot(rip & 0xFFFFFFFF)
        for i, word in enumerate(words):
            self._words[start + i] = word

    def _word(self, gpa):
        return int.from_bytes(uctypes.bytes_at(self._ram + gpa, 4), "little")


@micropython.viper
def _slot(low: int) -> int:
    return (low >> 2 ^ low >> 7) & (_SITES - 1)


@micropython.viper
def _access(sites: int, read, write, slow, vcpu) -> int:
    h = ptr32(sites)
    f = ptr32(vcpu)
    low = int(f[_RIP])
    c = ptr32(sites + 4 * _HEADER + 4 * _WORDS * ((low >> 2 ^ low >> 7) & (_SITES - 1)))
    if f[_GPA + 1] or f[_VECTORING_INFO] & 0x80000000:
        return int(slow(vcpu))
    if low != int(c[0]) or f[_RIP + 1] != c[1] or f[_CS_RIGHTS] != c[_RIGHTS]:
        return int(slow(vcpu))
    ram = int(h[0]) | int(h[1]) << 32
    table = int(f[_CR3]) & 0xFFFFF000
    if table >= int(h[2]) or f[_CR3 + 1] & 0xFFFFF:
        return int(slow(vcpu))
    w = ptr32(ram + table + int(c[_TOP]))
    if w[0] != c[_TOP + 1] or w[1] != c[_TOP + 2]:
        return int(slow(vcpu))
    at = int(_PAIRS)
    end = int(c[_END])
    while at < end:
        w = ptr32(ram + int(c[at]))
        if w[0] != c[at + 1]:
            return int(slow(vcpu))
        at += 2
    number = int(c[_NUMBER])
    size = number >> 4 & 15
    offset = int(f[_GPA]) & 0xFFF
    if offset + size > 0x1000:
        return int(slow(vcpu))
    f[_LENGTH] = number & 15
    f[_LENGTH + 1] = 0
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
        return int(f[_OUTCOME]) | 1
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
