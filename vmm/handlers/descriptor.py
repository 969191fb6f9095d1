"""SGDT, SIDT, LGDT, LIDT, SLDT, STR, LLDT and LTR, which exit under a policy only (descriptor-table exiting).

The CPU checks UMIP before it exits; CPL, operand and descriptor are checked here. Source: SDM Vol. 3C, "Format of the
VM-Exit Instruction-Information Field as Used for LIDT, LGDT, SIDT, or SGDT" and "... for LLDT, LTR, SLDT, and STR";
Vol. 2, the instructions.
"""

from micropython import const

from vmm import verdict
from vmm.emulation.length import PREFIXES
from vmm.fault import GP, NP, Fault
from vmm.loaders.state import GPRS
from vmm.memory.linear import Unbacked, canonical
from vmm.memory.paging import WRITE
from vmm.vtx import events, segments
from vmm.vtx.reasons import GDTR_OR_IDTR_ACCESS
from vmm.vtx.reg import Bits, Reg, register
from vmm.vtx.segments import BUSY
from vmm.vtx.vmcs import (
    GUEST_GDTR_BASE,
    GUEST_GDTR_LIMIT,
    GUEST_IDTR_BASE,
    GUEST_IDTR_LIMIT,
    GUEST_LDTR_SELECTOR,
    GUEST_TR_SELECTOR,
)
from vmm.vtx.vmcs_bits import RIGHTS_UNUSABLE
from vmm.vtx.x86 import EFER_LMA

_MASKS = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)  # by address size
_TABLES = ((GUEST_GDTR_BASE, GUEST_GDTR_LIMIT), (GUEST_IDTR_BASE, GUEST_IDTR_LIMIT))

_LOAD = const(2)  # in IDENTITY: a load, else a store
_ALIGNMENT = const(4)  # of a table register's operand
_OPERAND_SIZE = const(0x66)


@register
class InstructionInformation(Reg):
    """The VM-exit instruction information, all layouts in one. Fields of other layouts are undefined."""

    SCALING = Bits(1, 0)
    REG1 = Bits(6, 3)
    ADDRESS_SIZE = Bits(9, 7)
    REGISTER = Bits(10)  # operand is REG1, else memory
    OPERAND_32 = Bits(11)  # of LGDT and LIDT
    OPERAND_64 = Bits(12)  # of RDRAND and RDSEED
    SEGMENT = Bits(17, 15)
    INDEX = Bits(21, 18)
    NO_INDEX = Bits(22)
    BASE = Bits(26, 23)
    NO_BASE = Bits(27)
    IDENTITY = Bits(29, 28)  # SGDT SIDT LGDT LIDT, or SLDT STR LLDT LTR


def table_access(vcpu):
    """Handler of both exit reasons: execute the instruction, or deliver its fault."""
    info = InstructionInformation(vcpu.instr_info)
    try:
        if info.IDENTITY >= _LOAD and vcpu.cpl:
            raise Fault(GP)
        if vcpu.reason == GDTR_OR_IDTR_ACCESS:
            _table(vcpu, info)
        else:
            _selector(vcpu, info)
    except Fault as fault:
        return events.deliver(vcpu, fault)
    except Unbacked as error:
        vcpu.vm.report(vcpu, "descriptor table access: %s" % error)
        return verdict.STOP
    return verdict.ADVANCE


def operand(vcpu, memory, info, size, write, alignment=0):
    """Return the memory operand as Linear's pieces. Raises Fault, Unbacked."""
    offset = vcpu.qualification
    if not info.NO_BASE:
        offset += getattr(vcpu, GPRS[info.BASE])
    if not info.NO_INDEX:
        offset += getattr(vcpu, GPRS[info.INDEX]) << info.SCALING
    offset &= _MASKS[info.ADDRESS_SIZE]
    return memory.operand(info.SEGMENT, offset, size, WRITE if write else 0, alignment)


def _table(vcpu, info):
    long_mode = vcpu.bits == 64
    base_field, limit_field = _TABLES[info.IDENTITY & 1]
    size = 10 if long_mode else 6
    memory = vcpu.vm.linear.load(vcpu)
    pieces = operand(vcpu, memory, info, size, info.IDENTITY < _LOAD, _ALIGNMENT)
    if info.IDENTITY < _LOAD:
        memory.put(pieces, vcpu.read(limit_field) | vcpu.read(base_field) << 16)
        return
    value = memory.get(pieces)
    limit, base = value & 0xFFFF, value >> 16
    if long_mode:
        if not canonical(base):
            raise Fault(GP)
    elif not info.OPERAND_32:
        base &= 0xFFFFFF
    vcpu.write(base_field, base)
    vcpu.write(limit_field, limit)


def _selector(vcpu, info):
    task = info.IDENTITY & 1
    memory = vcpu.vm.linear.load(vcpu)
    if info.IDENTITY < _LOAD:
        selector = vcpu.read(GUEST_TR_SELECTOR if task else GUEST_LDTR_SELECTOR)
        if info.REGISTER:
            name = GPRS[info.REG1]
            keep = getattr(vcpu, name) & ~0xFFFF if operand_16(vcpu) else 0
            setattr(vcpu, name, keep | selector)
        else:
            memory.put(operand(vcpu, memory, info, 2, True), selector)
        return
    if info.REGISTER:
        selector = getattr(vcpu, GPRS[info.REG1]) & 0xFFFF
    else:
        selector = memory.get(operand(vcpu, memory, info, 2, False))
    if task:
        _load_tr(vcpu, memory, selector)
    else:
        _load_ldtr(vcpu, memory, selector)


def operand_16(vcpu):
    """Whether an instruction's register operand has 16 bits: by its prefixes, since the exit does not report it."""
    code = vcpu.peek(vcpu.rip + (0 if vcpu.bits == 64 else vcpu.cs[1]), vcpu.length)
    override = wide = False
    for byte in code:
        if byte in PREFIXES:
            override |= byte == _OPERAND_SIZE
        elif vcpu.bits == 64 and byte & 0xF0 == 0x40:
            wide = byte & 8
        else:
            break
    return not wide and override != (vcpu.bits == 16)


def _system(vcpu, memory, selector, types):
    """Return a system segment's descriptor from the GDT, checked as LLDT and LTR check it."""
    wide = bool(vcpu.efer & EFER_LMA)
    error = selector & 0xFFFC
    found = None if selector & 4 else segments.find(vcpu, memory, selector, wide)
    if found is None or not found.system or found.type not in types:
        raise Fault(GP, error)
    if wide and (found.upper >> 8 & 0x1F or not canonical(found.base)):
        raise Fault(GP, error)
    if not found.present:
        raise Fault(NP, error)
    return found


def _load_ldtr(vcpu, memory, selector):
    if not selector & 0xFFFC:
        vcpu.set_segment("ldtr", selector, 0, 0, RIGHTS_UNUSABLE)
        return
    found = _system(vcpu, memory, selector, (segments.LDT,))
    vcpu.set_segment("ldtr", selector, found.base, found.limit, found.rights)


def _load_tr(vcpu, memory, selector):
    types = (segments.TSS_32,) if vcpu.efer & EFER_LMA else (segments.TSS_16, segments.TSS_32)
    found = _system(vcpu, memory, selector, types)
    found.mark(memory, BUSY)
    vcpu.set_segment("tr", selector, found.base, found.limit, found.rights)
