"""Which memory an instruction accesses: address, size, and reads or writes. For instructions that the emulator lacks.

The CPU executes them itself (vmm/emulation/oncpu.py); before that, their source operands have to be read from the
devices. SSE, AVX, x87, MMX, BMI, shifts, multiplications, system instructions and the near stack operations are here.
Limits: no EVEX, gathers, masked moves or XSAVE family; no far CALL, far RET, IRET or INT with its stack in device
memory. Source: SDM Vol. 2A-2C, each instruction; Vol. 2D, "Opcode Map".
"""

from micropython import const

from vmm.emulation import length
from vmm.emulation.decode import DS, NONE, REX_W, SS, DecodeError
from vmm.emulation.emulate import RSP
from vmm.memory.paging import WRITE

# Kinds of access.
READ = const(0)
UPDATE = const(1)  # read and written
STORE = const(2)  # written
NOTHING = const(3)  # only the page must be there: CLFLUSH

_RBX = const(3)
_RBP = const(5)
_VECTOR = const(16)
_KINDS = "rmw."


class Operand:
    """`size` bytes at an offset of a segment (its number), accessed `unit` bytes at a time, downwards or upwards."""

    def __init__(self, segment, offset, size, unit, kind, down=False):
        self.segment = segment
        self.offset = offset
        self.size = size
        self.unit = unit
        self.kind = kind
        self.down = down

    @property
    def access(self):
        """The kind as an access of vmm/memory/paging.py: WRITE, or 0 for a read."""
        return WRITE if self.kind in (UPDATE, STORE) else 0


