"""vmm/emulation/decode.py against capstone: length, operation, sizes, registers, address, direction."""

import capstone
import pytest
from capstone import x86
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from vmm.emulation import opcodes
from vmm.emulation.decode import NONE, RIP, DecodeError, Instruction

MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
ENGINES = {bits: capstone.Cs(capstone.CS_ARCH_X86, mode) for bits, mode in MODES.items()}
for engine in ENGINES.values():
    engine.detail = True

NUMBERS = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"]
SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs"]
CONDITIONS = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"]
STRINGS = {"movs", "cmps", "stos", "lods", "scas"}


def number(name):
    """Register number of a capstone register name; RIP; byte registers AH..BH are 4-7."""
    if name in ("rip", "eip"):
        return RIP
    if name in ("ah", "ch", "dh", "bh"):
        return 4 + "acdb".index(name[0])
    if name[0] == "r" and name[1].isdigit():
        return int(name[1:].rstrip("bwd"))
    short = name[1:] if name[0] in "re" and len(name) == 3 else name
    if short in NUMBERS:
        return NUMBERS.index(short)
    return NUMBERS.index(short[0] + "x" if short in ("al", "cl", "dl", "bl") else short[:-1])


def mnemonic(insn):
    name = opcodes.NAMES[insn.op]
    if insn.op in (opcodes.SETCC, opcodes.CMOV):
        name += CONDITIONS[insn.cond]
    return name


def their_mnemonic(theirs):
    words = theirs.mnemonic.split()
    name = [w for w in words if w not in ("lock", "rep", "repe", "repne", "xacquire", "xrelease")][0]
    if name == "movabs" or name == "movnti":
        return "mov"
    if name == "movsxd":
        return "movsx"
    if name[:4] in STRINGS and name[4:] in ("b", "w", "d", "q"):
        return name[:4]
    return name


def compare(code, bits):
    """Decodes by both; returns ours."""
    ours = Instruction().decode(code, bits)
    theirs = next(ENGINES[bits].disasm(code, 0, 1), None)
    if theirs is None and ours.opcode == 0x63:
        return ours  # capstone knows no MOVSXD with an address-size prefix
    assert theirs is not None, "capstone rejects it"
    assert ours.length == theirs.size, theirs
    assert mnemonic(ours) == their_mnemonic(theirs), theirs
    memory = [o for o in theirs.operands if o.type == x86.X86_OP_MEM]
    if mnemonic(ours) in STRINGS:
        assert {o.size for o in memory} == {ours.size}
        assert ours.address_size == theirs.addr_size
        return ours
    assert len(memory) == 1, theirs
    operand = memory[0]
    assert ours.mem_size == operand.size or wrong_size(ours, theirs), theirs
    assert ours.address_size == theirs.addr_size, theirs
    check_address(ours, operand, theirs)
    registers = [o for o in theirs.operands if o.type == x86.X86_OP_REG]
    if registers and ours.form != opcodes.E_S:
        names = [theirs.reg_name(o.reg) for o in registers]
        assert [number(name) for name in names] == [ours.reg], theirs
        assert registers[0].size == ours.size, theirs
        high = names[0] in ("ah", "ch", "dh", "bh")
        assert high == (ours.size == 1 and not ours.rex and 4 <= ours.reg < 8)
    elif registers:
        assert theirs.reg_name(registers[0].reg) == SEGMENTS[ours.reg]
    immediates = [o for o in theirs.operands if o.type == x86.X86_OP_IMM]
    if immediates:
        # BT and its kin mask their immediate: only its low byte says something.
        mask = 0xFF if opcodes.BT <= ours.op <= opcodes.BTC else (1 << 8 * ours.size) - 1
        assert ours.imm & mask == immediates[0].imm & mask, theirs
    assert opcodes.access(ours.op, ours.form) == direction(ours, operand), theirs
    return ours


def direction(ours, operand):
    """Capstone's access flags, mended where it is known to be wrong."""
    if ours.op in (opcodes.TEST, opcodes.CMP, opcodes.BT):
        return opcodes.READ
    if ours.op == opcodes.MOV and ours.form in (opcodes.E_G, opcodes.E_I, opcodes.E_S, opcodes.O_A):
        return opcodes.WRITE
    if ours.op == opcodes.CMPXCHG:
        return opcodes.READ | opcodes.WRITE
    if ours.op == opcodes.SETCC:
        return opcodes.WRITE
    return operand.access


def wrong_size(ours, theirs):
    """MOVSXD r16, r/m16, and MOVBE, PUSH and POP with both 66h and REX.W, where capstone errs (SDM Vol. 2)."""
    if theirs.opcode[0] == 0x63:
        return ours.size == 2
    return ours.op in (opcodes.MOVBE, opcodes.PUSH, opcodes.POP) and ours.rex & 8 and 0x66 in theirs.prefix


