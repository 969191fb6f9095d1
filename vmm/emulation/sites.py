"""Instructions that access a page by way of an exit are found and decoded once, and kept.

A driver has few places where it reads and writes a device's registers. What is kept of one is all that its
decoding went by: mode, base of CS, the entries of the page tables that lead to it, its bytes. If they are what they
were, the instruction is the same, and no more is asked; else it is decoded and kept anew. That holds for code of 16, 32
and 64 bits, without paging, and with 32-bit, PAE and 4-level paging. An instruction that is not one of fastmov.py's
or fastops.py's is kept as one that goes the longer way; so goes all of a guest that has breakpoints enabled.

Limits: code within a page, in the RAM from gpa 0; an operand that lies on two pages goes the longer way; a locked
access to RAM is one step for a guest of one vCPU only (a device's registers are the monitor's in any case). Rights of
the code's page are not looked at: the CPU has just fetched from it. Nor are those of the operand's: the CPU translated
its address before it exited.
"""

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.emulation.decode import DS
from vmm.emulation.fastmov import (
    BASE_NONE,
    BASE_RIP,
    HIGH,
    IMMEDIATE,
    NO_ADDRESS,
    WRITE,
    address,
    decode,
    source,
)
from vmm.emulation.fastops import OTHER, operate
from vmm.vtx.frame import (
    CR0,
    CR3,
    CR4,
    CS_BASE,
    CS_RIGHTS,
    DR7,
    ENTRY_CONTROLS,
    GPA,
    LENGTH,
    OUTCOME,
    QUALIFICATION,
    RIP,
    VECTORING_INFO,
    WANT_PAGING,
)
from vmm.vtx.vmcs import GUEST_ES_BASE, GUEST_PDPTE0
from vmm.vtx.vmcs_bits import ENTRY_IA32E_MODE_GUEST, RIGHTS_DB, RIGHTS_L
from vmm.vtx.x86 import CR0_PG, CR4_PAE, CR4_PSE

_SITES = const(64)
_WORDS = const(36)  # of a site: 14, three levels of four, four times two of code
_HEADER = const(10)

# The header: host address of the RAM (two words), its size, and
_PAGE = const(3)  # number of the operand's page, for those who answer for any page
_OPEN = const(4)  # pages from gpa 0 on that may be accessed in the guest's place
_VALUE = const(5)  # of an immediate operand: what learn() tells besides the number
_PLACE = const(6)
_ANSWER = const(8)  # two words

# A site: RIP (two words), and
_RIGHTS = const(2)  # of CS; _REFUSED where the instruction goes the longer way
_NUMBER = const(3)  # as of fastmov.decode() or fastops.encode()
_IMMEDIATE = const(4)  # operand
_END = const(5)  # bytes of the pairs
_TOP = const(6)  # offset in the first table, and the entry there (two words); with PAE the PDPTE
_MODE = const(9)  # of paging, see _paging()
_BASE = const(10)  # of CS
_OPERAND = const(11)  # as of fastmov.address()
_PLAIN = const(12)  # of an operand at a base register in 64-bit mode: bit 31, its displacement << 8, the frame's word
_PAIRS = const(14)  # gpa, and the 32-bit word that must be there

_REFUSED = const(1 << 31)
_LARGE = const(0x80)
_PRESENT = const(1)

# Modes of paging.
_NONE = const(0)
_32 = const(32)
_32_PSE = const(33)
_PAE = const(36)
_4_LEVEL = const(48)

# The exit's qualification: an operand's access, by its linear address, and no fetch.
_ACCESS = const(0x184)
_OPERANDS = const(0x180)
_WRITES = const(2)


