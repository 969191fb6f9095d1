"""APIC virtualization: the CPU reads and writes the virtual-APIC page and delivers its interrupts.

Used if the CPU has TPR shadow, APIC accesses, APIC-register virtualization and virtual-interrupt delivery. Reads, EOI,
TPR and self-IPI then do not exit; writes to ICR and the timer's registers exit after the write. The page is the Lapic's
register file, so that the model and the CPU use the same bits. Source: SDM Vol. 3C, "APIC Virtualization and Virtual
Interrupts".
"""

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.lapic_registers import ICR, ICR_HIGH, ICR_UNUSUAL, ID, IRR, LEVELS_CHANGED, SELF, VIRTUAL_DELIVERY
from vmm.devices.lapic_vectors import highest_bit, post, reprioritize
from vmm.vtx.frame import DIRTY, DIRTY_RVI, QUALIFICATION
from vmm.vtx.vmcs import (
    APIC_ACCESS_ADDRESS,
    EOI_EXIT_BITMAP_0,
    GUEST_INTERRUPT_STATUS,
    SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS,
    TPR_THRESHOLD,
    VIRTUAL_APIC_ADDRESS,
)
from vmm.vtx.x86 import APIC_BASE, IA32_X2APIC_EOI, IA32_X2APIC_SELF_IPI, IA32_X2APIC_TPR, PAGE

_VIRTUALIZE_APIC_ACCESSES = const(1 << 0)
_VIRTUALIZE_X2APIC_MODE = const(1 << 4)
_VIRTUAL_INTERRUPT_DELIVERY = const(1 << 9)

# x2APIC MSRs that do not exit: all readable ones, except the current count, which the model computes. (The CPU would
# virtualize reads of nonexistent ones, too.)
_X2APIC_READS = (
    (0x802, 0x803, 0x808, 0x80A, 0x80D, 0x80F)
    + tuple(range(0x810, 0x829))
    + (0x830, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837, 0x838, 0x83E)
)
_X2APIC_WRITES = (IA32_X2APIC_TPR, IA32_X2APIC_EOI, IA32_X2APIC_SELF_IPI)


