"""The length of an instruction whose exit does not report one.

All of the one-byte, 0F, 0F38 and 0F3A maps, VEX and EVEX, in 16-, 32- and 64-bit code. Limits: no 3DNow!, no XOP; an
undefined opcode gets the length of its neighbours in the map. Source: SDM Vol. 2A, "Instruction Format"; Vol. 2D,
"Opcode Map".
"""

from vmm import verdict
from vmm.emulation.decode import REX_W
from vmm.fault import Fault
from vmm.memory.linear import Unbacked
from vmm.vtx import events, reasons
from vmm.vtx.x86 import INSTRUCTION_BYTES

PREFIXES = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3"
_BY_ADDRESS_SIZE = b"\xa0\xa1\xa2\xa3"


class Unknown(ValueError):
    """No instruction: longer than 15 bytes, or the code ends first."""


def _modrm_one(op):
    """Whether a one-byte opcode has a ModR/M byte."""
    if op < 0x40:
        return op & 7 < 4
    if op < 0xC0:
        return op in b"\x62\x63\x69\x6b" or 0x80 <= op <= 0x8F
    return op in b"\xc0\xc1\xc4\xc5\xc6\xc7\xd0\xd1\xd2\xd3\xf6\xf7\xfe\xff" or 0xD8 <= op <= 0xDF


def _immediate_one(op, reg, bits, operand, wide):
    """Bytes of immediate of a one-byte opcode. operand: 2 or 4; wide: REX.W."""
    if op < 0x40:
        return (0, 0, 0, 0, 1, operand, 0, 0)[op & 7]
    if 0x70 <= op <= 0x7F or 0xB0 <= op <= 0xB7 or 0xE0 <= op <= 0xE7:
        return 1
    if op in b"\x6a\x6b\x80\x82\x83\xa8\xc0\xc1\xc6\xcd\xd4\xd5\xeb":
        return 1
    if 0xB8 <= op <= 0xBF:
        return 8 if wide else operand
    if op in b"\xe8\xe9":
        return 4 if bits == 64 else operand
    if op in b"\x68\x69\x81\xa9\xc7":
        return operand
    if op in b"\xc2\xca":
        return 2
    if op == 0xC8:
        return 3
    if op in b"\x9a\xea":
        return operand + 2
    if op == 0xF6 and reg < 2:
        return 1
    if op == 0xF7 and reg < 2:
        return operand
    return 0


def _modrm_two(op):
    """Whether an opcode of the 0F map has a ModR/M byte."""
    if op in b"\x05\x06\x07\x08\x09\x0b\x0e\x77\xa0\xa1\xa2\xa8\xa9\xaa" or 0x30 <= op <= 0x37:
        return False
    return not (0x80 <= op <= 0x8F or 0xC8 <= op <= 0xCF)


def _immediate_two(op, bits, operand):
    if 0x80 <= op <= 0x8F:
        return 4 if bits == 64 else operand
    return 1 if 0x70 <= op <= 0x73 or op in b"\xa4\xac\xba\xc2\xc4\xc5\xc6" else 0


def length(code, bits):
    """Return the length in bytes of the instruction at the start of `code`. Unknown where it does not end."""
    try:
        count = _length(code, bits)
    except IndexError:
        raise Unknown("the instruction %s does not end" % bytes(code).hex())
    if count > INSTRUCTION_BYTES or count > len(code):
        raise Unknown("the instruction %s does not end" % bytes(code).hex())
    return count


def _length(code, bits):
    at = 0
    operand = 2 if bits == 16 else 4
    address = bits
    wide = False
    while code[at] in PREFIXES:
        if code[at] == 0x66:
            operand = 4 if bits == 16 else 2
        elif code[at] == 0x67:
            address = 16 if bits == 32 else 32
        at += 1
    if bits == 64 and code[at] & 0xF0 == 0x40:
        wide = bool(code[at] & REX_W)
        at += 1
    if wide:
        operand = 4
    op = code[at]
    at += 1
    if op in b"\xc4\xc5\x62" and (bits == 64 or code[at] >= 0xC0):
        return _vector(code, at, op, address)
    if op == 0x0F:
        op = code[at]
        at += 1
        if op == 0x38 or op == 0x3A:
            return _after_modrm(code, at + 1, address) + (1 if op == 0x3A else 0)
        immediate = _immediate_two(op, bits, operand)
        return (_after_modrm(code, at, address) if _modrm_two(op) else at) + immediate
    if op in _BY_ADDRESS_SIZE:
        return at + address // 8
    immediate = _immediate_one(op, code[at] >> 3 & 7 if at < len(code) else 0, bits, operand, wide)
    return (_after_modrm(code, at, address) if _modrm_one(op) else at) + immediate


def _vector(code, at, op, address):
    """VEX (C5: two bytes, C4: three) and EVEX (62: four)."""
    if op == 0xC5:
        opcode_map, at = 1, at + 1
    else:
        opcode_map, at = code[at] & (7 if op == 0x62 else 31), at + (3 if op == 0x62 else 2)
    op = code[at]
    at += 1
    if opcode_map == 1 and op == 0x77:
        return at
    immediate = _immediate_two(op, 64, 4) if opcode_map == 1 else 1 if opcode_map == 3 else 0
    return _after_modrm(code, at, address) + immediate


def _after_modrm(code, at, address):
    """The offset behind ModR/M, SIB and displacement."""
    modrm = code[at]
    at += 1
    mod, rm = modrm >> 6, modrm & 7
    if mod == 3:
        return at
    if address == 16:
        return at + (2 if mod == 2 or (mod == 0 and rm == 6) else mod)
    if rm == 4:
        rm = code[at] & 7
        at += 1
    return at + (4 if mod == 2 or (mod == 0 and rm == 5) else mod)


def skip(vcpu):
    """Advance RIP past the instruction at RIP; returns a verdict."""
    mmio = vcpu.vm.mmio
    known = mmio.length(vcpu) if vcpu.reason == reasons.EPT_VIOLATION else 0
    if known:
        vcpu.length = known
        return verdict.ADVANCE
    cpu = mmio.cpu
    try:
        cpu.take(vcpu)
        cpu.finish(vcpu, length(cpu.fetch(vcpu), cpu.bits))
    except Fault as fault:
        return events.deliver(vcpu, fault)
    except (Unknown, Unbacked) as error:
        vcpu.vm.report(vcpu, "cannot skip the instruction at %#x: %s" % (vcpu.rip, error))
        return verdict.STOP
    return verdict.RESUME
