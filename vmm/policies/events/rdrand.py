"""RDRAND and RDSEED."""

from vmm.handlers import rdrand
from vmm.policies.event import Instruction, Needs
from vmm.vtx import reasons


class Rdrand(Instruction):
    """Without an answer the number comes from the monitor's generator. A Value sets CF: the number is valid."""

    name = "rdrand"
    text = 'an instruction RDRAND. Value(number) is what is read. SDM Vol. 2B, "RDRAND"; Vol. 3C, "RDRAND exiting"'
    reasons = (reasons.RDRAND,)
    quick = staticmethod(rdrand.quick)

    def needs(self, chosen):
        return Needs(secondary=("RDRAND_EXITING",))

    def value(self, vcpu, value, handler):
        self.number(value)
        return rdrand.put(vcpu, value)


class Rdseed(Rdrand):
    name = "rdseed"
    text = 'an instruction RDSEED. Value(number) is what is read. SDM Vol. 2B, "RDSEED"; Vol. 3C, "RDSEED exiting"'
    reasons = (reasons.RDSEED,)

    def needs(self, chosen):
        return Needs(secondary=("RDSEED_EXITING",))


RDRAND = Rdrand()
RDSEED = Rdseed()
