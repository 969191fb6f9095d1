"""Exceptions that the monitor injects."""

from vmm import verdict
from vmm.emulation import length
from vmm.policies.event import Event, Needs
from vmm.policies.filters import Number
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.events import VALID
from vmm.vtx.frame import DATUM
from vmm.vtx.vmcs import IDT_VECTORING_INFORMATION


class Injection(Event):
    """Asked at the exit that led to it, before the VM entry that injects it; RIP is the instruction's."""

    name = "injection"
    text = (
        "the monitor is about to inject an exception: #GP for an MSR that it denies, #UD, an emulated instruction's "
        "#PF, what a policy injects. HANDLED: it is dropped, past the instruction. Inject: that one instead. No value. "
        'SDM Vol. 3C, "Event Injection"'
    )
    reasons = (reasons.INJECTION,)
    filters = (Number("vector", 31, "the exception's"),)
    plain = False
    repeats = False

    def tests(self, chosen):
        return [equal(DATUM, 0xFF, chosen["vector"])] if "vector" in chosen else []

    def needs(self, chosen):
        return Needs(injections=1)

    def skip(self, vcpu):
        vcpu.event(0)
        if vcpu.read(IDT_VECTORING_INFORMATION) & VALID:  # the event whose delivery led to it is dropped with it
            return verdict.RESUME
        return length.skip(vcpu)

    def again(self, vcpu):
        vcpu.event(0)

    def stand(self, vcpu):
        """The exception stays in the entry fields, and is injected after resume()."""

    def vectoring(self, vcpu):
        vcpu.event(0)
        return 0


INJECTION = Injection()
