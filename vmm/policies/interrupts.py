"""Interrupts and NMIs as the monitor injects them, one by one, for policies on INTERRUPT; and their arrival, ARRIVAL.

The handler of slot PENDING (vmm/vtx/events.py) chooses them. While a policy is attached, a handler here replaces it: it
calls the other and then asks the policies about what that has put into the entry fields. Virtual-interrupt delivery
(vmm/vtx/apicv.py) is off meanwhile: each EOI exits.

Each source that sets a bit of the local APIC's IRR makes the next entry go through slot PENDING, so arrivals are the
bits that are new there.
"""

from micropython import const

from vmm.devices.lapic_registers import IRR, ISR
from vmm.devices.lapic_vectors import reprioritize
from vmm.vtx import reasons
from vmm.vtx.events import TYPE_VECTOR
from vmm.vtx.frame import DATUM

_WORDS = const(8)  # of IRR, 16 bytes apart


class _Watch:
    """One vCPU's handler of slot PENDING."""

    def __init__(self, vm, vcpu, below):
        self._vm = vm
        self._requests = [vcpu.lapic.get(IRR + 16 * i) for i in range(_WORDS)]
        self._below = below
        self.local = False  # the event to be injected came from the local APIC
        self.vector = 0

    def __call__(self, vcpu):
        if self._vm.chains.get(reasons.ARRIVAL):
            answer = self._arrivals(vcpu)
            if not self._vm.runs(vcpu):
                return answer
            return answer | self._deliver(vcpu)
        return self._deliver(vcpu)

    def _arrivals(self, vcpu):
        """Ask about each request that is new since the last entry through this slot; returns a verdict."""
        lapic, requests = vcpu.lapic, self._requests
        answer = 0
        for i in range(_WORDS):
            there = lapic.get(IRR + 16 * i)
            fresh = there & ~requests[i]
            requests[i] = there
            bit = 0
            while fresh:
                if fresh & 1:
                    self.vector = 32 * i + bit
                    vcpu.scheduled.put(DATUM, self.vector)
                    answer |= self._vm.exits.handler(reasons.ARRIVAL, vcpu)(vcpu)
                fresh >>= 1
                bit += 1
        return answer

    def _deliver(self, vcpu):
        answer = self._inject(vcpu)
        lapic, requests = vcpu.lapic, self._requests
        for i in range(_WORDS):
            requests[i] &= lapic.get(IRR + 16 * i)  # one that is delivered may arrive again
        return answer

    def _inject(self, vcpu):
        before = vcpu.injecting()
        serviced = vcpu.lapic.service_vector()
        answer = self._below(vcpu)
        info = vcpu.injecting()
        if before or not info:
            return answer
        self.vector = info & 0xFF
        self.local = vcpu.lapic.service_vector() != serviced
        vcpu.scheduled.put(DATUM, info & TYPE_VECTOR)
        return answer | self._vm.exits.handler(reasons.INTERRUPT, vcpu)(vcpu)


class Interrupts:
    """The caller of one VM's policies on INTERRUPT and ARRIVAL."""

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
            vm.exits.replace(reasons.PENDING, "policies on interrupts", self._watch)
        else:
            vm.exits.replace(reasons.PENDING, "policies on interrupts")
        for vcpu in vm.vcpus:
            if vcpu.apicv:
                vcpu.apicv.inject_all(bool(self._users))

    def _watch(self, vcpu, below):
        watch = self._watches[vcpu.number] = _Watch(self._vm, vcpu, below)
        return watch

    def withdraw(self, vcpu):
        """Drop the request that a policy is asked about: clear its bit in IRR."""
        vector = self._watches[vcpu.number].vector
        at, bit = IRR + (vector >> 5 << 4), 1 << (vector & 31)
        vcpu.lapic.set(at, vcpu.lapic.get(at) & ~bit)
        reprioritize(vcpu.lapic.regs)

    def take_back(self, vcpu, keep):
        """Do not inject the interrupt that policies are asked about. keep: it stays pending in the local APIC."""
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