class Sites:
    """Those of one guest.

    ram, size: host address and bytes of its RAM from gpa 0. open_: whether that RAM may be accessed in the guest's
    place, where it has exited. learn(vcpu): the number of the instruction at RIP, 0 for none,
    after told(). words: address of what is kept.
    """

    def __init__(self, ram, size, open_, learn):
        self._buffer = bytearray(4 * (_HEADER + _WORDS * _SITES))
        self.words = uctypes.addressof(self._buffer)
        self._learn = learn
        self._put(0, ram & 0xFFFFFFFF)
        self._put(1, ram >> 32)
        self._put(2, size)
        self._put(_OPEN, size >> 12 if open_ else 0)
        self.peek = bind(_peek, self.words)
        self.poke = bind(_poke, self.words)

    def _put(self, word, value):
        _set(self.words, word, value)

    def told(self, immediate, operand):
        """What learn() found besides the number: fastops.encode()."""
        self._put(_VALUE, immediate)
        self._put(_PLACE, operand)

    @property
    def page(self):
        """Number of the page that an access is to, where any page is answered for."""
        return _get(self.words, _PAGE)

    @page.setter
    def page(self, value):
        self._put(_PAGE, value)

    def handler(self, read, write, slow):
        """Return the handler of EPT violations on one page.

        read(offset, size), write(offset, size, value): who answers there. slow: the handler for what is not
        known here.
        """
        return bind(_access, self.words, read, write, slow, self._learn)

    def general(self, ways, others, slow):
        """Return the handler of EPT violations on any page; who answers finds its number in `page`.

        ways: {number of a page: (read, write)}. others: [(read, write) for RAM that is open, (read, write) for pages
        where there is neither RAM nor one of those].
        """
        return bind(_general, self.words, ways, others, slow, self._learn)

    def nobody(self, miss):
        """Return (read, write) for pages where nobody answers. miss(gpa of the page): counts it."""
        return bind(_ones, self.words, miss), bind(_dropped, self.words, miss)

    def lengths(self):
        """Return length(vcpu): bytes of the instruction at RIP, which has made an EPT violation; 0: not known here."""
        return bind(_length, self.words, self._learn)

    def answers(self, store):
        """Return answer(low, high, vcpu) -> verdict: who made an EPT violation reads this value, or writes it.

        -1, and nothing is done, for what is not known here. store(offset, size, value): to a page that is not open.
        """
        access = bind(
            _access, self.words, bind(_answered, self.words), bind(_replace, self.words, store), _unknown, self._learn
        )
        return bind(_answer, self.words, access)


@micropython.viper
def _set(words: int, word: int, value: int):
    ptr32(words)[word] = value


@micropython.viper
def _get(words: int, word: int) -> int:
    return int(ptr32(words)[word])


@micropython.viper
def _ones(sites: int, miss, offset: int, size: int) -> int:
    miss(int(ptr32(sites)[_PAGE]) << 12)
    return -1 if size == 8 else 0xFFFFFFFF


@micropython.viper
def _dropped(sites: int, miss, offset: int, size: int, value):
    miss(int(ptr32(sites)[_PAGE]) << 12)


@micropython.viper
def _peek(sites: int, offset: int, size: int) -> uint:
    """RAM of the page in the header."""
    h = ptr32(sites)
    at = (int(h[0]) | int(h[1]) << 32) + (int(h[_PAGE]) << 12) + offset
    if size == 4:
        return uint(ptr32(at)[0])
    if size == 1:
        return uint(ptr8(at)[0])
    if size == 2:
        return uint(ptr16(at)[0])
    w = ptr32(at)
    return uint(w[0]) | uint(w[1]) << 32


@micropython.viper
def _poke(sites: int, offset: int, size: int, value):
    h = ptr32(sites)
    at = (int(h[0]) | int(h[1]) << 32) + (int(h[_PAGE]) << 12) + offset
    if size == 1:
        ptr8(at)[0] = int(value)
    elif size == 2:
        ptr16(at)[0] = int(value)
    else:
        wide = uint(value)
        w = ptr32(at)
        w[0] = int(wide & uint(0xFFFFFFFF))
        if size == 8:
            w[1] = int(wide >> uint(32))


@micropython.viper
def _unknown(vcpu) -> int:
    return -1


@micropython.viper
def _answer(sites: int, access, low: int, high: int, vcpu) -> int:
    h = ptr32(sites)
    h[_ANSWER] = low
    h[_ANSWER + 1] = high
    h[_PAGE] = int(ptr32(vcpu)[GPA]) >> 12
    return int(access(vcpu))


@micropython.viper
def _answered(sites: int, offset: int, size: int) -> uint:
    h = ptr32(sites)
    if size == 8:
        return uint(h[_ANSWER]) | uint(h[_ANSWER + 1]) << 32
    return uint(h[_ANSWER])


