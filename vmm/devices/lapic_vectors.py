"""Vectors in the local APIC's page: requested, prioritized, ended (SDM Vol. 3A, "Handling Interrupts", "EOI").

Viper functions of the address of the page, for callers without a Lapic object: timers, IPIs, exits by EOI. LapicPage
(lapic_page.py) handles the unusual cases.

highest_bit() finds a vector. reprioritize() and end() here, and wakes() and _pending() in vmm/vtx/events.py, scan IRR
themselves: they run at each interrupt, a call costs 70 ticks, and all but _pending() need only the vector's class.
"""

import micropython

from vmm.devices.lapic_registers import (
    DFR,
    ENABLED,
    FRAME_AT,
    ID,
    IRR,
    ISR,
    LDR,
    LOGICAL,
    LOWEST,
    MODE,
    PPR,
    SVR,
    SVR_ENABLED,
    TMR,
    TPR,
    TPR_KNOWN,
    TPR_SHADOW,
    TRIGGER_LEVEL,
    VIRTUAL_DELIVERY,
    X2APIC,
)
from vmm.vtx.frame import DIRTY, DIRTY_RVI, PENDING, RVI


# The registers of 32 vectors each are 10h bytes, four words, apart.
@micropython.viper
def highest_bit(regs: ptr32, offset: int) -> int:
    """The highest vector set in IRR, ISR or TMR at `offset` of the page, or -1."""
    first = offset >> 2
    at = first + 28
    while regs[at] == 0:
        if at == first:
            return -1
        at -= 4
    word = regs[at]
    vector = (at - first) << 3
    if word >> 16:
        word >>= 16
        vector += 16
    if word >> 8:
        word >>= 8
        vector += 8
    if word >> 4:
        word >>= 4
        vector += 4
    if word >> 2:
        word >>= 2
        vector += 2
    return vector + (word >> 1)


@micropython.viper
def reprioritize(regs: ptr32) -> int:
    """Compute PPR from TPR and ISR. Returns 1 if the highest vector in IRR is of a class above PPR's, else 0.

    Where MOV to CR8 does not exit: 1 if it is of a class above those in service, since the TPR threshold has to be set.
    """
    at = (ISR >> 2) + 28
    while regs[at] == 0 and at > ISR >> 2:
        at -= 4
    ppr = int(regs[TPR >> 2]) & 0xFF
    regs[TPR_KNOWN >> 2] = ppr
    held = ppr >> 4  # a vector up to this class cannot be taken, so IRR need not be scanned for it
    if regs[TPR_SHADOW >> 2]:
        held = 0
    if regs[at]:
        priority = (at - (ISR >> 2)) >> 1  # the class of the lower 16 of its 32 vectors
        if regs[at] >> 16:
            priority += 1
        if priority > ppr >> 4:
            ppr = priority << 4
        if priority > held:
            held = priority
    regs[PPR >> 2] = ppr
    at = (IRR >> 2) + 28
    while regs[at] == 0 and at > IRR >> 2:
        at -= 4
    priority = (at - (IRR >> 2)) >> 1
    if regs[at] >> 16:
        priority += 1
    if regs[at] == 0:
        return 0
    return 1 if priority > held else 0