# {opcode: what}. Opcodes are numbered as in opcodes.py, 300h + byte after 0F3Ah. `what`: size for no prefix, 66, F3,
# F2 (one letter: the same for all), a blank, kind (rmw, "." for none). With ModR/M.reg as second opcode: a tuple of
# eight.
# Sizes in bytes: 1, 2, 4, 8, X 16, T 10, 0 none, - no such instruction; v operand size, y 4 or with W 8, d twice y,
# c that of near branches,
# x vector (16 or 32), h half, q a quarter, e an eighth of it, D MOVDDUP's; p far pointer, s pseudo-descriptor,
# b two bounds, n and N x87 environment and state, F FXSAVE image (written), G FXRSTOR image.
_SHIFT = ("v m",) * 8
_SHIFT_BYTE = ("1 m",) * 8
_X87 = (
    ("4 r",) * 8,
    ("4 r", None, "4 w", "4 w", "n r", "2 r", "n w", "2 w"),
    ("4 r",) * 8,
    ("4 r", "4 w", "4 w", "4 w", None, "T r", None, "T w"),
    ("8 r",) * 8,
    ("8 r", "8 w", "8 w", "8 w", "N r", None, "N w", "2 w"),
    ("2 r",) * 8,
    ("2 r", "2 w", "2 w", "2 w", "T r", "8 r", "T w", "8 w"),
)
_TABLE = {
    0x69: "v r", 0x6B: "v r", 0x8E: "2 r", 0xC0: _SHIFT_BYTE, 0xC1: _SHIFT, 0xD0: _SHIFT_BYTE, 0xD1: _SHIFT,
    0xD2: _SHIFT_BYTE, 0xD3: _SHIFT, 0xF6: (None, None, None, None, "1 r", "1 r", "1 r", "1 r"),
    0xF7: (None, None, None, None, "v r", "v r", "v r", "v r"),
    0xFF: (None, None, "c r", "p r", "c r", "p r", None, None),
    0x100: ("2 w", "2 w", "2 r", "2 r", "2 r", "2 r", None, None),
    0x101: ("s w", "s w", "s r", "s r", "2 w", None, "2 r", None), 0x102: "2 r", 0x103: "2 r", 0x10D: "0 .",
    0x110: "xx48 r", 0x111: "xx48 w", 0x112: "88xD r", 0x113: "88-- w", 0x114: "xx-- r", 0x115: "xx-- r",
    0x116: "88x- r", 0x117: "88-- w", 0x118: "0 .", 0x128: "xx-- r", 0x129: "xx-- w", 0x12A: "88yy r", 0x12B: "xx-- w",
    0x12C: "8X48 r", 0x12D: "8X48 r", 0x12E: "48-- r", 0x12F: "48-- r", 0x151: "xx48 r", 0x152: "x-4- r",
    0x153: "x-4- r", 0x154: "xx-- r", 0x155: "xx-- r", 0x156: "xx-- r", 0x157: "xx-- r", 0x158: "xx48 r",
    0x159: "xx48 r", 0x15A: "hx48 r", 0x15B: "xxx- r", 0x15C: "xx48 r", 0x15D: "xx48 r", 0x15E: "xx48 r",
    0x15F: "xx48 r", 0x160: "4x-- r", 0x161: "4x-- r", 0x162: "4x-- r", 0x16C: "-x-- r", 0x16D: "-x-- r",
    0x16E: "yy-- r", 0x16F: "8xx- r", 0x170: "8xxx r", 0x17C: "-x-x r", 0x17D: "-x-x r", 0x17E: "yy8- w",
    0x17F: "8xx- w", 0x1A4: "v m", 0x1A5: "v m", 0x1AC: "v m", 0x1AD: "v m", 0x1AF: "v r",
    0x1AE: ("F--- w", "G--- r", "4--- r", "4--- w", None, None, "-0-- .", "00-- ."), 0x1B2: "p r", 0x1B4: "p r",
    0x1B5: "p r", 0x1B8: "--v- r", 0x1BC: "v r", 0x1BD: "v r", 0x1C2: "xx48 r", 0x1C4: "22-- r", 0x1C6: "xx-- r",
    0x1C7: (None, "d m", None, None, None, None, None, None), 0x1D0: "-x-x r", 0x1D6: "-8-- w", 0x1E6: "-xhx r",
    0x1E7: "8x-- w", 0x1F0: "---x r", 0x2F0: "---1 r", 0x2F1: "---v r", 0x2F6: "-yy- r", 0x2F9: "y--- w",
    0x282: "-X-- r", 0x22A: "-x-- r", 0x30A: "-4-- r", 0x30B: "-8-- r", 0x30F: "8x-- r", 0x314: "-1-- w",
    0x315: "-2-- w", 0x316: "-y-- w", 0x317: "-4-- w", 0x320: "-1-- r", 0x321: "-4-- r", 0x322: "-y-- r",
    0x3CC: "x--- r",
}  # fmt: skip
_VEX = {
    0x20C: "-x-- r", 0x20D: "-x-- r", 0x20E: "-x-- r", 0x20F: "-x-- r", 0x213: "-h-- r", 0x216: "-x-- r",
    0x218: "-4-- r", 0x219: "-8-- r", 0x21A: "-X-- r", 0x236: "-x-- r", 0x258: "-4-- r", 0x259: "-8-- r",
    0x25A: "-X-- r", 0x278: "-1-- r", 0x279: "-2-- r", 0x245: "-x-- r", 0x246: "-x-- r", 0x247: "-x-- r",
    0x2F2: "y--- r", 0x2F3: (None, "y--- r", "y--- r", "y--- r", None, None, None, None), 0x2F5: "y-yy r",
    0x2F6: "---y r", 0x2F7: "yyyy r", 0x300: "-x-- r", 0x301: "-x-- r", 0x302: "-x-- r", 0x304: "-x-- r",
    0x305: "-x-- r", 0x306: "-x-- r", 0x318: "-X-- r", 0x319: "-X-- w", 0x31D: "-h-- w", 0x338: "-X-- r",
    0x339: "-X-- w", 0x346: "-x-- r", 0x34A: "-x-- r", 0x34B: "-x-- r", 0x34C: "-x-- r", 0x3F0: "---y r",
}  # fmt: skip
_NOT_64 = {0x62: "b r", 0x63: "2 m", 0xC4: "p r", 0xC5: "p r"}
_NO_MMX = b"\xd6\xd7\xe6\xe7\xf0\xf7"  # of the row D4-FE
_PUSHES = (0x68, 0x6A, 0x9C, 0x1A0, 0x1A8)
_POPS = (0x9D, 0x1A1, 0x1A9)
_XMM_SHIFTS = b"\xd1\xd2\xd3\xe1\xe2\xf1\xf2\xf3"  # their count is 16 bytes, whatever the vector's length


