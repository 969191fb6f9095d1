"""A cache of decoded instructions whose memory access exits, by their place in the code.

A driver accesses a device's registers from few places. A site keeps a decoded instruction and all that its decoding
depended on: mode, base of CS, the page-table entries that map the code, its bytes (site_paging.py). While these are
unchanged the instruction is executed without being decoded; else it is decoded and cached anew. That holds for code of
16, 32 and 64 bits, without paging, and with 32-bit, PAE and 4-level paging. An instruction that neither fastmov.py nor
fastops.py knows is cached as one for the slow path, which all instructions of a guest with enabled breakpoints take.

Limits: code within one page, in the RAM from gpa 0; an operand on two pages takes the slow path; a locked access to RAM
is atomic only in a guest of one vCPU (a device's registers are accessed by the monitor alone). The rights of the code's
page are not checked, since the CPU has just fetched from it; nor those of the operand's, which it translated before it
exited.

_access() is one long function: a call costs 200 ticks, a third of a whole access.
"""

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.emulation.decode import DS
from vmm.emulation.fastmov import (
    BASE_NONE,
    HIGH,
    IMMEDIATE,
    NO_ADDRESS,
    OTHER,
    WRITE,
)
from vmm.emulation.fastops import operate
from vmm.emulation.site_learning import SITES, WORDS, remember
from vmm.emulation.site_pages import (
    HEAD_OPEN,
    HEAD_PAGE,
    HEAD_PLACE,
    HEAD_VALUE,
    HEADER,
    answer,
    answered,
    dropped,
    ones,
    peek,
    poke,
    replace,
)
from vmm.emulation.site_paging import (
    SITE_END,
    SITE_IMMEDIATE,
    SITE_NUMBER,
    SITE_OPERAND,
    SITE_PAIRS,
    SITE_PLAIN,
    SITE_RIGHTS,
    SITE_TOP,
    same,
)
from vmm.vtx.frame import (
    CR3,
    CS_RIGHTS,
    DR7,
    GPA,
    LENGTH,
    OUTCOME,
    QUALIFICATION,
    RIP,
    VECTORING_INFO,
)
from vmm.vtx.vmcs import GUEST_ES_BASE
from vmm.vtx.vmcs_bits import (
    EPT_FETCH,
    EPT_LINEAR_VALID,
    EPT_TRANSLATED,
    EPT_WRITE,
    RIGHTS_L,
)

# The exit's qualification: an operand's access, by its linear address, and no fetch.
_ACCESS = const(EPT_LINEAR_VALID | EPT_TRANSLATED | EPT_FETCH)
_OPERANDS = const(EPT_LINEAR_VALID | EPT_TRANSLATED)


class Sites:
    """The sites of one guest.

    ram, size: host address and bytes of its RAM from gpa 0. open_: whether the monitor may access that RAM for an
    instruction of the guest that has exited. learn(vcpu): calls told() and returns the number of the instruction at
    RIP, 0 for none. words: address of the words that the functions take as `sites`.
    """

    def __init__(self, ram, size, open_, learn):
        self._buffer = bytearray(4 * (HEADER + WORDS * SITES))
        self.words = uctypes.addressof(self._buffer)
        self._learn = learn
        self._put(0, ram & 0xFFFFFFFF)
        self._put(1, ram >> 32)
        self._put(2, size)
        self._put(HEAD_OPEN, size >> 12 if open_ else 0)
        self.peek = bind(peek, self.words)
        self.poke = bind(poke, self.words)

    def _put(self, word, value):
        _set(self.words, word, value)

    def told(self, immediate, operand):
        """Keep what learn() found besides the number: the other two results of fastops.encode()."""
        self._put(HEAD_VALUE, immediate)
        self._put(HEAD_PLACE, operand)

    @property
    def page(self):
        """Number of the page that is accessed, in a handler for any page."""
        return _get(self.words, HEAD_PAGE)

    @page.setter
    def page(self, value):
        self._put(HEAD_PAGE, value)

    @property
    def page_at(self):
        """Address of the word with that number."""
        return self.words + 4 * HEAD_PAGE

    def one_page(self, read, write, slow):
        """Return the handler of EPT violations on one page.

        read(offset, size), write(offset, size, value): the page's device. slow: the handler for instructions that are
        not known here.
        """
        return bind(_access, self.words, read, write, slow, self._learn)

    def general(self, below, beyond, others, slow):
        """Return the handler of EPT violations on any page; `page` is then its number.

        below, beyond: {number of a page: (read, write)} of pages below the end of RAM, and of the others. others:
        [(read, write) for open RAM, (read, write) for pages without RAM], those that are in neither.
        """
        return bind(_general, self.words, _access, below.get, beyond.get, others, slow, self._learn)

    def unclaimed(self, miss):
        """Return (read, write) for unclaimed pages. miss(gpa of the page): counts it."""
        return bind(ones, self.words, miss), bind(dropped, self.words, miss)

    def lengths(self):
        """Return length(vcpu): bytes of the instruction at RIP, which caused an EPT violation; 0: not known here."""
        return bind(_length, self.words, same, remember, self._learn, 0)

    def sizes(self):
        """Return size(vcpu): bytes of that instruction's operand; 0: not known here."""
        return bind(_length, self.words, same, remember, self._learn, 4)

    def answers(self, store):
        """Return answer(vcpu, numbers, handler) -> verdict: the instruction reads this value, or writes it.

        numbers: of a Value (port/value.c). -1, with nothing done, where the instruction is not known here, or the value
        is no number. store(offset, size, value): to a page that is not open.
        """
        access = bind(
            _access, self.words, bind(answered, self.words), bind(replace, self.words, store), _unknown, self._learn
        )
        return bind(answer, self.words, access)


