"""A policy's Value in EDX:EAX: the result of RDMSR and RDTSC, the operand of WRMSR."""

import micropython

from vmm.vtx.frame import RAX, RDX
from vmm.vtx.x86 import MASK32


def put(vcpu, value):
    """value: 64 bits. The upper halves of RAX and RDX are cleared."""
    vcpu.rax = value & MASK32
    vcpu.rdx = value >> 32 & MASK32


@micropython.viper
def quick_read(vcpu, numbers: int, handler) -> int:
    """Event.quick of an instruction that reads: set EDX:EAX and advance RIP."""
    n = ptr32(numbers)
    if n[0] != 1:
        return -1
    f = ptr32(vcpu)
    f[RAX] = n[2]
    f[RDX] = n[3]
    f[RAX + 1] = 0
    f[RDX + 1] = 0
    return 1
