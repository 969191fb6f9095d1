"""A policy's Value in EDX:EAX: the result of RDMSR and RDTSC, the operand of WRMSR and XSETBV."""

import micropython

from vmm.vtx.frame import RAX, RDX
from vmm.vtx.x86 import MASK32


def put(vcpu, value):
    """value: 64 bits. The upper halves of RAX and RDX are cleared."""
    vcpu.rax = value & MASK32
    vcpu.rdx = value >> 32 & MASK32


def write(vcpu, value, handler):
    """Run the handler of an instruction that writes EDX:EAX with `value` there; the guest's registers are restored."""
    rax, rdx = vcpu.rax, vcpu.rdx
    put(vcpu, value)
    try:
        return handler(vcpu)
    finally:
        vcpu.rax, vcpu.rdx = rax, rdx


@micropython.viper
def quick_write(vcpu, numbers: int, handler) -> int:
    """Event.quick of an instruction that writes EDX:EAX, as write()."""
    n = ptr32(numbers)
    if n[0] != 1:
        return -1
    f = ptr32(vcpu)
    low = int(f[RAX])
    high = int(f[RDX])
    f[RAX] = n[2]
    f[RDX] = n[3]
    done = int(handler(vcpu))
    f[RAX] = low  # no handler reads above EAX and EDX
    f[RDX] = high
    return done


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