@micropython.viper
def _replace(sites: int, store, offset: int, size: int, value):
    h = ptr32(sites)
    answer = uint(h[_ANSWER])
    if size == 8:
        answer |= uint(h[_ANSWER + 1]) << 32
    else:
        answer &= uint((1 << (size << 3)) - 1)
    if int(h[_PAGE]) < int(h[_OPEN]):
        _poke(sites, offset, size, answer)
    else:
        store(offset, size, answer)


@micropython.viper
def _paging(frame: ptr32) -> int:
    """How the guest's linear addresses are translated, by the words that WANT_PAGING asks for."""
    if not frame[CR0] & CR0_PG:
        return _NONE
    if not frame[CR4] & CR4_PAE:
        return _32_PSE if frame[CR4] & CR4_PSE else _32
    return _4_LEVEL if frame[ENTRY_CONTROLS] & ENTRY_IA32E_MODE_GUEST else _PAE


@micropython.viper
def _walk(sites: int, site: int, table: int, linear: int, mode: int) -> int:
    """The gpa of `linear`, after the entries that lead to it are kept; -1 where it is not in the RAM from gpa 0.

    table: gpa of the first table, or what a PDPTE names.
    """
    c = ptr32(site)
    c[_END] = 0
    if mode == _NONE:
        return linear
    h = ptr32(sites)
    ram = int(h[0]) | int(h[1]) << 32
    wide = mode >= _PAE  # entries of 8 bytes
    shift = 22
    index = 1023
    if wide:
        shift = 39 if mode == _4_LEVEL else 21
        index = 511
    top = mode != _PAE
    at = int(_PAIRS)
    while True:
        if table >= int(h[2]):
            return -1
        offset = (linear >> shift & index) << (3 if wide else 2)
        w = ptr32(ram + table + offset)
        low = int(w[0])
        high = 0
        if not low & _PRESENT:
            return -1
        if wide:
            high = int(w[1])
        if top:
            c[_TOP] = offset
            c[_TOP + 1] = low
            c[_TOP + 2] = high
            top = False
        else:
            c[at] = table + offset
            c[at + 1] = low
            at += 2
            if wide:
                c[at] = table + offset + 4
                c[at + 1] = high
                at += 2
        table = (high & 0xFFFFF) << 32 | low & 0xFFFFF000
        if shift == 12:
            break
        if low & _LARGE and mode != _32:
            if shift > 30:
                return -1
            if mode == _32_PSE:
                table = (low >> 13 & 0xFF) << 32 | low & 0xFFC00000
            break
        shift -= 9 if wide else 10
    c[_END] = at - _PAIRS << 2
    offset = (1 << shift) - 1
    return table & (offset ^ -1) | linear & offset


@micropython.viper
def _same(sites: int, site: int, vcpu) -> int:
    """Whether all that a site was decoded by is what it was, its RIP and CS excepted: 1, else 0."""
    h = ptr32(sites)
    c = ptr32(site)
    f = ptr32(vcpu)
    ram = int(h[0]) | int(h[1]) << 32
    mode = int(c[_MODE])
    if not c[_RIGHTS] & RIGHTS_L:
        vcpu.want(WANT_PAGING)
        if f[CS_BASE] != c[_BASE] or int(_paging(vcpu)) != mode:
            return 0
    if mode == _PAE:
        linear = int(f[RIP]) + int(c[_BASE]) & 0xFFFFFFFF
        entry = int(vcpu.read(GUEST_PDPTE0 + (linear >> 30) * 2))
        if entry & 0xFFFFFFFF != int(c[_TOP + 1]) or entry >> 32 != int(c[_TOP + 2]):
            return 0
    elif mode != _NONE:
        table = int(f[CR3]) & 0xFFFFF000
        if table >= int(h[2]) or (mode == _4_LEVEL and int(f[CR3 + 1]) & 0xFFFFF):
            return 0
        w = ptr32(ram + table + int(c[_TOP]))
        if int(w[0]) != int(c[_TOP + 1]) or (mode == _4_LEVEL and int(w[1]) != int(c[_TOP + 2])):
            return 0
    at = site + 4 * _PAIRS
    end = at + int(c[_END])
    while at < end:
        w = ptr32(at)
        if ptr32(ram + int(w[0]))[0] != w[1]:
            return 0
        at += 8
    return 1


