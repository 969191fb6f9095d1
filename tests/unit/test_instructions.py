"""vmm/debug/instructions.py against capstone: names of the usual instructions, targets of calls and jumps."""

import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.debug import instructions
from vmm.emulation.length import Unknown

MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
ENGINES = {bits: capstone.Cs(capstone.CS_ARCH_X86, mode) for bits, mode in MODES.items()}
AT = 0x7C00
BRANCHES = [b"\xe8", b"\xe9", b"\xeb", b"\x0f\x84", b"\x0f\x8f", b"\x74", b"\x7f", b"\xe2", b"\x66\xe8", b"\x66\xe9"]
CODE = {
    "55": "push", "5d": "pop", "c3": "ret", "f4": "hlt", "fa": "cli", "fb": "sti", "0f0b": "ud2", "cc": "int3",
    "cd80": "int", "0f30": "wrmsr", "0f32": "rdmsr", "0fa2": "cpuid", "0f05": "syscall", "0f01f8": "swapgs",
    "0f0118": "lidt", "0f0110": "lgdt", "0f00d8": "ltr", "31c0": "xor", "4801d8": "add", "4885c0": "test",
    "48ffc0": "inc", "f7f1": "div", "0fb6c0": "movzx", "480fafc3": "imul", "8d04c0": "lea", "c1e004": "shl",
    "f3a4": "rep movsb", "f0480fb10a": "lock cmpxchg", "0fc7f0": "rdrand", "0faee8": "lfence", "e620": "out",
}  # fmt: skip


@pytest.mark.parametrize("code", CODE)
def test_names(code):
    data = bytes.fromhex(code)
    line = instructions.decode(data + bytes(15 - len(data)), 64, AT)
    assert (line.name, len(line.code)) == (CODE[code], len(data))
    theirs = next(ENGINES[64].disasm(data, AT))
    assert theirs.mnemonic == line.name


@given(st.sampled_from(BRANCHES), st.binary(min_size=4, max_size=4), st.sampled_from([16, 32, 64]))
def test_targets(opcode, displacement, bits):
    code = opcode + displacement + bytes(8)
    theirs = next(ENGINES[bits].disasm(code, AT), None)
    if theirs is None or (bits == 64 and opcode[0] == 0x66) or (bits == 16 and opcode[0] != 0x66 and opcode[0] != 0x0F):
        if bits == 64 and opcode[0] == 0x66:
            return  # Intel's CPUs ignore the prefix there, capstone follows AMD's
    line = instructions.decode(code, bits, AT)
    assert line.target is not None and len(line.code) == theirs.size
    mask = {16: 0xFFFF, 32: 0xFFFFFFFF, 64: (1 << 64) - 1}[bits]
    if bits == 32 and opcode[0] == 0x66:
        return  # the target is cut to 16 bits by the CPU
    assert line.target & mask == int(theirs.op_str, 16) & mask


@given(st.binary(min_size=15, max_size=15), st.sampled_from([16, 32, 64]))
def test_any_bytes(code, bits):
    """It says what it knows, or that there is no instruction."""
    try:
        line = instructions.decode(code, bits, AT)
    except Unknown:
        return
    assert 1 <= len(line.code) <= 15 and isinstance(line.text(hex), str)
