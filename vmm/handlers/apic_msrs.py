"""The MSRs of the local APIC: IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC registers.

Source: SDM Vol. 3A, "Extended XAPIC (x2APIC)", "TSC-Deadline Mode".
"""

import micropython
from micropython import const
from vmx import bind

from vmm.devices.lapic_registers import (
    DEADLINE,
    ICR,
    ICR_UNUSUAL,
    ICR_WRITABLE,
    ID,
    LOGICAL,
    LVT_TIMER,
    MODE,
    NMI,
    SELF,
    TIMER_TSC_DEADLINE,
    X2APIC,
)
from vmm.devices.lapic_vectors import end, post
from vmm.verdict import ADVANCE
from vmm.vtx import reasons
from vmm.vtx.events import raise_nmi
from vmm.vtx.frame import APIC_PAGE, CLOCK_OFFSET, DIRTY, DIRTY_TIMERS, RAX, RDX, TIMERS, TSC_OFFSET
from vmm.vtx.x86 import (
    APIC_BASE,
    APIC_BASE_ENABLE,
    APIC_BASE_EXTD,
    IA32_APIC_BASE,
    IA32_TSC_DEADLINE,
    IA32_X2APIC_EOI,
    IA32_X2APIC_ICR,
    IA32_X2APIC_SELF_IPI,
)

# Bit n: RDMSR of register n returns the word in the page. Low: ID, version, TPR, LDR, SVR, ISR and TMR; high: IRR, ESR,
# ICR, LVTs, initial count, divide configuration.
_PLAIN_LOW = const(0xFFFFA10C)
_PLAIN_HIGH = const(0x41FD01FF)
_BSP = const(1 << 8)


class ApicMsrs:
    """The local APIC's MSRs of one guest.

    width: bits of a gpa. changed(vcpu, base): called after a vCPU has written IA32_APIC_BASE.
    """

    def __init__(self, msrs, width, changed):
        self._msrs = msrs
        self._changed = changed
        self._base = ((1 << width) - 1) & ~0xFFF
        msrs.store(IA32_APIC_BASE, APIC_BASE | APIC_BASE_ENABLE, self._set_base)
        msrs.add(IA32_TSC_DEADLINE, _deadline, _set_deadline)
        msrs.x2apic = _read_low, _read_high, _write_x2apic_pair

    def reset(self, vcpu):
        """Set IA32_APIC_BASE.BSP of vCPU 0. Call it after Msrs.reset."""
        if not vcpu.number:
            self._msrs.put(vcpu, IA32_APIC_BASE, APIC_BASE | _BSP | APIC_BASE_ENABLE)

    def install(self, exits, ipi):
        """Set the handlers of WRMSR to IA32_TSC_DEADLINE and to the x2APIC's EOI, ICR and SELF IPI.

        ipi: ApicBus.quick, or None if there is one vCPU.
        """
        slow = self._msrs.write_exit
        exits.key(reasons.WRMSR, IA32_TSC_DEADLINE, _write_deadline)
        exits.key(
            reasons.WRMSR, IA32_X2APIC_ICR, bind(_write_icr, slow) if ipi is None else bind(_write_icr_to, ipi, slow)
        )
        exits.key(reasons.WRMSR, IA32_X2APIC_EOI, bind(_write_eoi, slow))
        exits.key(reasons.WRMSR, IA32_X2APIC_SELF_IPI, bind(_write_self_ipi, slow))

    def _set_base(self, vcpu, index, value):
        """Write IA32_APIC_BASE; False for a state change that SDM Vol. 3A, "x2APIC State Transitions", forbids."""
        lapic = vcpu.lapic
        enabled, x2apic = bool(value & APIC_BASE_ENABLE), bool(value & APIC_BASE_EXTD)
        if value & ~(self._base | _BSP | APIC_BASE_ENABLE | APIC_BASE_EXTD):
            return False
        if x2apic and (not enabled or not lapic.enabled):
            return False
        if lapic.x2apic and enabled and not x2apic:
            return False
        lapic.set_base(enabled, x2apic)
        base = value & self._base
        state = (APIC_BASE_ENABLE if enabled else 0) | (APIC_BASE_EXTD if lapic.x2apic else 0)
        self._msrs.put(vcpu, index, base | (0 if vcpu.number else _BSP) | state)
        self._changed(vcpu, base)
        return True


def _deadline(vcpu, index):
    return vcpu.lapic.deadline_high() << 32 | vcpu.lapic.deadline_low()


def _set_deadline(vcpu, index, value):
    vcpu.lapic.set_deadline(value & 0xFFFFFFFF, value >> 32)


def _read_high(vcpu, index):
    return vcpu.lapic.read_msr_high(index)


def _write_x2apic_pair(vcpu, index, low, high):
    return vcpu.lapic.x2apic and vcpu.lapic.write_msr(index, low, high)


