"""INVPCID, which exits under a policy only: INVLPG exiting applies to it.

Source: SDM Vol. 2A, "INVPCID"; Vol. 3C, "Format of the VM-Exit Instruction-Information Field as Used for INVEPT,
INVPCID, and INVVPID", which is that of LGDT but for REG2.
"""

from micropython import const

from vmm import verdict
from vmm.fault import Fault
from vmm.handlers import undefined
from vmm.handlers.descriptor import InstructionInformation, operand
from vmm.loaders.state import GPRS
from vmm.memory.linear import Unbacked, canonical
from vmm.vtx import events
from vmm.vtx.cpuid_bits import LEAF_7_EBX_INVPCID
from vmm.vtx.x86 import CR4_PCIDE, MASK64

_SIZE = const(16)
_REG2_SHIFT = const(28)  # where LGDT has IDENTITY
_PCID = const(0xFFF)
_ADDRESS = const(0)  # types: 0 address in a PCID, 1 PCID, 2 all, 3 all but global
_CONTEXT = const(1)
_MOST = const(3)


def invpcid(vcpu):
    """Handler of INVPCID: invalidate all translations of the vCPU, for every type; or deliver the fault."""
    if not vcpu.vm.cpuid.leaf(7, 0)[1] & LEAF_7_EBX_INVPCID:
        return undefined.exit(vcpu)
    info = InstructionInformation(vcpu.instr_info)
    kind = getattr(vcpu, GPRS[vcpu.instr_info >> _REG2_SHIFT & 15])
    if vcpu.bits != 64:
        kind &= 0xFFFFFFFF
    try:
        memory = vcpu.vm.linear.load(vcpu)
        descriptor = memory.get(operand(vcpu, memory, info, _SIZE, False))
    except Fault as fault:
        return events.deliver(vcpu, fault)
    except Unbacked as error:
        vcpu.vm.report(vcpu, "INVPCID: %s" % error)
        return verdict.STOP
    pcid, gva = descriptor & MASK64, descriptor >> 64
    if kind > _MOST or pcid & ~_PCID:
        return events.general_protection(vcpu)
    if kind in (_ADDRESS, _CONTEXT) and pcid and not vcpu.cr4 & CR4_PCIDE:
        return events.general_protection(vcpu)
    if kind == _ADDRESS and not canonical(gva):
        return events.general_protection(vcpu)
    vcpu.flush()
    return verdict.ADVANCE