@micropython.viper
def _remember(sites: int, learn, vcpu) -> int:
    """Keep the instruction at RIP: 1, or 0 where it is none of those."""
    h = ptr32(sites)
    f = ptr32(vcpu)
    low = int(f[RIP])
    rights = int(f[CS_RIGHTS])
    site = sites + 4 * _HEADER + 4 * _WORDS * ((low ^ low >> 6) & (_SITES - 1))
    c = ptr32(site)
    if int(c[_RIGHTS]) == rights | _REFUSED and int(c[0]) == low and int(c[1]) == int(f[RIP + 1]):
        if int(_same(sites, site, vcpu)):
            return 0
    c[_RIGHTS] = 0  # matches nothing, while it is not whole
    bits = 64
    mode = int(_4_LEVEL)
    base = 0
    linear = low | int(f[RIP + 1]) << 32
    table = (int(f[CR3 + 1]) & 0xFFFFF) << 32 | int(f[CR3]) & 0xFFFFF000
    vcpu.want(WANT_PAGING)
    if rights & RIGHTS_L:
        if not f[ENTRY_CONTROLS] & ENTRY_IA32E_MODE_GUEST:
            return 0  # a bit without a meaning
    else:
        bits = 32 if rights & RIGHTS_DB else 16
        mode = int(_paging(vcpu))
        base = int(f[CS_BASE])
        linear = low + base & 0xFFFFFFFF
        if mode < _4_LEVEL:
            table &= 0xFFFFFFFF
    if mode == _PAE:
        entry = int(vcpu.read(GUEST_PDPTE0 + (linear >> 30) * 2))
        if not entry & _PRESENT:
            return 0
        c[_TOP + 1] = entry & 0xFFFFFFFF
        c[_TOP + 2] = entry >> 32 & 0xFFFFFFFF
        table = entry & 0xFFFFFFFFFF000
    gpa = int(_walk(sites, site, table, linear, mode))
    if gpa < 0 or gpa + 16 > int(h[2]):
        return 0
    code = gpa + (int(h[0]) | int(h[1]) << 32)
    number = int(decode(code, bits))
    if number:
        if number & IMMEDIATE:
            c[_IMMEDIATE] = int(source(vcpu, number, code))
        c[_OPERAND] = int(address(code, bits))
    else:
        number = int(learn(vcpu))
        c[_IMMEDIATE] = h[_VALUE]
        c[_OPERAND] = h[_PLACE]
    length = number & 15
    if number == 0 or (linear & 0xFFF) + length > 0x1000:
        length = 15
        rights |= _REFUSED
    operand = int(c[_OPERAND])
    if operand & 31 == BASE_RIP:
        c[_OPERAND] = (operand >> 15) + low + length << 15 & 0x7FF8000 | operand & 0x7FE0 | BASE_NONE
    c[_PLAIN] = 0
    if bits == 64 and operand & 31 < BASE_NONE and operand >> 5 & 31 == BASE_NONE and operand >> 12 & 7 <= DS:
        c[_PLAIN] = 1 << 31 | operand >> 15 << 8 & 0xFFF00 | (operand & 31) << 1
    c[_NUMBER] = number
    c[_MODE] = mode
    c[_BASE] = base
    at = (int(c[_END]) >> 2) + _PAIRS
    end = gpa + length
    while gpa < end:
        c[at] = gpa
        c[at + 1] = ptr32(code)[0]
        at += 2
        gpa += 4
        code += 4
    c[_END] = at - _PAIRS << 2
    c[0] = low
    c[1] = f[RIP + 1]
    c[_RIGHTS] = rights
    if rights & _REFUSED:
        return 0
    return 1


@micropython.viper
def _before(site: int, vcpu) -> int:
    """Where in a page the operand begins; not 0 where that is not known."""
    c = ptr32(site)
    f = ptr32(vcpu)
    operand = int(c[_OPERAND])
    if operand & NO_ADDRESS:
        return 1
    at = operand >> 15
    base = operand & 31
    if base < BASE_NONE:
        at += int(f[base << 1])
    index = operand >> 5 & 31
    if index < BASE_NONE:
        at += int(f[index << 1]) << (operand >> 10 & 3)
    segment = operand >> 12 & 7
    if not c[_RIGHTS] & RIGHTS_L or segment > DS:
        at += int(vcpu.read(GUEST_ES_BASE + segment * 2))
    return at & 0xFFF


