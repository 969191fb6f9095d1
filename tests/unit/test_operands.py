"""vmm/emulation/operands.py against capstone: the size of the memory operand, and whether it is read or written."""

import itertools

import capstone
import pytest
from capstone import x86
from realcpu import assemble

from vmm.emulation.decode import SS, DecodeError, Instruction
from vmm.emulation.emulate import Emulator
from vmm.emulation.operands import NOTHING, READ, STORE, UPDATE, Operands

MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
ENGINES = {bits: capstone.Cs(capstone.CS_ARCH_X86, mode) for bits, mode in MODES.items()}
for engine in ENGINES.values():
    engine.detail = True

PREFIXES = (b"", b"\x66", b"\xf3", b"\xf2", b"\x48", b"\x66\x48", b"\xf3\x48", b"\xf2\x48")
MAPS = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")
NO_OPCODES = b"\x0f\x26\x2e\x36\x3e\x62\x64\x65\x66\x67\xc4\xc5\xf0\xf2\xf3"
REST = bytes((0, 0, 0, 0, 0, 0))
# Sizes that capstone does not say, or says wrong; None: they have a case of their own below.
SIZES = {
    "sgdt": 10, "sidt": 10, "lgdt": 10, "lidt": 10, "fxsave": 416, "fxsave64": 416, "fxrstor": 512, "fxrstor64": 512,
    "fnsave": None, "frstor": None, "fnstenv": None, "fldenv": None, "fbld": 10, "fbstp": 10, "crc32": None, "str": 2,
    "call": None, "jmp": None, "lcall": None, "ljmp": None, "lfs": None, "lgs": None, "lss": None, "bsf": None,
    "bsr": None, "sldt": 2, "smsw": 2, "lmsw": 2, "lar": 2, "lsl": 2, "movddup": None, "cvtdq2pd": 8, "cvtps2pd": 8,
    "cvtpi2pd": 8, "cvtpi2ps": 8, "cvttps2pi": 8, "cvtps2pi": 8, "cvttpd2pi": 16, "cvtpd2pi": 16, "pinsrw": 2,
    "pextrw": 2, "comisd": 8,
}  # fmt: skip
UPDATES = {
    "rol", "ror", "rcl", "rcr", "shl", "sal", "shr", "sar", "shld", "shrd", "cmpxchg8b", "cmpxchg16b", "arpl",
}  # fmt: skip
ONE_OPERAND_READ = {
    "mul", "imul", "div", "idiv", "lldt", "ltr", "verr", "verw", "lgdt", "lidt", "lmsw", "call", "jmp", "lcall", "ljmp",
    "ldmxcsr", "vldmxcsr",
}  # fmt: skip
NO_DATA = ("prefetch", "clflush", "clwb", "nop", "cldemote", "bnd")


class Guest:
    """The part of GuestCpu that operands are found by: every register holds its number times 10000h."""

    stack_size = 8
    rip = 0x1000
    rflags = 2

    def __init__(self, bits=64):
        self.bits = bits
        self.instruction = Instruction()
        self.emulator = Emulator(self)

    def reg(self, n):
        return n * 0x10000


def find(code, bits=64, stack_size=None):
    guest = Guest(bits)
    guest.stack_size = stack_size or bits // 8
    return Operands(guest).find(code)


def codes():
    for opcode_map, prefix, opcode, reg in itertools.product(MAPS, PREFIXES, range(256), range(8)):
        if opcode in (0x38, 0x3A) if opcode_map == b"\x0f" else opcode in NO_OPCODES and not opcode_map:
            continue
        if opcode_map or opcode >> 4 != 4:
            yield prefix + opcode_map + bytes((opcode, reg << 3 | 3)) + REST
    for opcode_map, w, length, pp, opcode, reg in itertools.product(
        (1, 2, 3), (0, 1), (0, 1), range(4), range(256), (1, 2)
    ):
        yield bytes((0xC4, 0xE0 | opcode_map, w << 7 | 0x78 | length << 2 | pp, opcode, reg << 3 | 3)) + REST


def memory_operand(theirs):
    for operand in theirs.operands:
        if operand.type == x86.X86_OP_MEM:
            return operand
    return None


def kind_of(theirs, name):
    """By the SDM: capstone's own word on access is not reliable."""
    if name in UPDATES:
        return UPDATE
    if name.startswith("f"):
        return STORE if name.startswith(("fst", "fist", "fnst", "fnsave", "fbstp", "fxsave")) else READ
    first = theirs.operands[0].type == x86.X86_OP_MEM
    return STORE if first and name not in ONE_OPERAND_READ else READ


def test_size_and_kind_are_those_of_capstone():
    compared = set()
    wrong = set()
    for code in codes():
        try:
            found = find(code)
        except DecodeError:
            continue
        theirs = next(ENGINES[64].disasm(code, 0x1000, 1), None)
        if theirs is None or memory_operand(theirs) is None:
            continue
        name = theirs.mnemonic.split()[-1]
        if name.startswith(NO_DATA):
            assert found[0].kind == NOTHING, theirs
            continue
        size = SIZES.get(name, memory_operand(theirs).size)
        if found[0].offset != 0x30000 or size not in (None, found[0].size) or kind_of(theirs, name) != found[0].kind:
            wrong.add((name, code[: theirs.size].hex(), theirs.op_str, size, found[0].size, found[0].kind))
        compared.add(name)
    assert not wrong, "\n".join(map(str, sorted(wrong)))
    assert len(compared) > 450, len(compared)


