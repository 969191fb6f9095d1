"""Decoder for instructions that access memory, to emulate them on devices' registers.

It reads prefixes, REX, opcode, ModR/M, SIB, displacement and immediate of 16-, 32- and
64-bit code and says what is accessed and how. Limits: general-register instructions of
vmm/emulation/opcodes.py only, with a memory operand; no VEX, EVEX, SSE, x87, far pointers,
shifts or multiplications. Everything else raises DecodeError.
Source: SDM Vol. 2A, "Instruction Format"; Vol. 2D, "Opcode Map".
"""

from micropython import const

from vmm.emulation.opcodes import (
    A_O,
    E_1,
    E_I,
    E_I8,
    E_S,
    FORMS,
    G_EB,
    G_ED,
    G_EW,
    GROUPS,
    MOVBE,
    O_A,
    OPS,
    POP,
    PUSH,
    STRING,
    WIDE,
    group_op,
)
from vmm.vtx.x86 import INSTRUCTION_BYTES

ES = const(0)
CS = const(1)
SS = const(2)
DS = const(3)
FS = const(4)
GS = const(5)
NONE = const(-1)
RIP = const(16)  # as a base register: the address of the next instruction

REX_W = const(8)
REX_R = const(4)
REX_X = const(2)
REX_B = const(1)

# Base and index of the 16-bit addressing forms by r/m
_BASE16 = b"\x03\x03\x05\x05\x06\x07\x05\x03"
_INDEX16 = b"\x06\x07\x06\x07\xff\xff\xff\xff"


class DecodeError(Exception):
    """An instruction that the decoder does not know; the text holds its bytes."""


