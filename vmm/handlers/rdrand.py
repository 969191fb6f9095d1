"""RDRAND and RDSEED, which exit under a policy only: os.urandom in place of the CPU's generator.

Source: SDM Vol. 2B, "RDRAND - Read Random Number", "RDSEED - Read Random SEED"; Vol. 3C, "Format of the VM-Exit
Instruction-Information Field as Used for RDRAND, RDSEED, TPAUSE, and UMWAIT". A 16-bit operand is recognized by the
instruction's prefixes instead: Bochs 3.0 reports it as 32 bits.
"""

import os

from vmm import verdict
from vmm.emulation.alu import STATUS
from vmm.handlers.descriptor import InstructionInformation, operand_16
from vmm.loaders.state import GPRS
from vmm.vtx.x86 import RFLAGS_CF


def rdrand(vcpu):
    """Handler of RDRAND and RDSEED: a random number in the instruction's register, CF set."""
    return put(vcpu, int.from_bytes(os.urandom(8), "little"))


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