@pytest.mark.parametrize(
    "text, bits, want",
    [
        ("push rax", 64, [(0x3FFF8, 8, 8, STORE)]),
        ("push ax", 64, [(0x3FFFE, 2, 2, STORE)]),
        ("push -1", 64, [(0x3FFF8, 8, 8, STORE)]),
        ("push 0x12345", 32, [(0x3FFFC, 4, 4, STORE)]),
        ("push fs", 64, [(0x3FFF8, 8, 8, STORE)]),
        ("pop rax", 64, [(0x40000, 8, 8, READ)]),
        ("pop gs", 64, [(0x40000, 8, 8, READ)]),
        ("pushfq", 64, [(0x3FFF8, 8, 8, STORE)]),
        ("popfq", 64, [(0x40000, 8, 8, READ)]),
        ("pushad", 32, [(0x3FFE0, 32, 4, STORE)]),
        ("popaw", 32, [(0x40000, 16, 2, READ)]),
        ("leave", 64, [(0x50000, 8, 8, READ)]),
        ("enter 0x20, 0", 64, [(0x3FFF8, 8, 8, STORE), (0x3FFD8, 1, 1, NOTHING)]),
        ("enter 0x20, 3", 32, [(0x3FFF0, 16, 4, STORE), (0x4FFF8, 8, 4, READ), (0x3FFD0, 1, 1, NOTHING)]),
        ("ret", 64, [(0x40000, 8, 8, READ)]),
        ("ret 8", 32, [(0x40000, 4, 4, READ)]),
        ("call 0x1234", 64, [(0x3FFF8, 8, 8, STORE)]),
    ],
)
def test_stack(text, bits, want):
    found = find(assemble(text, bits) + REST, bits)
    assert [(o.offset, o.size, o.unit, o.kind) for o in found] == want
    assert all(o.segment == SS and o.down == (o.kind == STORE) for o in found)


@pytest.mark.parametrize(
    "code, bits, want",
    [
        ("ff13", 64, [(0x30000, 8, 8, READ), (0x3FFF8, 8, 8, STORE)]),  # CALL [RBX]
        ("66ff13", 32, [(0x30000, 2, 2, READ), (0x3FFFE, 2, 2, STORE)]),
        ("ff23", 32, [(0x30000, 4, 4, READ)]),  # JMP [EBX]
        ("ff2b", 32, [(0x30000, 6, 6, READ)]),  # JMP FAR [EBX]
        ("48ff2b", 64, [(0x30000, 10, 8, READ)]),
        ("1f", 32, [(0x40000, 4, 4, READ)]),  # POP DS
        ("d7", 64, [(0x30000, 1, 1, READ)]),  # XLAT
        ("6203", 32, [(0x30000, 8, 4, READ)]),  # BOUND EAX, [EBX]
        ("6303", 32, [(0x30000, 2, 2, UPDATE)]),  # ARPL [EBX], AX
        ("c403", 32, [(0x30000, 6, 6, READ)]),  # LES EAX, [EBX]
        ("c507", 16, [(0, 4, 4, READ)]),  # LDS AX, [BX]
        ("480fb203", 64, [(0x30000, 10, 8, READ)]),  # LSS RAX, [RBX]
        ("0f0103", 32, [(0x30000, 6, 6, STORE)]),  # SGDT
        ("d923", 32, [(0x30000, 28, 4, READ)]),  # FLDENV
        ("66d933", 32, [(0x30000, 14, 2, STORE)]),  # FNSTENV
        ("dd33", 32, [(0x30000, 108, 4, STORE)]),  # FNSAVE
        ("66dd23", 32, [(0x30000, 94, 2, READ)]),  # FRSTOR
        ("0fae03", 32, [(0x30000, 288, 8, STORE)]),  # FXSAVE
        ("f20f38f103", 64, [(0x30000, 4, 4, READ)]),  # CRC32 EAX, DWORD [RBX]
        ("66f20f38f103", 64, [(0x30000, 2, 2, READ)]),
        ("f20f1203", 64, [(0x30000, 8, 8, READ)]),  # MOVDDUP
        ("c5ff1203", 64, [(0x30000, 32, 8, READ)]),
        ("c4c17c100c9f", 64, [(0x1B0000, 32, 8, READ)]),  # VMOVUPS YMM1, [R15 + RBX * 4]
        ("0f1005f8ffffff", 64, [(0xFFF, 16, 8, READ)]),  # MOVUPS XMM0, [RIP - 8]
    ],
)
def test_operands(code, bits, want):
    found = find(bytes.fromhex(code) + REST, bits)
    assert [(o.offset, o.size, o.unit, o.kind) for o in found] == want


@pytest.mark.parametrize(
    "code",
    [
        "62f17c481003",  # VMOVUPS ZMM0, [RBX]
        "c4e2792c03",  # VMASKMOVPS
        "c4e279900498",  # VPGATHERDD
        "0fae23",  # XSAVE
        "cf",  # IRET
        "cb",  # far RET
        "cd80",  # INT
        "0f58c1",  # ADDPS of registers
        "f7c300000000",
        "0f",
    ],
)
def test_what_is_not_known_is_refused(code):
    with pytest.raises(DecodeError):
        find(bytes.fromhex(code))