class Instruction:
    """One decoded instruction. Reuse an object: decode() fills it without allocating.

    length        bytes
    op, form      constants of vmm/emulation/opcodes.py
    size          operand size: 1, 2, 4, 8
    mem_size      size of the memory access; differs from `size` for MOVZX, MOVSX
    address_size  2, 4, 8
    reg           register operand, 0-15; for MOV from a segment register its number
    base, index   address registers or NONE; RIP for RIP-relative
    scale, disp   factor of the index; signed displacement, or the moffs address
    segment       the segment that applies: override, or the default
    imm           immediate, signed
    rep           0, 0F2h or 0F3h
    rex           the REX byte or 0; decides what byte registers 4-7 are
    lock          whether a LOCK prefix is there
    cond          condition code of CMOVcc and SETcc
    bits          16, 32 or 64, the code's mode
    """

    def __init__(self):
        self.length = self.op = self.form = self.size = self.mem_size = 0
        self.address_size = self.reg = self.scale = self.disp = self.segment = 0
        self.base = self.index = NONE
        self.imm = self.rep = self.rex = self.cond = self.opcode = self.bits = 0
        self.lock = self.operand_prefix = False

    def decode(self, code, bits):
        """Fills this object from the first bytes of `code` in 16-, 32- or 64-bit mode."""
        try:
            self._decode(code, bits)
        except IndexError:
            raise DecodeError("cut off or too long: %s" % _hex(code)) from None
        if self.length > INSTRUCTION_BYTES:
            raise DecodeError("longer than 15 bytes: %s" % _hex(code))
        return self

    def _decode(self, code, bits):
        self.bits = bits
        at = self.prefixes(code, bits)
        opsize = self.size
        opcode = code[at]
        at += 1
        if opcode == 0x0F:
            opcode = 0x100 | code[at]
            at += 1
            if opcode == 0x138:
                opcode = 0x200 | code[at]
                at += 1
        self.opcode = opcode
        form = FORMS[opcode] if opcode < len(FORMS) else 0
        op = OPS[opcode] if form else 0
        self.base = self.index = NONE
        self.scale = 1
        self.disp = self.imm = self.reg = 0
        self.cond = opcode & 15
        if form == 0 or (opcode == 0x82 and bits == 64) or (form == G_ED and bits != 64):
            self._unknown(code)
        if form == A_O or form == O_A or form == STRING:
            self.size = self.mem_size = opsize if opcode & 1 else 1
            if form != STRING:
                at = self._displacement(code, at, self.address_size, signed=False)
            self.segment = DS if self.segment == NONE else self.segment
            self._done(op, form, at)
            return
        modrm = code[at]
        if modrm >= 0xC0:
            raise DecodeError("no memory operand: %s" % _hex(code))
        if form == GROUPS:
            form = group_op(opcode, modrm >> 3 & 7)
            op = form & 0xFF
            form >>= 8
            if form == 0:
                self._unknown(code)
        self._check_prefixes(code, op, opcode)
        self._sizes(op, form, opcode, opsize)
        self.reg = modrm >> 3 & 7 | (8 if self.rex & REX_R else 0)
        if form == E_S:
            self.reg &= 7
            if self.reg > GS:
                self._unknown(code)
        at = self.locate(code, at)
        if form == E_I8:
            at = self._immediate(code, at, 1)
        elif form == E_I:
            at = self._immediate(code, at, min(self.size, 4))
        self._done(op, form, at)

    def _done(self, op, form, at):
        self.op = op
        self.form = form
        self.length = at

    def _unknown(self, code):
        raise DecodeError("the access is not emulated: %s" % _hex(code))

    def prefixes(self, code, bits):
        """Reads prefixes; returns the opcode's offset, leaves the operand size in `size`."""
        at = rex = rep = 0
        segment = NONE
        operand = address = lock = False
        while True:
            byte = code[at]
            if bits == 64 and byte & 0xF0 == 0x40:
                rex = byte
                at += 1
                continue
            if byte == 0x66:
                operand = True
            elif byte == 0x67:
                address = True
            elif byte == 0xF0:
                lock = True
            elif byte == 0xF2 or byte == 0xF3:
                rep = byte
            elif byte == 0x64 or byte == 0x65:
                segment = FS + (byte & 1)
            elif byte & 0xE7 == 0x26:
                if bits != 64:
                    segment = byte >> 3 & 3
            else:
                break
            rex = 0  # REX has an effect only directly before the opcode
            at += 1
        self.rex = rex
        self.rep = rep
        self.lock = lock
        self.segment = segment
        self.operand_prefix = operand
        if bits == 64:
            self.address_size = 4 if address else 8
            self.size = 8 if rex & REX_W else 2 if operand else 4
        else:
            self.address_size = 2 if (bits == 16) != address else 4
            self.size = 2 if (bits == 16) != operand else 4
        return at

    def _check_prefixes(self, code, op, opcode):
        """Refuses an opcode that a prefix makes another instruction."""
        if opcode == 0x1C3 and (self.operand_prefix or self.rep):
            self._unknown(code)
        if op == MOVBE and self.rep:
            self._unknown(code)

    def _sizes(self, op, form, opcode, opsize):
        if form == E_S:
            self.size = self.mem_size = 2
            return
        if op == PUSH or op == POP:
            if self.bits == 64:
                opsize = 2 if opsize == 2 else 8
            self.size = self.mem_size = opsize
            return
        self.size = opsize
        if opcode == 0x1C3:
            self.size = max(opsize, 4)
        if form == G_EB:
            self.mem_size = 1
        elif form == G_EW:
            self.mem_size = 2
        elif form == G_ED:
            self.mem_size = min(opsize, 4)
        else:
            if form == E_1 or not (opcode & 1 or WIDE[opcode]):
                self.size = 1
            self.mem_size = self.size

    def _displacement(self, code, at, size, signed=True):
        value = 0
        for index in range(size):
            value |= code[at + index] << (8 * index)
        if signed and size and code[at + size - 1] & 0x80:
            value -= 1 << (8 * size)
        self.disp = value
        return at + size

    def _immediate(self, code, at, size):
        disp = self.disp
        at = self._displacement(code, at, size)
        self.imm = self.disp
        self.disp = disp
        return at

    def locate(self, code, at):
        """Read the memory operand that the ModR/M byte at `at` names; returns the offset behind it.

        prefixes() has been called before. Sets base, index, scale, disp and segment.
        """
        self.base = self.index = NONE
        self.scale = 1
        self.disp = 0
        return self._address16(code, at) if self.address_size == 2 else self._address(code, at)

    def _address16(self, code, at):
        modrm = code[at]
        mod = modrm >> 6
        rm = modrm & 7
        at += 1
        if mod == 0 and rm == 6:
            at = self._displacement(code, at, 2)
        else:
            self.base = _BASE16[rm]
            self.index = _INDEX16[rm] if rm < 4 else NONE
            at = self._displacement(code, at, mod)
        if self.segment == NONE:
            self.segment = SS if self.base == 5 else DS
        return at

    def _address(self, code, at):
        modrm = code[at]
        mod = modrm >> 6
        base = modrm & 7
        at += 1
        if base == 4:
            sib = code[at]
            at += 1
            base = sib & 7
            index = sib >> 3 & 7 | (8 if self.rex & REX_X else 0)
            if index != 4:
                self.index = index
                self.scale = 1 << (sib >> 6)
            if base == 5 and mod == 0:
                base = NONE
        elif base == 5 and mod == 0:
            base = RIP if self.bits == 64 else NONE
        if base >= 0 and base != RIP and self.rex & REX_B:
            base += 8
        self.base = base
        if mod == 1:
            at = self._displacement(code, at, 1)
        elif mod == 2 or base == NONE or base == RIP:
            at = self._displacement(code, at, 4)
        if self.segment == NONE:
            self.segment = SS if base == 4 or base == 5 else DS
        return at


def _hex(code):
    return " ".join(["%02x" % byte for byte in bytes(code[:INSTRUCTION_BYTES])])
