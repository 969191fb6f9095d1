"""RDMSR and WRMSR."""

import micropython
from micropython import const

from vmm import verdict
from vmm.policies.event import Instruction, Needs
from vmm.policies.filters import Number
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import RAX, RCX, RDX

_WORD = const(0xFFFFFFFF)


@micropython.viper
def _read(vcpu, numbers: int, handler) -> int:
    n = ptr32(numbers)
    if n[0] != 1:
        return -1
    f = ptr32(vcpu)
    f[RAX] = n[2]
    f[RDX] = n[3]
    f[RAX + 1] = 0
    f[RDX + 1] = 0
    return 1


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
    f[RAX] = low  # WRMSR changes no register; what lies above EAX and EDX no handler looks at
    f[RDX] = high
    return done


class _Msr(Instruction):
    filters = (Number("msr", _WORD, "its index, ECX", required=True),)
    write = False

    def keys(self, chosen):
        return [chosen["msr"]]

    def tests(self, chosen):
        return [equal(RCX, _WORD, chosen["msr"])]

    def narrower(self, chosen):
        return []

    def needs(self, chosen):
        return Needs(msrs=((chosen["msr"], self.write),))


class Rdmsr(_Msr):
    name = "rdmsr"
    text = 'an instruction RDMSR. Value(number) is what is read. SDM Vol. 2B, "RDMSR"; Vol. 3C, "MSR-Bitmap Address"'
    reasons = (reasons.RDMSR,)
    quick = staticmethod(_read)

    def value(self, vcpu, value, handler):
        self.number(value)
        _pair(vcpu, value)
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
        _pair(vcpu, value)
        try:
            return handler(vcpu)
        finally:
            vcpu.rax, vcpu.rdx = rax, rdx  # WRMSR changes no register


def _pair(vcpu, value):
    vcpu.rax = value & _WORD
    vcpu.rdx = value >> 32 & _WORD


RDMSR = Rdmsr()
WRMSR = Wrmsr()
