"""EPT violations and APIC accesses: devices in memory, and pages that a policy watches.

Source: SDM Vol. 3C, "Exit Qualification for EPT Violations", "Exit Qualification for
APIC-Access VM Exits".
"""

from micropython import const

from vmm import verdict
from vmm.emulation import sites
from vmm.emulation.access import GuestCpu
from vmm.emulation.fastmmio import MISS, FastMmio
from vmm.handlers import touch
from vmm.policies import answers
from vmm.vtx import events, frame, reasons
from vmm.vtx.reg import Bits, Reg, register
from vmm.vtx.x86 import PAGE, PAGE_MASK

_APIC_BASE = const(0xFEE00000)
_LINEAR_WRITE = const(1)  # access type in the qualification of APIC accesses; 0: linear read
_RIGHTS = const(7)  # R, W, X as the access wanted them


@register
class EptViolation(Reg):
    """Exit qualification for EPT violations."""

    READ = Bits(0)
    WRITE = Bits(1)
    FETCH = Bits(2)
    READABLE = Bits(3)
    WRITABLE = Bits(4)
    EXECUTABLE = Bits(5)
    LINEAR_VALID = Bits(7)
    TRANSLATED = Bits(8)  # else: an access to a paging structure
    NMI_UNBLOCKING = Bits(12)


class Mmio:
    """The memory side of one guest's exits."""

    def __init__(self, vm, bus):
        self.vm = vm
        self.bus = bus
        self.cpu = GuestCpu(vm)
        self._fast = None
        self._sites = None
        self._exits = None
        self._handlers = {}  # id(device): (device, its handler): there are as many as devices, wherever they go
        self._pages = []  # that have a handler of their own now

    def install(self, exits):
        """Pages that are one device's have handlers of their own."""
        deferred = self.vm.demand_paging
        exits.add(
            reasons.EPT_VIOLATION,
            touch.handler(self.vm.ept.root, self.violation) if deferred else self.violation,
            frame.WANT_GPA | frame.WANT_LINEAR | frame.WANT_VECTORING | frame.WANT_CODE | frame.WANT_DR7,
        )
        exits.keyed(reasons.EPT_VIOLATION, 4 * frame.GPA, 0xFFFFF000, 6)
        self._exits = exits
        _, size, hpa = self.vm.memory.segments[0]
        self._sites = sites.Sites(hpa, size)
        self.rewired()

    def _short_way(self):
        """Devices that fill their page, and the RAM from gpa 0."""
        devices = {base >> 12: device for base, end, device in self.bus.regions if end - base == PAGE}
        _, size, hpa = self.vm.memory.segments[0]
        return FastMmio(devices, hpa, size, self.vm.ports)

    def rewired(self):
        """A device has come to the bus or has left it."""
        self._fast = None
        if self._exits is None:
            return
        for page in self._pages:
            self._exits.unkey(reasons.EPT_VIOLATION, page)
        self._pages = []
        for base, end, device in self.bus.regions:
            if end - base == PAGE and not base >> 32:
                known = self._handlers.get(id(device))
                if known is None:
                    known = device, self._sites.handler(device.read, device.write, self.violation)
                    self._handlers[id(device)] = known
                self._exits.key(reasons.EPT_VIOLATION, base, known[1])
                self._pages.append(base)

    def violation(self, vcpu):
        """Handler of EPT violations."""
        gpa = vcpu.gpa
        if self.vm.demand_paging and self.vm.ept.touch(gpa):
            answers.again(vcpu)
            return verdict.RESUME
        if self._fast is None:
            self._fast = self._short_way()
        answer = self._fast.access(vcpu, gpa)
        if answer != MISS:
            return answer
        answers.again(vcpu)
        if self.vm.memory.has(gpa):
            return self.vm.stepper.step(gpa & PAGE_MASK, vcpu.qualification & _RIGHTS)
        if vcpu.qualification & 4:
            self.vm.report(vcpu, "the guest runs code at gpa %#x, where there is no RAM" % gpa)
            return verdict.STOP
        if vcpu.vectoring_info & events.VALID:
            return self._in_delivery(vcpu, gpa)
        if not vcpu.qualification & 0x100:
            self.vm.report(vcpu, "the guest's page tables are at gpa %#x, where there is no RAM" % gpa)
            return verdict.STOP
        return self.cpu.execute(vcpu)

    def apic_access(self, vcpu):
        """Handler of APIC accesses that the CPU did not virtualize: the page is a device."""
        q = vcpu.qualification
        if q >> 12 & 15 <= _LINEAR_WRITE:
            if self._fast is None:
                self._fast = self._short_way()
            answer = self._fast.access(vcpu, _APIC_BASE | q & (PAGE - 1))
            if answer != MISS:
                return answer
        if vcpu.vectoring_info & events.VALID:
            events.requeue(vcpu)
            return self._in_delivery(vcpu, _APIC_BASE | q & (PAGE - 1))
        return self.cpu.execute(vcpu)

    def _in_delivery(self, vcpu, gpa):
        """The access is the CPU's own, not that of the instruction at RIP: nothing to execute there."""
        self.vm.report(
            vcpu,
            "vector %d was being delivered when the CPU touched gpa %#x, where there is no RAM: "
            "the stack, IDT, GDT or TSS for it" % (vcpu.vectoring_info & 0xFF, gpa),
        )
        return verdict.STOP

    def answer(self, vcpu, value):
        """A policy's Value for a memory access: what it reads, or what is written instead."""
        return self.cpu.execute(vcpu, value)
