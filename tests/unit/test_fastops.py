"""vmm/emulation/fastops.py does what vmm/emulation/emulate.py does, with all that it takes."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realcpu import FLAGS, assemble
from test_emulate import Model, code_of, forms

from vmm.emulation import fastmov, fastops, opcodes
from vmm.emulation.decode import NONE, RIP, DecodeError, Instruction
from vmm.emulation.emulate import Emulator
from vmm.vtx.frame import DIRTY, DIRTY_RFLAGS, RFLAGS

BASE = 0x5000
AT = 0x20
RBX = 3
TEXTS = sorted(set(forms()))
WORD = st.integers(0, 2**64 - 1) | st.sampled_from(
    [0, 1, 0x7F, 0x80, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 2**64 - 1]
)


def executed(code, registers, memory, bits=64):
    """Registers with RFLAGS, and memory, after the emulator and after fastops; None where that does not take it."""
    insn = Instruction().decode(code, bits)
    number, immediate, _ = fastops.encode(insn)
    if not number:
        return None
    assert number & fastmov.OTHER and number & 15 == insn.length and not number >> 31
    model = Model(registers, memory, BASE)
    model.bits = bits
    Emulator(model).execute(insn)
    frame = bytearray(0x1000)
    struct.pack_into("<16Q", frame, 0, *registers[:16])
    struct.pack_into("<Q", frame, 4 * RFLAGS, registers[FLAGS])
    data = bytearray(memory)

    def read(offset, size):
        return int.from_bytes(data[offset : offset + size], "little")

    def write(offset, size, value):
        assert 0 <= value < 1 << 8 * size
        data[offset : offset + size] = value.to_bytes(size, "little")

    fastops.operate(number, immediate, read, write, AT, frame)
    words = [*struct.unpack_from("<16Q", frame), struct.unpack_from("<Q", frame, 4 * RFLAGS)[0]]
    dirty = struct.unpack_from("<I", frame, 4 * DIRTY)[0]
    assert words[FLAGS] == registers[FLAGS] or dirty == DIRTY_RFLAGS
    return (model.words, model.memory), (words, data)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(TEXTS), st.lists(WORD, min_size=16, max_size=16), st.integers(0, 0xFFF), WORD)
def test_the_same_as_the_emulator(text, registers, flags, value):
    if text.startswith("bt"):  # the exit's gpa is that of the bit's own bytes
        registers = [word & 15 for word in registers]
    registers = [*registers, flags & 0xCD5 | 2]
    registers[RBX] = BASE + AT
    registers[6] = registers[7] = BASE + AT
    memory = bytearray(0x40)
    memory[AT : AT + 8] = value.to_bytes(8, "little")
    both = executed(code_of(text), registers, memory)
    if both:
        assert both[0] == both[1]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_taken(text):
    insn = Instruction().decode(code_of(text), 64)
    taken = fastops.encode(insn)[0] != 0
    simple = insn.form not in (opcodes.STRING, opcodes.E_S) and insn.op not in (
        opcodes.PUSH,
        opcodes.POP,
        opcodes.MOVBE,
    )
    moves = insn.op in (opcodes.MOV, opcodes.MOVZX, opcodes.MOVSX)
    assert taken == (simple and (moves or insn.mem_size < 8))


@pytest.mark.parametrize(
    "text",
    ["or dword ptr [bx], 1", "lock xadd [bx], ax", "mov eax, [bx]", "lock bts dword ptr [bx], 5", "mov [bx], ah"],
)
def test_16_bit_code(text):
    registers = [0x1122334455667788 + n for n in range(16)] + [2]
    registers[RBX] = BASE + AT
    both = executed(assemble(text, 16), registers, bytearray(range(0x40)), 16)
    assert both[0] == both[1]


@settings(max_examples=500, deadline=None)
@given(st.binary(min_size=15, max_size=15), st.sampled_from([32, 64]))
def test_where_the_operand_is(tail, bits):
    """address() of fastmov.py and encode() say what the decoder says."""
    for head in (b"\x8b", b"\x44\x89", b"\x66\x89", b"\x0f\xb6", b"\x43\x8a", b"\xc7", b"\xa1"):
        code = (head + tail)[:15]
        number = fastmov.decode(code, bits)
        try:
            insn = Instruction().decode(code, bits)
        except DecodeError:
            continue
        place = fastops.encode(insn)[2]
        if number:
            assert fastmov.address(code, bits) == place
        if place:
            base = {RIP: fastmov.BASE_RIP, NONE: fastmov.BASE_NONE}.get(insn.base, insn.base)
            assert place & 31 == base and place >> 15 == insn.disp & 0xFFF