@micropython.viper
def _length(sites: int, learn, vcpu) -> int:
    f = ptr32(vcpu)
    low = int(f[RIP])
    site = sites + 4 * _HEADER + 4 * _WORDS * ((low ^ low >> 6) & (_SITES - 1))
    c = ptr32(site)
    known = 1
    while True:
        if low == int(c[0]) and int(f[RIP + 1]) == int(c[1]) and int(f[CS_RIGHTS]) == int(c[_RIGHTS]):
            if int(_same(sites, site, vcpu)):
                return int(c[_NUMBER]) & 15
        if known == 0 or int(_remember(sites, learn, vcpu)) == 0:
            return 0
        known = 0


# What _same() finds stands here again for 64-bit mode, and what fastmov.load() does: a call costs 200.
@micropython.viper
def _access(sites: int, read, write, slow, learn, vcpu) -> int:
    h = ptr32(sites)
    f = ptr32(vcpu)
    low = int(f[RIP])
    site = sites + 4 * _HEADER + 4 * _WORDS * ((low ^ low >> 6) & (_SITES - 1))
    c = ptr32(site)
    if f[GPA + 1] or f[VECTORING_INFO] & 0x80000000 or f[DR7] & 0xFF or f[QUALIFICATION] & _ACCESS != _OPERANDS:
        return int(slow(vcpu))
    ram = int(h[0]) | int(h[1]) << 32
    table = int(f[CR3]) & 0xFFFFF000
    known = 1
    while True:
        if low == int(c[0]) and f[RIP + 1] == c[1] and f[CS_RIGHTS] == c[_RIGHTS]:
            if not f[CS_RIGHTS] & RIGHTS_L:
                if int(_same(sites, site, vcpu)):
                    break
            elif table < int(h[2]) and f[CR3 + 1] & 0xFFFFF == 0:
                w = ptr32(ram + table + int(c[_TOP]))
                if w[0] == c[_TOP + 1] and w[1] == c[_TOP + 2]:
                    at = site + 4 * _PAIRS
                    end = at + int(c[_END])
                    while at < end:
                        w = ptr32(at)
                        if ptr32(ram + int(w[0]))[0] != w[1]:
                            break
                        at += 8
                    if at >= end:
                        break
        if known == 0 or int(_remember(sites, learn, vcpu)) == 0:
            return int(slow(vcpu))
        known = 0
    number = int(c[_NUMBER])
    size = number >> 4 & 15
    offset = int(f[GPA]) & 0xFFF
    if offset + size > 0x1000:
        return int(slow(vcpu))
    if offset == 0:
        at = int(c[_PLAIN])
        if at:
            at = int(f[at & 31]) + (at >> 8) & 0xFFF
        else:
            at = int(_before(site, vcpu))
        if at:
            return int(slow(vcpu))
    if number & OTHER:
        if number & WRITE and not f[QUALIFICATION] & _WRITES:
            return int(slow(vcpu))  # the page's rights have been looked at for a read only
        f[LENGTH] = number & 15
        f[LENGTH + 1] = 0
        operate(number, c[_IMMEDIATE], read, write, offset, vcpu)
        return int(f[OUTCOME]) | 1
    f[LENGTH] = number & 15
    f[LENGTH + 1] = 0
    register = number >> 7 & 30
    if number & WRITE:
        value = int(f[register])
        if number & IMMEDIATE:
            value = int(c[_IMMEDIATE])
        elif number & HIGH:
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
    elif number & HIGH:
        f[register] = old & 0xFFFF00FF | (value & 0xFF) << 8
    else:
        f[register] = old & 0xFFFFFF00 | value & 0xFF
    return 1


@micropython.viper
def _general(sites: int, ways, others, slow, learn, vcpu) -> int:
    h = ptr32(sites)
    f = ptr32(vcpu)
    if f[GPA + 1]:
        return int(slow(vcpu))
    page = int(f[GPA]) >> 12
    h[_PAGE] = page
    way = ways.get(page, others)
    if way is others:
        way = others[1]
        if page < int(h[2]) >> 12:
            if page >= int(h[_OPEN]):
                return int(slow(vcpu))
            way = others[0]
    return int(_access(sites, way[0], way[1], slow, learn, vcpu))