@micropython.viper
def _set(words: int, word: int, value: int):
    ptr32(words)[word] = value


@micropython.viper
def _get(words: int, word: int) -> int:
    return int(ptr32(words)[word])


@micropython.viper
def _unknown(vcpu) -> int:
    return -1


@micropython.viper
def _before(site: int, vcpu) -> int:
    """The offset of the operand in its page, or 1 where it cannot be computed.

    An exit with offset 0 is the operand's beginning, or its part on the second of two pages.
    """
    c = ptr32(site)
    f = ptr32(vcpu)
    operand = int(c[SITE_OPERAND])
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
    if not c[SITE_RIGHTS] & RIGHTS_L or segment > DS:
        at += int(vcpu.read(GUEST_ES_BASE + segment * 2))
    return at & 0xFFF


@micropython.viper
def _length(sites: int, same, remember, learn, shift: int, vcpu) -> int:
    """Bytes of the instruction, or with shift 4 of its operand; 0: not known."""
    f = ptr32(vcpu)
    low = int(f[RIP])
    site = sites + 4 * HEADER + 4 * WORDS * ((low ^ low >> 6) & (SITES - 1))
    c = ptr32(site)
    known = 1
    while True:
        if low == int(c[0]) and int(f[RIP + 1]) == int(c[1]) and int(f[CS_RIGHTS]) == int(c[SITE_RIGHTS]):
            if int(same(sites, site, vcpu)):
                return int(c[SITE_NUMBER]) >> shift & 15
        if known == 0 or int(remember(sites, learn, vcpu)) == 0:
            return 0
        known = 0


# same() for 64-bit mode and fastmov.load() are repeated here: a call costs 200 ticks.
@micropython.viper
def _access(sites: int, read, write, slow, learn, vcpu) -> int:
    h = ptr32(sites)
    f = ptr32(vcpu)
    low = int(f[RIP])
    site = sites + 4 * HEADER + 4 * WORDS * ((low ^ low >> 6) & (SITES - 1))
    c = ptr32(site)
    if f[GPA + 1] or f[VECTORING_INFO] & 0x80000000 or f[DR7] & 0xFF or f[QUALIFICATION] & _ACCESS != _OPERANDS:
        return int(slow(vcpu))
    ram = int(h[0]) | int(h[1]) << 32
    table = int(f[CR3]) & 0xFFFFF000
    known = 1
    while True:
        if low == int(c[0]) and f[RIP + 1] == c[1] and f[CS_RIGHTS] == c[SITE_RIGHTS]:
            if not f[CS_RIGHTS] & RIGHTS_L:
                if int(same(sites, site, vcpu)):
                    break
            elif table < int(h[2]) and f[CR3 + 1] & 0xFFFFF == 0:
                w = ptr32(ram + table + int(c[SITE_TOP]))
                if w[0] == c[SITE_TOP + 1] and w[1] == c[SITE_TOP + 2]:
                    at = site + 4 * SITE_PAIRS
                    end = at + int(c[SITE_END])
                    while at < end:
                        w = ptr32(at)
                        if ptr32(ram + int(w[0]))[0] != w[1]:
                            break
                        at += 8
                    if at >= end:
                        break
        if known == 0 or int(remember(sites, learn, vcpu)) == 0:
            return int(slow(vcpu))
        known = 0
    number = int(c[SITE_NUMBER])
    size = number >> 4 & 15
    offset = int(f[GPA]) & 0xFFF
    if offset + size > 0x1000:
        return int(slow(vcpu))
    if offset == 0:
        at = int(c[SITE_PLAIN])
        if at:
            at = int(f[at & 0xFF]) + (at >> 8) & 0xFFF
        else:
            at = int(_before(site, vcpu))
        if at:
            return int(slow(vcpu))
    if number & OTHER:
        if number & WRITE and not f[QUALIFICATION] & EPT_WRITE:
            return int(slow(vcpu))  # the page's rights were checked for a read only
        f[LENGTH] = number & 15
        f[LENGTH + 1] = 0
        operate(number, c[SITE_IMMEDIATE], read, write, offset, vcpu)
        return int(f[OUTCOME]) | 1
    f[LENGTH] = number & 15
    f[LENGTH + 1] = 0
    register = number >> 7 & 30
    if number & WRITE:
        value = int(f[register])
        if number & IMMEDIATE:
            value = int(c[SITE_IMMEDIATE])
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
def _general(sites: int, access, below, beyond, others, slow, learn, vcpu) -> int:
    h = ptr32(sites)
    f = ptr32(vcpu)
    if f[GPA + 1]:
        return int(slow(vcpu))
    page = int(f[GPA]) >> 12
    h[HEAD_PAGE] = page
    if page < int(h[2]) >> 12:
        way = below(page, others)
        if way is others:
            if page >= int(h[HEAD_OPEN]):
                return int(slow(vcpu))
            way = others[0]
    else:
        way = beyond(page, others)
        if way is others:
            way = others[1]
    return int(access(sites, way[0], way[1], slow, learn, vcpu))