def check_address(ours, operand, theirs):
    mem = operand.mem
    base = number(theirs.reg_name(mem.base)) if mem.base else NONE
    index = NONE
    if mem.index and theirs.reg_name(mem.index) not in ("eiz", "riz"):
        index = number(theirs.reg_name(mem.index))
    assert (ours.base, ours.index) == (base, index), theirs
    if index != NONE:
        assert ours.scale == mem.scale, theirs
    mask = (1 << 8 * ours.address_size) - 1
    assert ours.disp & mask == mem.disp & mask, theirs
    # Capstone names overrides that 64-bit mode ignores.
    name = theirs.reg_name(mem.segment) if mem.segment else None
    if name and (ours.bits != 64 or name in ("fs", "gs")):
        assert SEGMENTS[ours.segment] == name, theirs


SOME = [0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65]
PREFIXES = st.lists(st.sampled_from(SOME), max_size=2, unique=True)
OPCODES = [n for n in range(0x300) if opcodes.FORMS[n]]
ESCAPES = {0: b"", 1: b"\x0f", 2: b"\x0f\x38"}
PLAIN = (0x66, 0x67, 0x64, 0x65, 0x26, 0x2E, 0x36, 0x3E)


@settings(max_examples=1200, deadline=None)
@given(
    st.sampled_from([16, 32, 64]),
    PREFIXES,
    st.none() | st.integers(0x40, 0x4F),
    st.sampled_from(OPCODES),
    st.integers(0, 0xBF),
    st.binary(min_size=14, max_size=14),
)
@example(64, [], None, 0x88, 0x24, bytes(14))
@example(64, [], 0x40, 0x88, 0x24, bytes(14))
@example(64, [0x67], None, 0x8B, 0x05, bytes(14))
@example(64, [0x67], None, 0x63, 0, bytes(14))
@example(64, [0x66], 0x48, 0x2F0, 0, bytes(14))
@example(64, [0x66], None, 0x63, 0, bytes(14))
@example(32, [], None, 0xA1, 0, b"\xf0\x00\xee\xfe" + bytes(10))
def test_every_opcode(bits, prefixes, rex, opcode, modrm, tail):
    string = opcodes.FORMS[opcode] == opcodes.STRING
    prefixes = [p for p in prefixes if p in PLAIN or string and p != 0xF0]
    assume(not (0xF2 in prefixes and 0xF3 in prefixes))
    code = bytes(prefixes) + (bytes([rex]) if rex and bits == 64 else b"")
    code += ESCAPES[opcode >> 8] + bytes([opcode & 0xFF])
    if opcodes.FORMS[opcode] in (opcodes.STRING, opcodes.A_O, opcodes.O_A):
        code += tail
    else:
        code += bytes([modrm]) + tail
    try:
        compare(code, bits)
    except DecodeError:
        assert not known(code, bits), code.hex()


KNOWN = set(opcodes.NAMES) | {"cmov" + c for c in CONDITIONS} | {"set" + c for c in CONDITIONS}


def known(code, bits):
    """Whether capstone sees an instruction that the decoder claims to know."""
    theirs = next(ENGINES[bits].disasm(code, 0, 1), None)
    if theirs is None or their_mnemonic(theirs) not in KNOWN or theirs.size > 15:
        return False
    if not any(o.type == x86.X86_OP_MEM for o in theirs.operands):
        return False
    kinds = [o for o in theirs.operands if o.type == x86.X86_OP_REG]
    registers = [theirs.reg_name(o.reg) for o in kinds]
    if any(r[:2] in ("mm", "xm", "ym", "cr", "dr", "st", "k0") for r in registers):
        return False
    if theirs.mnemonic == "movnti" and {0x66, 0xF2, 0xF3} & set(theirs.prefix):
        return False  # SDM: NP
    to_segment = theirs.opcode[0] == 0x8E  # MOV to a segment register: not emulated
    return not to_segment


@settings(max_examples=1200, deadline=None)
@given(st.sampled_from([16, 32, 64]), st.binary(min_size=15, max_size=15))
def test_random_bytes(bits, code):
    try:
        Instruction().decode(code, bits)
    except DecodeError:
        assert not known(code, bits), code.hex()
    else:
        if next(ENGINES[bits].disasm(code, 0, 1), None) is not None:
            compare(code, bits)


@given(st.sampled_from([16, 32, 64]), st.binary(max_size=20))
def test_only_decode_errors(bits, code):
    try:
        assert 2 <= Instruction().decode(code, bits).length <= 15 or code[0] in range(0xA4, 0xB0)
    except DecodeError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "code, words",
    [
        ("0fa2", "is not emulated"),
        ("89c3", "no memory operand"),
        ("8b", "cut off"),
        ("8b05000000", "cut off"),
        ("66" * 15 + "8b07", "longer than 15"),
        ("c5fc2807", "is not emulated"),
    ],
)
def test_refusals(code, words):
    with pytest.raises(DecodeError, match=words):
        Instruction().decode(bytes.fromhex(code), 64)
