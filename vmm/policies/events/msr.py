"""RDMSR and WRMSR."""

from vmm import verdict
from vmm.policies import edx_eax
from vmm.policies.event import Instruction, Needs
from vmm.policies.filters import Number
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import RCX
from vmm.vtx.x86 import MASK32


class _Msr(Instruction):
    filters = (Number("msr", MASK32, "its index, ECX", required=True),)
    write = False

    def keys(self, chosen):
        return [chosen["msr"]]

    def tests(self, chosen):
        return [equal(RCX, MASK32, chosen["msr"])]

    def narrower(self, chosen):
        return []

    def needs(self, chosen):
        return Needs(msrs=((chosen["msr"], self.write),))


class Rdmsr(_Msr):
    name = "rdmsr"
    text = 'an instruction RDMSR. Value(number) is what is read. SDM Vol. 2B, "RDMSR"; Vol. 3C, "MSR-Bitmap Address"'
    reasons = (reasons.RDMSR,)
    quick = staticmethod(edx_eax.quick_read)

    def value(self, vcpu, value, handler):
        self.number(value)
        edx_eax.put(vcpu, value)
        return verdict.ADVANCE


class Wrmsr(_Msr):
    name = "wrmsr"
    text = 'an instruction WRMSR. Value(number) is written instead. SDM Vol. 2D, "WRMSR"; Vol. 3C, "MSR-Bitmap Address"'
    reasons = (reasons.WRMSR,)
    quick = staticmethod(edx_eax.quick_write)
    write = True

    def value(self, vcpu, value, handler):
        self.number(value)
        return edx_eax.write(vcpu, value, handler)


RDMSR = Rdmsr()
WRMSR = Wrmsr()
