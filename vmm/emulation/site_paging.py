"""The key of a cached instruction (a site of vmm/emulation/sites.py): what its decoding depends on, and whether that
is unchanged.

A site holds RIP and CS, the mode of paging, the decoded instruction, and pairs of a gpa and the 32-bit word there: the
paging-structure entries that map the code, and the code itself. walk() records the entries, keep_code() the code, and
same() compares them. Unlike vmm/memory/paging.py, which translates for the rest of the monitor, this walker checks no
rights and sets no flags.
"""

import micropython
from micropython import const

from vmm.emulation.decode import DS
from vmm.emulation.fastmov import BASE_NONE
from vmm.memory.paging import ADDRESS, PS, P
from vmm.vtx.frame import CR0, CR3, CR4, CS_BASE, ENTRY_CONTROLS, REASON, RIP, WANT_PAGING
from vmm.vtx.vmcs import GUEST_PDPTE0
from vmm.vtx.vmcs_bits import ENTRY_IA32E_MODE_GUEST, RIGHTS_L
from vmm.vtx.x86 import CR0_PG, CR4_PAE, CR4_PSE

# A site: RIP (two words), and
SITE_RIGHTS = const(2)  # of CS; REFUSED where the instruction takes the slow path
SITE_NUMBER = const(3)  # as of fastmov.decode() or fastops.encode()
SITE_IMMEDIATE = const(4)  # operand
SITE_END = const(5)  # bytes of the pairs
SITE_TOP = const(6)  # offset in the first table, and the entry there (two words); with PAE the PDPTE
SITE_MODE = const(9)  # of paging: PAGING_...
SITE_BASE = const(10)  # of CS
SITE_OPERAND = const(11)  # as of fastmov.address()
SITE_PLAIN = const(12)  # operand without index in 64-bit mode: bit 31, displacement << 8, word of the frame
SITE_PAIRS = const(14)  # pairs of a gpa and the 32-bit word that must be there

REFUSED = const(1 << 31)

# Modes of paging.
PAGING_NONE = const(0)
PAGING_32 = const(32)
PAGING_32_PSE = const(33)
PAGING_PAE = const(36)
PAGING_4_LEVEL = const(48)


@micropython.viper
def paging_mode(frame: ptr32) -> int:
    """How the guest's linear addresses are translated, by the words that WANT_PAGING asks for."""
    if not frame[CR0] & CR0_PG:
        return PAGING_NONE
    if not frame[CR4] & CR4_PAE:
        return PAGING_32_PSE if frame[CR4] & CR4_PSE else PAGING_32
    return PAGING_4_LEVEL if frame[ENTRY_CONTROLS] & ENTRY_IA32E_MODE_GUEST else PAGING_PAE


@micropython.viper
def walk(sites: int, site: int, table: int, linear: int, mode: int) -> int:
    """The gpa of `linear`, or -1 where it is not in the RAM from gpa 0. Records the entries that map it in the site.

    table: gpa of the first table; with PAE of the page directory.
    """
    c = ptr32(site)
    c[SITE_END] = 0
    if mode == PAGING_NONE:
        return linear
    h = ptr32(sites)
    ram = int(h[0]) | int(h[1]) << 32
    wide = mode >= PAGING_PAE  # entries of 8 bytes
    shift = 22
    index = 1023
    if wide:
        shift = 39 if mode == PAGING_4_LEVEL else 21
        index = 511
    top = mode != PAGING_PAE
    at = int(SITE_PAIRS)
    while True:
        if table >= int(h[2]):
            return -1
        offset = (linear >> shift & index) << (3 if wide else 2)
        w = ptr32(ram + table + offset)
        low = int(w[0])
        high = 0
        if not low & P:
            return -1
        if wide:
            high = int(w[1])
        if top:
            c[SITE_TOP] = offset
            c[SITE_TOP + 1] = low
            c[SITE_TOP + 2] = high
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
        if low & PS and mode != PAGING_32:
            if shift > 30:
                return -1
            if mode == PAGING_32_PSE:
                table = (low >> 13 & 0xFF) << 32 | low & 0xFFC00000
            break
        shift -= 9 if wide else 10
    c[SITE_END] = at - SITE_PAIRS << 2
    offset = (1 << shift) - 1
    return table & (offset ^ -1) | linear & offset


@micropython.viper
def directory(site: int, linear: int, vcpu) -> int:
    """The page directory of a linear address with PAE, by the PDPTE that the site keeps; 0 where it is not present."""
    c = ptr32(site)
    entry = int(vcpu.read(GUEST_PDPTE0 + (linear >> 30) * 2))
    if not entry & P:
        return 0
    c[SITE_TOP + 1] = entry & 0xFFFFFFFF
    c[SITE_TOP + 2] = entry >> 32 & 0xFFFFFFFF
    return entry & ADDRESS


@micropython.viper
def plain(operand: int) -> int:
    """SITE_PLAIN of an operand in 64-bit mode."""
    if operand >> 5 & 31 != BASE_NONE or operand >> 12 & 7 > DS:
        return 0
    word = (operand & 31) << 1
    if word == BASE_NONE << 1:
        word = REASON + 1  # no base: the upper half of the exit reason is always 0
    return 1 << 31 | operand >> 15 << 8 & 0xFFF00 | word


@micropython.viper
def keep_code(site: int, gpa: int, code: int, length: int):
    """Append the words of the code to the site's pairs."""
    c = ptr32(site)
    at = (int(c[SITE_END]) >> 2) + SITE_PAIRS
    end = gpa + length
    while gpa < end:
        c[at] = gpa
        c[at + 1] = ptr32(code)[0]
        at += 2
        gpa += 4
        code += 4
    c[SITE_END] = at - SITE_PAIRS << 2


@micropython.viper
def same(sites: int, site: int, vcpu) -> int:
    """1 where all that the site's decoding depends on is unchanged, else 0. RIP and CS are compared elsewhere."""
    h = ptr32(sites)
    c = ptr32(site)
    f = ptr32(vcpu)
    ram = int(h[0]) | int(h[1]) << 32
    mode = int(c[SITE_MODE])
    if not c[SITE_RIGHTS] & RIGHTS_L:
        vcpu.want(WANT_PAGING)
        if f[CS_BASE] != c[SITE_BASE] or int(paging_mode(vcpu)) != mode:
            return 0
    if mode == PAGING_PAE:
        linear = int(f[RIP]) + int(c[SITE_BASE]) & 0xFFFFFFFF
        entry = int(vcpu.read(GUEST_PDPTE0 + (linear >> 30) * 2))
        if entry & 0xFFFFFFFF != int(c[SITE_TOP + 1]) or entry >> 32 != int(c[SITE_TOP + 2]):
            return 0
    elif mode != PAGING_NONE:
        table = int(f[CR3]) & 0xFFFFF000
        if table >= int(h[2]) or (mode == PAGING_4_LEVEL and int(f[CR3 + 1]) & 0xFFFFF):
            return 0
        w = ptr32(ram + table + int(c[SITE_TOP]))
        if int(w[0]) != int(c[SITE_TOP + 1]) or (mode == PAGING_4_LEVEL and int(w[1]) != int(c[SITE_TOP + 2])):
            return 0
    at = site + 4 * SITE_PAIRS
    end = at + int(c[SITE_END])
    while at < end:
        w = ptr32(at)
        if ptr32(ram + int(w[0]))[0] != w[1]:
            return 0
        at += 8
    return 1
