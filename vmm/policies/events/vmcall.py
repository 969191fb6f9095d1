"""VMCALL."""

import micropython

from vmm import verdict
from vmm.policies.event import Instruction
from vmm.policies.filters import Number
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import RAX
from vmm.vtx.x86 import MASK32


@micropython.viper
def _quick(vcpu, numbers: int, handler) -> int:
    n = ptr32(numbers)
    if n[0] != 1:
        return -1
    f = ptr32(vcpu)
    f[RAX] = n[2]
    f[RAX + 1] = n[3]
    return 1


class Vmcall(Instruction):
    name = "vmcall"
    text = 'an instruction VMCALL, a hypercall. Value(number) is RAX. SDM Vol. 3C, "VMCALL"'
    reasons = (reasons.VMCALL,)
    filters = (Number("number", MASK32, "EAX"),)

    quick = staticmethod(_quick)

    def keys(self, chosen):
        return [chosen["number"]] if "number" in chosen else None

    def tests(self, chosen):
        return [equal(RAX, MASK32, chosen["number"])] if "number" in chosen else []

    def narrower(self, chosen):
        return []

    def value(self, vcpu, value, handler):
        self.number(value)
        vcpu.rax = value
        return verdict.ADVANCE


VMCALL = Vmcall()