def _range(opcode):
    """Entries that hold for whole rows of the maps, where the tables have none."""
    low = opcode & 0xFF
    if opcode < 0x100:
        return _X87[low & 7] if 0xD8 <= low <= 0xDF else None
    if opcode < 0x200:
        if 0x19 <= low <= 0x1F:
            return "0 ."  # NOP and prefetches
        if low in _XMM_SHIFTS:
            return "8X-- r"
        if 0x63 <= low <= 0x6B or 0x74 <= low <= 0x76 or (0xD4 <= low <= 0xFE and low not in _NO_MMX):
            return "8x-- r"
        return None
    if opcode < 0x300:
        if low <= 0x0B or 0x1C <= low <= 0x1E:
            return "8x-- r"
        if low in b"\x10\x14\x15\x17\x28\x29\x2b\x37\xcf" or 0x38 <= low <= 0x41 or 0xDB <= low <= 0xDF:
            return "-x-- r"
        if 0x20 <= low <= 0x25 or 0x30 <= low <= 0x35:
            return "-%s-- r" % "hqehqh"[low & 7]
        return "x--- r" if 0xC8 <= low <= 0xCD else None
    if low in b"\x08\x09\x0c\x0d\x0e\x40\x41\x42\x44\xce\xcf\xdf":
        return "-x-- r"
    return "-X-- r" if 0x60 <= low <= 0x63 else None