# Msrs.x2apic[0]. Lapic.read_msr takes 2,600 ticks.
@micropython.viper
def _read_low(vcpu, index: int) -> int:
    """Return the low half of an x2APIC register, or -1 for #GP(0). Most are read from the page directly."""
    r = ptr32(ptr32(vcpu)[APIC_PAGE])
    number = index & 0x3F
    plain = int(_PLAIN_LOW)
    if number >> 5:
        plain = int(_PLAIN_HIGH)
    if r[X2APIC // 4] and plain >> (number & 31) & 1:
        return int(r[number << 2])
    if r[X2APIC // 4] == 0:
        return -1
    return int(vcpu.lapic.read_msr(index))


# LapicTimer.set_deadline on the frame's words: Linux writes the deadline at every change of its next timer.
@micropython.viper
def _write_deadline(vcpu) -> int:
    """Handler of WRMSR of IA32_TSC_DEADLINE."""
    f = ptr32(vcpu)
    r = ptr32(f[APIC_PAGE])
    if (r[LVT_TIMER // 4] >> 17) & 3 != TIMER_TSC_DEADLINE:
        return 1
    high = int(f[RDX])
    deadline = int(f[RAX])
    r[DEADLINE // 4] = deadline
    r[DEADLINE // 4 + 1] = high
    deadline |= high << 32
    if deadline:
        offset = int(f[TSC_OFFSET + 1])
        if high >> 30 or (offset + 0x40000000) & 0x80000000:  # the sum may exceed 63 bits
            vcpu.lapic.timer.follow_tsc()
            return 1
        deadline -= int(f[TSC_OFFSET]) | offset << 32
        deadline += int(f[CLOCK_OFFSET]) | int(f[CLOCK_OFFSET + 1]) << 32
        if deadline < 1:
            deadline = 1
    f[TIMERS] = deadline  # the local APIC's timer is the clock's first
    f[TIMERS + 1] = deadline >> 32
    f[DIRTY] |= DIRTY_TIMERS
    return 1


# Lapic.write_msr takes 19,400 ticks for it.
@micropython.viper
def _write_icr(slow, vcpu) -> int:
    """Handler of WRMSR of the x2APIC's ICR: fixed interrupts and NMIs to the vCPU itself; slow(vcpu) for others."""
    f = ptr32(vcpu)
    page = int(f[APIC_PAGE])
    r = ptr32(page)
    low = int(f[RAX])
    # To itself: by shorthand or by its ID. Logical destinations, other delivery modes and reserved bits take `slow`.
    usual = 0
    if low & ICR_UNUSUAL == 0:
        if low >> 18 == SELF or (low >> 18 == 0 and f[RDX] == r[ID // 4]):
            usual = int(r[X2APIC // 4])
    elif low & ICR_WRITABLE == low and low & (MODE | LOGICAL) == NMI << 8 and r[X2APIC // 4]:
        if low >> 18 == SELF or (low >> 18 == 0 and f[RDX] == r[ID // 4]):
            r[ICR // 4] = low
            r[ICR // 4 + 1] = f[RDX]
            raise_nmi(vcpu)
            return ADVANCE
    if usual == 0:
        return int(slow(vcpu))
    if int(post(page, low & 0xFF)) == 0:
        return int(slow(vcpu))
    r[ICR // 4] = low
    r[ICR // 4 + 1] = f[RDX]
    return ADVANCE


@micropython.viper
def _write_icr_to(ipi, slow, vcpu) -> int:
    """Handler of WRMSR of the x2APIC's ICR of one of several vCPUs."""
    f = ptr32(vcpu)
    r = ptr32(f[APIC_PAGE])
    low = int(f[RAX])
    if r[X2APIC // 4] == 0 or int(ipi(int(f), low, int(f[RDX]))) == 0:
        return int(slow(vcpu))
    r[ICR // 4] = low
    r[ICR // 4 + 1] = f[RDX]
    return ADVANCE


# Lapic.write_msr takes 4,800 ticks for each of these two.
@micropython.viper
def _write_eoi(slow, vcpu) -> int:
    """Handler of WRMSR of the x2APIC's EOI; slow(vcpu) is for level-triggered interrupts and #GP(0)."""
    f = ptr32(vcpu)
    page = int(f[APIC_PAGE])
    if f[RAX] | f[RDX] or ptr32(page)[X2APIC // 4] == 0:
        return int(slow(vcpu))
    if int(end(page)):
        return ADVANCE
    return int(slow(vcpu))


@micropython.viper
def _write_self_ipi(slow, vcpu) -> int:
    """Handler of WRMSR of the x2APIC's SELF IPI; slow(vcpu) is for errors and #GP(0)."""
    f = ptr32(vcpu)
    page = int(f[APIC_PAGE])
    vector = int(f[RAX])
    if vector >> 8 or f[RDX] or ptr32(page)[X2APIC // 4] == 0:
        return int(slow(vcpu))
    if int(post(page, vector)):
        return ADVANCE
    return int(slow(vcpu))
