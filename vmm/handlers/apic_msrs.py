"""The MSRs of the local APIC: IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC registers.

Source: SDM Vol. 3A, "Extended XAPIC (x2APIC)", "TSC-Deadline Mode".
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.lapic_page import end, post
from vmm.devices.lapic_registers import DEADLINE, ICR, ICR_UNUSUAL, ID, LVT_TIMER, SELF, TIMER_TSC_DEADLINE, X2APIC
from vmm.verdict import ADVANCE
from vmm.vtx import reasons
from vmm.vtx.frame import CLOCK_OFFSET, DATUM, DIRTY, DIRTY_TIMERS, RAX, RDX, TSC_OFFSET

LAPIC = const(0xFEE00000)
IA32_APIC_BASE = const(0x1B)
IA32_TSC_DEADLINE = const(0x6E0)
_EOI = const(0x80B)
_ICR = const(0x830)
_SELF_IPI = const(0x83F)
# Bit n: register n is in the page as RDMSR gives it: ID, version, TPR, LDR, SVR, ISR and TMR; IRR, ESR, ICR, LVTs,
# initial count, divide configuration.
_PLAIN_LOW = const(0xFFFFA10C)
_PLAIN_HIGH = const(0x41FD01FF)
_BSP = const(1 << 8)
_EXTD = const(1 << 10)
_ENABLE = const(1 << 11)


class ApicMsrs:
    """One guest's. width: bits of a gpa. changed(base) is called when IA32_APIC_BASE was written."""

    def __init__(self, msrs, lapic, clock, width, changed):
        self._msrs = msrs
        self._lapic = lapic
        self._clock = clock
        self._changed = changed
        self._base = ((1 << width) - 1) & ~0xFFF
        self._words = array("I", [uctypes.addressof(lapic.regs), lapic.timer.timer.word])
        msrs.tsc_jumps(uctypes.addressof(lapic.regs) + DEADLINE, lapic.timer.follow_tsc)
        msrs.store(IA32_APIC_BASE, LAPIC | _BSP | _ENABLE, self._set_base)
        msrs.add(IA32_TSC_DEADLINE, self._deadline, self._set_deadline)
        low = bind(_read_low, self._words[0], self._x2apic_low)
        msrs.x2apic = low, lapic.read_msr_high, self._write_x2apic_pair

    def install(self, exits):
        """WRMSR of IA32_TSC_DEADLINE and of the x2APIC's EOI, ICR and SELF IPI have handlers of their own."""
        slow, page = self._msrs.write_exit, self._words[0]
        exits.key(reasons.WRMSR, IA32_TSC_DEADLINE, _write_deadline, uctypes.addressof(self._words))
        exits.key(reasons.WRMSR, _ICR, bind(_write_icr, slow), page)
        exits.key(reasons.WRMSR, _EOI, bind(_write_eoi, slow), page)
        exits.key(reasons.WRMSR, _SELF_IPI, bind(_write_self_ipi, slow), page)

    def _set_base(self, index, value):
        """The states change as SDM Vol. 3A, "x2APIC State Transitions", allows."""
        lapic = self._lapic
        enabled, x2apic = bool(value & _ENABLE), bool(value & _EXTD)
        if value & ~(self._base | _BSP | _ENABLE | _EXTD):
            return False
        if x2apic and (not enabled or not lapic.enabled):
            return False
        if lapic.x2apic and enabled and not x2apic:
            return False
        lapic.set_base(enabled, x2apic)
        base = value & self._base
        self._msrs.put(index, base | _BSP | (_ENABLE if enabled else 0) | (_EXTD if lapic.x2apic else 0))
        self._changed(base)
        return True

    def _deadline(self, index):
        return self._lapic.deadline_high() << 32 | self._lapic.deadline_low()

    def _set_deadline(self, index, value):
        self._lapic.set_deadline(value & 0xFFFFFFFF, value >> 32)

    def _x2apic_low(self, index):
        return self._lapic.read_msr(index) if self._lapic.x2apic else -1

    def _write_x2apic_pair(self, index, low, high):
        return self._lapic.x2apic and self._lapic.write_msr(index, low, high)


