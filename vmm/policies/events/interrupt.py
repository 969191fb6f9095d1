"""Interrupts: as they arrive at the local APIC, and, with NMIs, as they are delivered to the guest."""

from vmm import verdict
from vmm.policies.event import Event, Needs
from vmm.policies.filters import Number
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import DATUM
from vmm.vtx.x86 import IA32_X2APIC_EOI, IA32_X2APIC_SELF_IPI


class Interrupt(Event):
    """Asked when the guest can take it, before the VM entry that injects it; RIP is where it interrupts."""

    name = "interrupt"
    text = (
        "an interrupt, or an NMI as vector 2, is about to be injected. HANDLED: it is dropped. Inject: the exception "
        'comes first. No value. SDM Vol. 3C, "Event Injection", "Virtual-Interrupt Delivery"'
    )
    reasons = (reasons.INTERRUPT,)
    filters = (Number("vector", 255, "its vector"),)
    plain = False
    repeats = False

    def tests(self, chosen):
        return [equal(DATUM, 0xFF, chosen["vector"])] if "vector" in chosen else []

    def needs(self, chosen):
        return Needs(
            interrupts=1, msrs=((IA32_X2APIC_EOI, True), (IA32_X2APIC_SELF_IPI, True)), primary=("CR8_LOAD_EXITING",)
        )

    def skip(self, vcpu):
        vcpu.vm.arming.interrupts.take_back(vcpu, False)
        return verdict.RESUME

    def vectoring(self, vcpu):
        vcpu.vm.arming.interrupts.take_back(vcpu, True)
        return 0


class Arrival(Interrupt):
    """Asked before the next VM entry, whether or not the guest can take it then."""

    name = "arrival"
    text = (
        "the request of an interrupt has arrived at the local APIC: a device's, an IPI, its timer's. HANDLED: it is "
        'dropped. No value. SDM Vol. 3A, "Interrupt Acceptance for Fixed Interrupts"'
    )
    reasons = (reasons.ARRIVAL,)

    def skip(self, vcpu):
        vcpu.vm.arming.interrupts.withdraw(vcpu)
        return verdict.RESUME

    def vectoring(self, vcpu):
        return vcpu.injecting()


INTERRUPT = Interrupt()
ARRIVAL = Arrival()