class Operands:
    """find() for one vCPU. cpu: vmm.emulation.access.GuestCpu, whose Instruction and Emulator it uses."""

    def __init__(self, cpu):
        self._cpu = cpu
        self.opcode = 0
        self.reg = 0
        self._size = 0  # bytes: operand size
        self._vector = 0  # bytes: 16 or 32; 0: no VEX
        self._pp = 0  # mandatory prefix: none, 66, F3, F2
        self._wide = 0

    def find(self, code):
        """Return the memory operands of the instruction at the start of `code`, and leave its opcode in `opcode`.

        DecodeError where it is not known. Registers are those before the instruction.
        """
        insn = self._cpu.instruction
        insn.bits = self._cpu.bits
        try:
            at = self._opcode(insn, code, insn.prefixes(code, insn.bits))
            insn.length = length.length(code, insn.bits)
            stack = None if self._vector else self._stack(insn, code, at)
            if stack is not None:
                return stack
            return self._explicit(insn, code, at)
        except (IndexError, length.Unknown):
            raise DecodeError("cut off or too long: %s" % bytes(code).hex()) from None

    def _opcode(self, insn, code, at):
        """Read the opcode, by VEX or not; returns the offset behind it."""
        self._size = insn.size
        self._vector = 0
        self._wide = insn.rex & REX_W
        self._pp = {0xF3: 2, 0xF2: 3}.get(insn.rep, 1 if insn.operand_prefix else 0)
        opcode = code[at]
        at += 1
        if opcode in b"\xc4\xc5" and (insn.bits == 64 or code[at] >= 0xC0):
            return self._vex(insn, code, opcode, at)
        if opcode == 0x0F:
            opcode = 0x100 | code[at]
            at += 1
            if opcode in (0x138, 0x13A):
                opcode = (0x200 if opcode == 0x138 else 0x300) | code[at]
                at += 1
        self.opcode = opcode
        return at

    def _vex(self, insn, code, first, at):
        byte = code[at]
        insn.rex = 0 if byte & 0x80 else 4  # R, inverted
        opcode_map = 1
        if first == 0xC4:
            insn.rex |= (0 if byte & 0x40 else 2) | (0 if byte & 0x20 else 1)
            opcode_map = byte & 31
            at += 1
            byte = code[at]
            self._wide = byte & 0x80
        else:
            self._wide = 0
        if insn.bits != 64:
            insn.rex = 0
        self._pp = byte & 3
        self._vector = 32 if byte & 4 else 16
        self.opcode = opcode_map << 8 | code[at + 1]
        return at + 2

    def _what(self, bits, modrm):
        opcode = self.opcode
        what = None
        if self._vector:
            what = _VEX.get(opcode) or self._fused(opcode)
        elif bits != 64:
            what = _NOT_64.get(opcode)
        if what is None:
            what = _TABLE.get(opcode) or _range(opcode)
        if isinstance(what, tuple):
            what = what[modrm >> 3 & 7]
        return what

    def _fused(self, opcode):
        """FMA: from opcode 9 of each row on, the odd ones are scalar."""
        low = opcode & 15
        if opcode & 0x3F0 not in (0x290, 0x2A0, 0x2B0) or low < 6:
            return None
        if low >= 9 and low & 1:
            return "-8-- r" if self._wide else "-4-- r"
        return "-x-- r"

    def _explicit(self, insn, code, at):
        modrm = code[at]
        what = self._what(insn.bits, modrm) if modrm < 0xC0 else None
        if what is None:
            raise DecodeError("the access is not known: %s" % bytes(code).hex())
        sizes = what[: what.index(" ")]
        letter = sizes[self._pp] if len(sizes) == 4 else sizes
        kind = _KINDS.index(what[-1])
        if letter == "-":
            raise DecodeError("the access is not known: %s" % bytes(code).hex())
        if self.opcode == 0x17E and self._pp == 2:
            kind = READ  # MOVQ xmm, m64; the others store
        size, unit = self._bytes(letter, insn.bits)
        self.reg = modrm >> 3 & 7
        insn.locate(code, at)
        mask = (1 << 8 * insn.address_size) - 1
        out = [Operand(insn.segment, self._cpu.emulator.offset(insn) & mask, size, unit, kind)]
        if self.opcode == 0xFF and self.reg == 2:
            out.append(self._push(size))
        return out

    def _bytes(self, letter, bits):
        """(bytes of an operand, bytes of each access) for a size letter."""
        y = 8 if self._wide else 4
        if letter == "0":
            size = 1
        elif letter in "1248":
            size = ord(letter) - 48
        elif letter in "xhqe":
            size = (self._vector or _VECTOR) >> "xhqe".index(letter)
        elif letter == "c":  # near CALL and JMP
            size = 8 if bits == 64 else self._size
        elif letter in "nN":
            size = 14 if self._size == 2 else 28
            return (size if letter == "n" else size + 80), self._size if self._size < 8 else 4
        else:
            size = {
                "v": self._size, "y": y, "d": 2 * y, "X": 16, "T": 10, "D": 32 if self._vector == 32 else 8,
                "p": self._size + 2, "s": 10 if bits == 64 else 6, "b": 2 * self._size,
                "F": 416 if bits == 64 else 288, "G": 512,
            }[letter]  # fmt: skip
            if letter == "b":
                return size, self._size
        return size, 8 if size > 8 else size

    # -- the stack

    def _width(self):
        """Bytes of an operand of PUSH and POP."""
        if self._cpu.bits == 64:
            return 2 if self._size == 2 else 8
        return self._size

    def _top(self, delta, register=RSP):
        return self._cpu.reg(register) + delta & (1 << 8 * self._cpu.stack_size) - 1

    def _push(self, size, count=1):
        return Operand(SS, self._top(-size * count), size * count, size, STORE, True)

    def _pop(self, size, count=1):
        return Operand(SS, self._top(0), size * count, size, READ)

    def _stack(self, insn, code, at):
        """The operands of an instruction whose one memory operand is on the stack, or XLAT's; None for others."""
        op = self.opcode
        size = self._width()
        long_mode = insn.bits == 64
        if 0x50 <= op <= 0x57 or op in _PUSHES or (op in (6, 0xE, 0x16, 0x1E) and not long_mode):
            return [self._push(size)]
        if 0x58 <= op <= 0x5F or op in _POPS or (op in (7, 0x17, 0x1F) and not long_mode):
            return [self._pop(size)]
        if op == 0xE8:
            return [self._push(8 if long_mode else self._size)]
        if op in (0xC2, 0xC3):
            return [self._pop(8 if long_mode else self._size)]
        if op in (0x60, 0x61) and not long_mode:
            return [self._push(size, 8) if op == 0x60 else self._pop(size, 8)]
        if op == 0xC9:
            return [Operand(SS, self._top(0, _RBP), size, size, READ)]
        if op == 0xC8:
            return self._enter(size, code[at] | code[at + 1] << 8, code[at + 2] & 31)
        if op == 0xD7:
            mask = (1 << 8 * insn.address_size) - 1
            offset = self._cpu.reg(_RBX) + (self._cpu.reg(0) & 0xFF) & mask
            return [Operand(DS if insn.segment == NONE else insn.segment, offset, 1, 1, READ)]
        return None

    def _enter(self, size, room, level):
        """ENTER: push of rBP, the outer frame pointers, and the check of the page at the final rSP."""
        out = [self._push(size, level + 1)]
        if level > 1:
            count = size * (level - 1)
            out.append(Operand(SS, self._top(-count, _RBP), count, size, READ))
        out.append(Operand(SS, self._top(-size * (level + 1) - room), 1, 1, NOTHING))
        return out