# On CPUs without APIC virtualization each interrupt ends here: reprioritize() is inlined.
@micropython.viper
def end(page: int) -> int:
    """EOI: ends the interrupt in service of the highest priority. page: address of the APIC's pages.

    Returns 1, or 0 with nothing changed for the slow path: it is level-triggered, or the CPU delivers interrupts.
    """
    r = ptr32(page)
    at = (ISR >> 2) + 28
    frame = int(r[FRAME_AT >> 2])
    if frame == 0 or r[VIRTUAL_DELIVERY >> 2]:
        return 0
    while r[at] == 0:
        if at == ISR >> 2:
            return 1
        at -= 4
    word = int(r[at])
    bit = word
    while bit & (bit - 1):
        bit &= bit - 1
    if r[at + ((TMR - ISR) >> 2)] & bit:
        return 0
    word ^= bit
    r[at] = word
    while word == 0 and at > ISR >> 2:
        at -= 4
        word = int(r[at])
    ppr = int(r[TPR >> 2]) & 0xFF
    r[TPR_KNOWN >> 2] = ppr
    held = ppr >> 4
    if r[TPR_SHADOW >> 2]:
        held = 0
    if word:
        priority = (at - (ISR >> 2)) >> 1
        if word >> 16:
            priority += 1
        if priority > ppr >> 4:
            ppr = priority << 4
        if priority > held:
            held = priority
    r[PPR >> 2] = ppr
    at = (IRR >> 2) + 28
    while r[at] == 0:
        if at == IRR >> 2:
            return 1
        at -= 4
    priority = (at - (IRR >> 2)) >> 1
    if r[at] >> 16:
        priority += 1
    if priority > held:  # an interrupt has waited for this one to end
        ptr32(frame)[PENDING] = 1
    return 1


# The fast path of Lapic.deliver(), for timers and IPIs.
@micropython.viper
def post(page: int, vector: int) -> int:
    """Request a fixed, edge-triggered interrupt. page: address of the pages of the processor's APIC.

    Returns 1, or 0 with nothing changed for the slow path.
    """
    r = ptr32(page)
    at = (vector >> 5) << 2
    bit = 1 << (vector & 31)
    frame = int(r[FRAME_AT >> 2])
    if frame == 0 or vector < 16 or r[SVR >> 2] & SVR_ENABLED == 0 or r[(TMR >> 2) + at] & bit:
        return 0
    r[(IRR >> 2) + at] |= bit
    f = ptr32(frame)
    if r[VIRTUAL_DELIVERY >> 2] == 0:
        f[PENDING] = 1
        return 1
    if f[RVI] < vector or f[DIRTY] & DIRTY_RVI == 0:
        f[RVI] = vector
    f[DIRTY] |= DIRTY_RVI
    return 1


# A third argument of post() instead would cost 11 of the 623 ticks that an IPI to the processor itself takes.
@micropython.viper
def post_level(page: int, vector: int) -> int:
    """post() of a level-triggered interrupt, where the vector's last one was level-triggered, too."""
    r = ptr32(page)
    at = (vector >> 5) << 2
    bit = 1 << (vector & 31)
    frame = int(r[FRAME_AT >> 2])
    if frame == 0 or vector < 16 or r[SVR >> 2] & SVR_ENABLED == 0 or r[(TMR >> 2) + at] & bit == 0:
        return 0
    r[(IRR >> 2) + at] |= bit
    f = ptr32(frame)
    if r[VIRTUAL_DELIVERY >> 2] == 0:
        f[PENDING] = 1
        return 1
    if f[RVI] < vector or f[DIRTY] & DIRTY_RVI == 0:
        f[RVI] = vector
    f[DIRTY] |= DIRTY_RVI
    return 1


# An interrupt of a device; received() takes 10,000.
@micropython.viper
def receive(page: int, lapic, low: int, destination: int) -> int:
    """LapicPage.receive(). page: address of the APIC's pages."""
    r = ptr32(page)
    if low & MODE > LOWEST << 8 or r[ENABLED >> 2] == 0 or r[X2APIC >> 2]:
        return int(lapic.received(low, destination))
    ours = int(r[ID >> 2]) >> 24
    if low & LOGICAL:
        ours = -1
        if int(r[DFR >> 2]) >> 28 & 15 == 15 and destination & (int(r[LDR >> 2]) >> 24 & 0xFF):
            ours = destination
    if destination != ours:
        return int(lapic.received(low, destination))
    vector = low & 0xFF
    at = (vector >> 5) << 2
    bit = 1 << (vector & 31)
    if r[(IRR >> 2) + at] & bit == 0:
        if low & TRIGGER_LEVEL:
            if int(post_level(page, vector)):
                return 1
        elif int(post(page, vector)):
            return 1
    return int(lapic.deliver(vector, low & TRIGGER_LEVEL))
