"""vmm/emulation/fastmov.py agrees with vmm/emulation/decode.py and vmm/emulation/emulate.py on everything it claims."""

import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st
from realcpu import assemble

from vmm.emulation import fastmov, fastops, opcodes
from vmm.emulation.decode import DecodeError, Instruction
from vmm.emulation.emulate import Emulator

BITS = st.sampled_from([16, 32, 64])
BYTES = st.sampled_from(
    [0x88, 0x89, 0x8A, 0x8B, 0xA0, 0xA1, 0xA2, 0xA3, 0xC6, 0xC7, 0x66, 0x0F, 0xB6, 0xB7, 0x40, 0x44, 0x48, 0x41]
)
CODE = st.builds(
    lambda head, tail: bytes(head) + tail,
    st.lists(BYTES, max_size=4),
    st.binary(min_size=15, max_size=15),
)


class OneOperand:
    """A vCPU whose memory operand is always the same one."""

    stack_size = 8
    rip = 0
    rflags = 2

    def __init__(self, registers, value):
        self.words = list(registers)
        self.value = value
        self.written = None

    def reg(self, n):
        return self.words[n]

    def set_reg(self, n, value):
        self.words[n] = value

    def operand(self, segment, offset, size, access):
        return size

    def load(self, operand):
        return self.value & ((1 << 8 * operand) - 1)

    def store(self, operand, value):
        self.written = value


@settings(max_examples=1500, deadline=None)
@given(CODE, BITS, st.lists(st.integers(0, 2**64 - 1), min_size=16, max_size=16), st.integers(0, 2**32 - 1))
@example(assemble("mov [rbx], ah").ljust(15, b"\0"), 64, [0x1122334455667788 + n for n in range(16)], 9)
@example(assemble("mov r12, [rcx + 0xf0]").ljust(15, b"\0"), 64, [2**64 - 1] * 16, 0x12345678)
@example(assemble("mov [r9], rdx").ljust(15, b"\0"), 64, [2**64 - 1] * 16, 0x12345678)
@example(assemble("mov r15w, [rbp + 8]").ljust(15, b"\0"), 64, [2**64 - 1] * 16, 0x12345678)
def test_agrees(code, bits, registers, value):
    number = fastmov.decode(code, bits)
    try:
        insn = Instruction().decode(code, bits)
    except DecodeError:
        assert number == 0
        return
    if number == 0:
        assert not claimed(insn, code)
        return
    assert insn.op in (opcodes.MOV, opcodes.MOVZX)
    assert number & fastmov.LENGTH == insn.length
    assert number >> 4 & 15 == insn.mem_size
    if insn.mem_size == 8:
        assert number == fastops.encode(insn)[0] & (1 << 27) - 1 != 0  # no condition
        return
    assert not number & fastmov.OTHER
    writes = opcodes.access(insn.op, insn.form) == opcodes.WRITE
    assert bool(number & fastmov.WRITE) == writes
    slow = OneOperand(registers, value)
    Emulator(slow).execute(insn)
    frame = bytearray(struct.pack("<16Q", *registers))
    if writes:
        assert fastmov.source(frame, number, code) == slow.written
    else:
        fastmov.load(frame, number, value & ((1 << 8 * insn.mem_size) - 1))
    assert list(struct.unpack("<16Q", frame)) == slow.words


def claimed(insn, code):
    """Whether fastmov should have taken it."""
    plain = insn.op in (opcodes.MOV, opcodes.MOVZX) and insn.form != opcodes.E_S and insn.opcode != 0x1C3
    wide = insn.mem_size == 8 and insn.form not in (opcodes.E_G, opcodes.G_E) or insn.bits == 16
    at = 1 if code[0] == 0x66 else 0
    at += 1 if insn.rex else 0
    direct = code[at] == insn.opcode if insn.opcode < 0x100 else code[at] == 0x0F  # few prefixes, in order
    return plain and not wide and direct and bool(insn.rex) == (insn.bits == 64 and code[at - 1] >> 4 == 4)


def test_linux_accesses():
    """What compilers make of readl and writel on an I/O APIC or a local APIC."""
    for text, write in (
        ("mov eax, [rdi + 0x10]", False),
        ("mov dword ptr [rax], ecx", True),
        ("mov dword ptr [rip + 0xb0], 0", True),
        ("mov edx, [0xffffffffff5fd030]", False),
        ("mov [r8 + 0x300], r9d", True),
    ):
        number = fastmov.decode(assemble(text).ljust(15, b"\0"), 64)
        assert number & fastmov.LENGTH == len(assemble(text))
        assert number >> 4 & 15 == 4 and bool(number & fastmov.WRITE) == write
