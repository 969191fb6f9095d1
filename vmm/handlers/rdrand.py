"""RDRAND and RDSEED, while a policy watches them: the monitor's own generator (port/random.c) in place of the CPU's.

Source: SDM Vol. 2B, "RDRAND - Read Random Number", "RDSEED - Read Random SEED"; Vol. 3C, "Format of the VM-Exit
Instruction-Information Field as Used for RDRAND, RDSEED, TPAUSE, and UMWAIT". A 16-bit operand is recognized by the
instruction's prefixes instead: Bochs 3.0 reports it as 32 bits.
"""

import micropython
from cpu import random
from micropython import const

from vmm import verdict
from vmm.emulation.alu import STATUS
from vmm.handlers.descriptor import InstructionInformation, operand_16
from vmm.loaders.state import GPRS
from vmm.vtx.frame import CS_RIGHTS, DIRTY, DIRTY_RFLAGS, INSTR_INFO, LENGTH, RFLAGS
from vmm.vtx.vmcs_bits import RIGHTS_DB, RIGHTS_L
from vmm.vtx.x86 import RFLAGS_CF

_OPERAND_64 = const(1 << 12)
_NO_PREFIX = const(3)  # bytes of the instruction
_RSP = const(4)


def slowly(vcpu):
    """rdrand() of operands of any kind."""
    return put(vcpu, random() | random() << 32)


# In plain Python 14,900.
@micropython.viper
def rdrand(vcpu) -> int:
    """A random number in the instruction's register, with CF set; RDSEED, too."""
    done = int(_put(vcpu, random(), random()))
    return int(slowly(vcpu)) if done < 0 else done


@micropython.viper
def quick(vcpu, numbers: int, handler) -> int:
    """Event.quick: the instruction reads the number."""
    n = ptr32(numbers)
    if n[0] != 1:
        return -1
    return int(_put(vcpu, n[2], n[3]))


@micropython.viper
def _put(vcpu, low: int, high: int) -> int:
    """put(), or -1, with nothing done, where the operand has 16 bits or is RSP, or only prefixes tell its size.

    In halves: a number from 2**62 on would be an object between the two functions."""
    f = ptr32(vcpu)
    info = int(f[INSTR_INFO])
    register = info >> 3 & 15
    if register == _RSP:
        return -1
    if info & _OPERAND_64 == 0:
        # R8 to R15 need a prefix.
        if int(f[LENGTH]) - (register >> 3) != _NO_PREFIX or int(f[CS_RIGHTS]) & (RIGHTS_L | RIGHTS_DB) == 0:
            return -1
        high = 0
    f[2 * register] = low
    f[2 * register + 1] = high
    f[RFLAGS] = int(f[RFLAGS]) & ~STATUS | RFLAGS_CF
    f[DIRTY] |= DIRTY_RFLAGS
    return 1


def put(vcpu, value):
    """Write `value`, cut to the operand's size, to the instruction's register and set CF. Returns the verdict."""
    info = InstructionInformation(vcpu.instr_info)
    bits = 64 if info.OPERAND_64 else 16 if operand_16(vcpu) else 32
    name = GPRS[info.REG1]
    value &= (1 << bits) - 1
    if bits == 16:
        value |= getattr(vcpu, name) & ~0xFFFF
    setattr(vcpu, name, value)
    vcpu.rflags = vcpu.rflags & ~STATUS | RFLAGS_CF
    return verdict.ADVANCE
