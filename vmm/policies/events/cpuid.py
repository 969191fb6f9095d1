"""CPUID."""

import micropython
from micropython import const

from vmm import verdict
from vmm.policies.event import Event
from vmm.policies.filters import Number
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import RAX, RBX, RCX, RDX
from vmm.vtx.x86 import MASK32

_REGISTERS = const(4)


@micropython.viper
def _quick(vcpu, numbers: int, handler) -> int:
    n = ptr32(numbers)
    if n[0] != _REGISTERS:
        return -1
    f = ptr32(vcpu)
    f[RAX] = n[2]
    f[RBX] = n[3]
    f[RCX] = n[4]
    f[RDX] = n[5]
    f[RAX + 1] = 0
    f[RBX + 1] = 0
    f[RCX + 1] = 0
    f[RDX + 1] = 0
    return 1


class Cpuid(Event):
    name = "cpuid"
    text = 'an instruction CPUID. Value((EAX, EBX, ECX, EDX)). SDM Vol. 2A, "CPUID"'
    reasons = (reasons.CPUID,)
    filters = (Number("leaf", MASK32, "EAX"), Number("subleaf", MASK32, "ECX"))

    quick = staticmethod(_quick)

    def keys(self, chosen):
        return [chosen["leaf"]] if "leaf" in chosen else None

    def tests(self, chosen):
        tests = self.narrower(chosen)
        return [equal(RAX, MASK32, chosen["leaf"])] + tests if "leaf" in chosen else tests

    def narrower(self, chosen):
        return [equal(RCX, MASK32, chosen["subleaf"])] if "subleaf" in chosen else []

    def value(self, vcpu, value, handler):
        if not isinstance(value, (tuple, list)) or len(value) != 4:
            raise ValueError("the value for CPUID is (EAX, EBX, ECX, EDX), not %r" % (value,))
        a, b, c, d = value
        vcpu.rax, vcpu.rbx, vcpu.rcx, vcpu.rdx = a & MASK32, b & MASK32, c & MASK32, d & MASK32
        return verdict.ADVANCE


CPUID = Cpuid()
