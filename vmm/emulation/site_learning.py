"""Fills the cache of sites.py: decodes the instruction at RIP, and records what the decoding depends on."""

import micropython
from micropython import const

from vmm.emulation.fastmov import BASE_NONE, BASE_RIP, IMMEDIATE, address, decode, source
from vmm.emulation.site_pages import HEAD_PLACE, HEAD_VALUE, HEADER
from vmm.emulation.site_paging import (
    PAGING_4_LEVEL,
    PAGING_PAE,
    REFUSED,
    SITE_BASE,
    SITE_IMMEDIATE,
    SITE_MODE,
    SITE_NUMBER,
    SITE_OPERAND,
    SITE_PLAIN,
    SITE_RIGHTS,
    directory,
    keep_code,
    paging_mode,
    plain,
    same,
    walk,
)
from vmm.vtx.frame import CR3, CS_BASE, CS_RIGHTS, ENTRY_CONTROLS, RIP, WANT_PAGING
from vmm.vtx.vmcs_bits import ENTRY_IA32E_MODE_GUEST, RIGHTS_DB, RIGHTS_L
from vmm.vtx.x86 import PAGE

SITES = const(64)
WORDS = const(36)  # of a site: 14, three levels of paging with 4 each, 4 pairs of code; 2 spare


@micropython.viper
def _place(sites: int, site: int, vcpu) -> int:
    """The gpa of the instruction at RIP, negative where there is none; records in the site how it was translated."""
    f = ptr32(vcpu)
    c = ptr32(site)
    rights = int(f[CS_RIGHTS])
    mode = int(PAGING_4_LEVEL)
    base = 0
    linear = int(f[RIP]) | int(f[RIP + 1]) << 32
    table = (int(f[CR3 + 1]) & 0xFFFFF) << 32 | int(f[CR3]) & 0xFFFFF000
    vcpu.want(WANT_PAGING)
    if rights & RIGHTS_L:
        if not f[ENTRY_CONTROLS] & ENTRY_IA32E_MODE_GUEST:
            return -1  # CS.L has no effect outside IA-32e mode
    else:
        mode = int(paging_mode(vcpu))
        base = int(f[CS_BASE])
        linear = int(f[RIP]) + base & 0xFFFFFFFF
        if mode < PAGING_4_LEVEL:
            table &= 0xFFFFFFFF
    if mode == PAGING_PAE:
        table = int(directory(site, linear, vcpu))
        if table == 0:
            return -1
    c[SITE_MODE] = mode
    c[SITE_BASE] = base
    return int(walk(sites, site, table, linear, mode))


@micropython.viper
def remember(sites: int, learn, vcpu) -> int:
    """Cache the instruction at RIP: 1, or 0 where it cannot be cached."""
    h = ptr32(sites)
    f = ptr32(vcpu)
    low = int(f[RIP])
    rights = int(f[CS_RIGHTS])
    site = sites + 4 * HEADER + 4 * WORDS * ((low ^ low >> 6) & (SITES - 1))
    c = ptr32(site)
    if int(c[SITE_RIGHTS]) == rights | REFUSED and int(c[0]) == low and int(c[1]) == int(f[RIP + 1]):
        if int(same(sites, site, vcpu)):
            return 0
    c[SITE_RIGHTS] = 0  # matches nothing while it is incomplete
    gpa = int(_place(sites, site, vcpu))
    if gpa < 0 or gpa + 16 > int(h[2]):
        return 0
    bits = 64
    if not rights & RIGHTS_L:
        bits = 32 if rights & RIGHTS_DB else 16
    code = gpa + (int(h[0]) | int(h[1]) << 32)
    number = int(decode(code, bits))
    if number:
        if number & IMMEDIATE:
            c[SITE_IMMEDIATE] = int(source(vcpu, number, code))
        c[SITE_OPERAND] = int(address(code, bits))
    else:
        number = int(learn(vcpu))
        c[SITE_IMMEDIATE] = h[HEAD_VALUE]
        c[SITE_OPERAND] = h[HEAD_PLACE]
    length = number & 15
    if number == 0 or (gpa & (PAGE - 1)) + length > PAGE:
        length = 15
        rights |= REFUSED
    operand = int(c[SITE_OPERAND])
    if operand & 31 == BASE_RIP:
        operand = (operand >> 15) + low + length << 15 & 0x7FF8000 | operand & 0x7FE0 | BASE_NONE
        c[SITE_OPERAND] = operand
    c[SITE_PLAIN] = int(plain(operand)) if bits == 64 else 0
    c[SITE_NUMBER] = number
    keep_code(site, gpa, code, length)
    c[0] = low
    c[1] = f[RIP + 1]
    c[SITE_RIGHTS] = rights
    if rights & REFUSED:
        return 0
    return 1
