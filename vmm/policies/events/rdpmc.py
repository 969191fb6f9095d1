"""RDPMC."""

from vmm import verdict
from vmm.policies import edx_eax
from vmm.policies.event import Instruction, Needs
from vmm.policies.filters import Number
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import RCX
from vmm.vtx.x86 import MASK32


class Rdpmc(Instruction):
    """Guests have no performance counters: without an answer it is #GP(0)."""

    name = "rdpmc"
    text = 'an instruction RDPMC. Value(number) is what is read. SDM Vol. 2B, "RDPMC"; Vol. 3C, "RDPMC exiting"'
    reasons = (reasons.RDPMC,)
    filters = (Number("counter", MASK32, "its index, ECX"),)
    quick = staticmethod(edx_eax.quick_read)

    def tests(self, chosen):
        return [equal(RCX, MASK32, chosen["counter"])] if "counter" in chosen else []

    def needs(self, chosen):
        return Needs(primary=("RDPMC_EXITING",))

    def value(self, vcpu, value, handler):
        self.number(value)
        edx_eax.put(vcpu, value)
        return verdict.ADVANCE


RDPMC = Rdpmc()