class Apicv:
    """Keeps the VMCS fields of virtual-interrupt delivery in step with the Lapic's page."""

    def __init__(self, lapic, bitmap, x2apic):
        """bitmap: the guest's MSR bitmap. x2apic: whether the CPU offers "virtualize x2APIC mode"."""
        self._vcpu = None
        self.virtualizes = False  # whether the CPU virtualizes accesses to the page at the APIC base
        self._lapic = lapic
        self._bitmap = bitmap
        self._x2apic = x2apic
        self._regs = lapic.regs
        self._end = lapic.eoi
        lapic.eoi = self._eoi
        lapic.loaded = self._loaded

    def attach(self, vcpu, page, access_page):
        """page: hpa of the virtual-APIC page. access_page: hpa of a page that EPT maps at the APIC base."""
        self._vcpu = vcpu
        self._access_page = access_page
        self._read = vcpu.read
        self._write = vcpu.write
        vcpu.write(VIRTUAL_APIC_ADDRESS, page)
        vcpu.virtual_apic = page
        vcpu.write(APIC_ACCESS_ADDRESS, access_page)
        vcpu.write(TPR_THRESHOLD, 0)

    def mode(self, base=APIC_BASE):
        """IA32_APIC_BASE has changed: virtualize the page at the APIC base, the x2APIC MSRs, or neither.

        A page at another base, which no operating system uses, is emulated by exits.
        """
        lapic = self._lapic
        controls = self._vcpu.read(SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS)
        controls &= ~(_VIRTUALIZE_APIC_ACCESSES | _VIRTUALIZE_X2APIC_MODE)
        msrs = lapic.x2apic and self._x2apic
        if msrs:
            controls |= _VIRTUALIZE_X2APIC_MODE
        elif lapic.enabled and not lapic.x2apic and base == APIC_BASE:
            controls |= _VIRTUALIZE_APIC_ACCESSES
        self._vcpu.write(SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, controls)
        vm = self._vcpu.vm
        self.virtualizes = bool(controls & _VIRTUALIZE_APIC_ACCESSES)
        if self.virtualizes:
            vm.ept.map(APIC_BASE, self._access_page, PAGE)
            vm.ept.invalidate()
        elif not any([vcpu.apicv.virtualizes for vcpu in vm.vcpus]):
            vm.ept.unmap(APIC_BASE, PAGE)
        if not lapic.enabled:
            self._vcpu.write(GUEST_INTERRUPT_STATUS, 0)
        for index in _X2APIC_READS:
            self._bitmap.set(index, False, not msrs)
        for index in _X2APIC_WRITES:
            self._bitmap.set(index, True, not msrs)

    def reset(self):
        self.mode()
        self._vcpu.write(GUEST_INTERRUPT_STATUS, 0)
        for i in range(4):
            self._vcpu.write(EOI_EXIT_BITMAP_0 + 2 * i, 0)

    def inject_all(self, on):
        """Disable virtual-interrupt delivery, so that the monitor injects each interrupt; or enable it again.

        EOIs exit meanwhile; those by WRMSR, and self-IPIs, have to be armed. A lower TPR that the guest writes to the
        page takes effect at the next exit.
        """
        vcpu = self._vcpu
        lapic = self._lapic
        lapic.set(VIRTUAL_DELIVERY, 0 if on else 1)
        vcpu.events.delivers(None if on else self.sync)
        controls = vcpu.read(SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS) & ~_VIRTUAL_INTERRUPT_DELIVERY
        controls |= 0 if on else _VIRTUAL_INTERRUPT_DELIVERY
        vcpu.write(SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, controls)
        if on:
            scheduled = vcpu.scheduled
            scheduled.put(DIRTY, scheduled.get(DIRTY) & ~DIRTY_RVI)
            reprioritize(self._regs)
        else:
            self._write(GUEST_INTERRUPT_STATUS, max(lapic.service_vector(), 0) << 8)
            self.level_changed()
            self.sync()
        vcpu.events.kick()

    # On the page's words: a timer interrupt costs some 600 here, by the Lapic's methods 20,000.
    @micropython.viper
    def sync(self):
        """Set RVI and the EOI-exit bitmap by the page's IRR and TMR."""
        page = ptr32(self._regs)
        vector = 0
        if self._lapic.enabled:
            vector = int(highest_bit(self._regs, IRR))
            if vector < 0:
                vector = 0
        status = int(self._read(GUEST_INTERRUPT_STATUS))
        if status & 0xFF != vector:
            self._write(GUEST_INTERRUPT_STATUS, (status & 0xFF00) | vector)
        if page[LEVELS_CHANGED >> 2]:
            page[LEVELS_CHANGED >> 2] = 0
            self.level_changed()

    def _loaded(self):
        """Lapic.load() has set another state."""
        lapic = self._lapic
        self.mode(self._vcpu.lapic_at)
        self._write(GUEST_INTERRUPT_STATUS, max(lapic.service_vector(), 0) << 8 if lapic.get(VIRTUAL_DELIVERY) else 0)

    def level_changed(self):
        """TMR has changed: let the EOIs of level-triggered vectors exit."""
        lapic = self._lapic
        for pair in range(0, 8, 2):
            self._write(EOI_EXIT_BITMAP_0 + pair, lapic.level_vectors(pair) | lapic.level_vectors(pair + 1) << 32)

    def _eoi(self):
        """Lapic.eoi() for an EOI that the CPU did not virtualize: also sets SVI to the highest vector in service.

        A stale SVI would block every interrupt of lower priority.
        """
        self._end()
        status = self._read(GUEST_INTERRUPT_STATUS)
        self._write(GUEST_INTERRUPT_STATUS, status & 0xFF | max(self._lapic.service_vector(), 0) << 8)

    def write_exits(self, ipi):
        """Return the handler of APIC writes: trap-like, RIP is past the instruction and the page holds the value.

        ipi: ApicBus.quick; None for a guest with one vCPU.
        """
        if ipi is None:
            return bind(_written, uctypes.addressof(self._regs), self._lapic)
        return bind(_written_to, uctypes.addressof(self._regs), ipi, self._lapic)

    def eoi_exits(self):
        """Return the handler of virtualized EOIs: trap-like; it broadcasts them to the I/O APIC."""
        return bind(_ended, self._lapic)


@micropython.viper
def _ended(lapic, vcpu) -> int:
    lapic.eoi_exit(int(ptr32(vcpu)[QUALIFICATION]) & 0xFF)
    return 0


@micropython.viper
def _written(page: int, lapic, vcpu) -> int:
    """Handler of APIC writes for a single vCPU. The fast path is a fixed IPI to the processor itself, in xAPIC mode."""
    r = ptr32(page)
    offset = int(ptr32(vcpu)[QUALIFICATION]) & 0xFFF
    if offset == ICR:
        low = int(r[ICR // 4])
        if low & ICR_UNUSUAL == 0:
            if low >> 18 == SELF or (low >> 18 == 0 and r[ICR_HIGH // 4] >> 24 == r[ID // 4] >> 24):
                if int(post(page, low & 0xFF)):
                    return 0
    lapic.written(offset)
    return 0


@micropython.viper
def _written_to(page: int, ipi, lapic, vcpu) -> int:
    """Handler of APIC writes for one of several vCPUs. The fast path is a fixed IPI."""
    r = ptr32(page)
    f = ptr32(vcpu)
    offset = int(f[QUALIFICATION]) & 0xFFF
    if offset == ICR:
        if int(ipi(int(f), int(r[ICR // 4]), int(r[ICR_HIGH // 4]) >> 24 & 0xFF)):
            return 0
    lapic.written(offset)
    return 0
