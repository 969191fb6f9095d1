"""Interrupts and NMIs as the monitor injects them, one by one, for policies on INTERRUPT.

They are chosen by the handler of slot PENDING (vmm/vtx/events.py). While a policy is attached, a handler stands in its
place that calls it and then asks the policies about what it has put into the entry fields. Where the CPU delivers
interrupts by itself (vmm/vtx/apicv.py) it does not meanwhile: each EOI exits.
"""

from vmm.devices.lapic_page import reprioritize
from vmm.devices.lapic_registers import IRR, ISR
from vmm.vtx import reasons
from vmm.vtx.frame import DATUM


class _Watch:
    """One vCPU's handler of slot PENDING."""

    def __init__(self, vm, vcpu, below):
        self._vm = vm
        self._below = below
        self.local = False  # what is to be injected came from the local APIC
        self.vector = 0

    def __call__(self, vcpu):
        before = vcpu.injecting()
        serviced = vcpu.lapic.service_vector()
        answer = self._below(vcpu)
        info = vcpu.injecting()
        if before or not info:
            return answer
        self.vector = info & 0xFF
        self.local = vcpu.lapic.service_vector() != serviced
        vcpu.scheduled.put(DATUM, info & 0x7FF)
        return answer | self._vm.exits.handler(reasons.INTERRUPT, vcpu)(vcpu)


class Interrupts:
    """Of one VM."""

    def __init__(self, vm):
        self._vm = vm
        self._users = 0
        self._watches = {}

    def change(self, count):
        """`count` more policies, or less, are asked about interrupts."""
        vm = self._vm
        before, self._users = self._users, self._users + count
        if bool(before) == bool(self._users):
            return
        if self._users:
            below = vm.exits.default(reasons.PENDING)
            for vcpu in vm.vcpus:
                handler = below[vcpu.number] if isinstance(below, tuple) else below
                self._watches[vcpu.number] = _Watch(vm, vcpu, handler)
            watches = tuple([self._watches[vcpu.number] for vcpu in vm.vcpus])
            vm.exits.replace(reasons.PENDING, watches[0] if len(watches) == 1 else watches)
        else:
            vm.exits.replace(reasons.PENDING)
        for vcpu in vm.vcpus:
            if vcpu.apicv:
                vcpu.apicv.inject_all(bool(self._users))

    def take_back(self, vcpu, keep):
        """The interrupt that policies are asked about is not injected. keep: it stays pending in the local APIC."""
        vcpu.event(0)
        watch = self._watches[vcpu.number]
        if not watch.local:
            return
        watch.local = False
        lapic = vcpu.lapic
        at, bit = watch.vector >> 5 << 4, 1 << (watch.vector & 31)
        lapic.set(ISR + at, lapic.get(ISR + at) & ~bit)
        if keep:
            lapic.set(IRR + at, lapic.get(IRR + at) | bit)
        reprioritize(lapic.regs)
        vcpu.events.kick()
