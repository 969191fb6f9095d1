"""RDTSC and RDTSCP."""

import micropython
from micropython import const

from vmm import verdict
from vmm.policies.event import Instruction, Needs
from vmm.vtx import reasons
from vmm.vtx.frame import RAX, RDX

_WORD = const(0xFFFFFFFF)


@micropython.viper
def _quick(vcpu, numbers: int, handler) -> int:
    n = ptr32(numbers)
    if n[0] != 1:
        return -1
    f = ptr32(vcpu)
    f[RAX] = n[2]
    f[RDX] = n[3]
    f[RAX + 1] = 0
    f[RDX + 1] = 0
    return 1


class Rdtsc(Instruction):
    """A Value leaves ECX of RDTSCP as it is: the policy may set it."""

    name = "rdtsc"
    text = 'an instruction RDTSC or RDTSCP. Value(number) is what is read. SDM Vol. 3C, "RDTSC exiting"'
    reasons = (reasons.RDTSC, reasons.RDTSCP)
    quick = staticmethod(_quick)

    def needs(self, chosen):
        return Needs(primary=("RDTSC_EXITING",))

    def value(self, vcpu, value, handler):
        self.number(value)
        vcpu.rax = value & _WORD
        vcpu.rdx = value >> 32 & _WORD
        return verdict.ADVANCE


RDTSC = Rdtsc()
