"""RDTSC and RDTSCP."""

from vmm import verdict
from vmm.policies import edx_eax
from vmm.policies.event import Instruction, Needs
from vmm.vtx import reasons


class Rdtsc(Instruction):
    """A Value leaves ECX of RDTSCP as it is: the policy may set it."""

    name = "rdtsc"
    text = 'an instruction RDTSC or RDTSCP. Value(number) is what is read. SDM Vol. 3C, "RDTSC exiting"'
    reasons = (reasons.RDTSC, reasons.RDTSCP)
    quick = staticmethod(edx_eax.quick_read)

    def needs(self, chosen):
        return Needs(primary=("RDTSC_EXITING",))

    def value(self, vcpu, value, handler):
        self.number(value)
        edx_eax.put(vcpu, value)
        return verdict.ADVANCE


class Rdtscp(Rdtsc):
    name = "rdtscp"
    text = 'an instruction RDTSCP alone. Value(number) is what is read. SDM Vol. 2B, "RDTSCP"'
    reasons = (reasons.RDTSCP,)


RDTSC = Rdtsc()
RDTSCP = Rdtscp()
