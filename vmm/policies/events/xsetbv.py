"""XSETBV."""

from vmm.policies import edx_eax
from vmm.policies.event import Instruction
from vmm.vtx import reasons


class Xsetbv(Instruction):
    name = "xsetbv"
    text = 'an instruction XSETBV. Value(number) is written instead. SDM Vol. 2D, "XSETBV"'
    reasons = (reasons.XSETBV,)
    quick = staticmethod(edx_eax.quick_write)

    def value(self, vcpu, value, handler):
        self.number(value)
        return edx_eax.write(vcpu, value, handler)


XSETBV = Xsetbv()
