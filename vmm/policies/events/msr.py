"""RDMSR and WRMSR."""

import micropython

from vmm import verdict
from vmm.policies import edx_eax
from vmm.policies.event import Instruction, Needs
from vmm.policies.filters import Number
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import RAX, RCX, RDX
from vmm.vtx.x86 import MASK32


@micropython.viper
def _write(vcpu, numbers: int, handler) -> int:
    n = ptr32(numbers)
    if n[0] != 1:
        return -1
    f = ptr32(vcpu)
    low = int(f[RAX])
    high = int(f[RDX])
    f[RAX] = n[2]
    f[RDX] = n[3]
    done = int(handler(vcpu))
    f[RAX] = low  # WRMSR changes no register; no handler reads above EAX and EDX
    f[RDX] = high
    return done


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
    quick = staticmethod(_write)
    write = True

    def value(self, vcpu, value, handler):
        self.number(value)
        rax, rdx = vcpu.rax, vcpu.rdx
        edx_eax.put(vcpu, value)
        try:
            return handler(vcpu)
        finally:
            vcpu.rax, vcpu.rdx = rax, rdx  # WRMSR changes no register


RDMSR = Rdmsr()
WRMSR = Wrmsr()