# Msrs.x2apic's first. By Lapic.read_msr it is 2,600.
@micropython.viper
def _read_low(page: int, slow, index: int) -> int:
    """Low half of an x2APIC register that the page has as it is read; slow(index) is for the others, and for #GP(0)."""
    r = ptr32(page)
    number = index & 0x3F
    plain = int(_PLAIN_LOW)
    if number >> 5:
        plain = int(_PLAIN_HIGH)
    if r[X2APIC // 4] and plain >> (number & 31) & 1:
        return int(r[number << 2])
    return int(slow(index))


# LapicTimer.set_deadline on the frame's words: Linux comes here at every change of its next timer.
@micropython.viper
def _write_deadline(vcpu) -> int:
    """Handler of WRMSR of IA32_TSC_DEADLINE. frame.DATUM: the APIC's page, its timer's word in the frame."""
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    r = ptr32(w[0])
    if (r[LVT_TIMER // 4] >> 17) & 3 != TIMER_TSC_DEADLINE:
        return 1
    high = int(f[RDX])
    deadline = int(f[RAX])
    r[DEADLINE // 4] = deadline
    r[DEADLINE // 4 + 1] = high
    deadline |= high << 32
    if deadline:
        offset = int(f[TSC_OFFSET + 1])
        if high >> 30 or (offset + 0x40000000) & 0x80000000:  # a sum of them may be beyond 63 bits
            vcpu.vm.lapic.timer.follow_tsc()
            return 1
        deadline -= int(f[TSC_OFFSET]) | offset << 32
        deadline += int(f[CLOCK_OFFSET]) | int(f[CLOCK_OFFSET + 1]) << 32
        if deadline < 1:
            deadline = 1
    timer = int(w[1])
    f[timer] = deadline
    f[timer + 1] = deadline >> 32
    f[DIRTY] |= DIRTY_TIMERS
    return 1


# By Lapic.write_msr it is 19,400.
@micropython.viper
def _write_icr(slow, vcpu) -> int:
    """Handler of WRMSR of the x2APIC's ICR: a fixed interrupt to the processor itself; slow(vcpu) sends all others.

    frame.DATUM: the APIC's page.
    """
    f = ptr32(vcpu)
    page = int(f[DATUM])
    r = ptr32(page)
    low = int(f[RAX])
    # By shorthand, or by its ID; logical destinations, other delivery modes and reserved bits are not usual.
    usual = 0
    if low & ICR_UNUSUAL == 0:
        if low >> 18 == SELF or (low >> 18 == 0 and f[RDX] == r[ID // 4]):
            usual = int(r[X2APIC // 4])
    if usual == 0:
        return int(slow(vcpu))
    if int(post(page, low & 0xFF)) == 0:
        return int(slow(vcpu))
    r[ICR // 4] = low
    r[ICR // 4 + 1] = f[RDX]
    return ADVANCE


# By Lapic.write_msr these two are 4,800.
@micropython.viper
def _write_eoi(slow, vcpu) -> int:
    """Handler of WRMSR of the x2APIC's EOI; slow(vcpu) is for level-triggered interrupts and #GP(0). frame.DATUM: as
    for ICR."""
    f = ptr32(vcpu)
    page = int(f[DATUM])
    if f[RAX] | f[RDX] or ptr32(page)[X2APIC // 4] == 0:
        return int(slow(vcpu))
    if int(end(page)):
        return ADVANCE
    return int(slow(vcpu))


@micropython.viper
def _write_self_ipi(slow, vcpu) -> int:
    """Handler of WRMSR of the x2APIC's SELF IPI; slow(vcpu) is for errors and #GP(0). frame.DATUM: as for ICR."""
    f = ptr32(vcpu)
    page = int(f[DATUM])
    vector = int(f[RAX])
    if vector >> 8 or f[RDX] or ptr32(page)[X2APIC // 4] == 0:
        return int(slow(vcpu))
    if int(post(page, vector)):
        return ADVANCE
    return int(slow(vcpu))
