"""vmm/emulation/branches.py against the assembler's words for instructions."""

import pytest
from realcpu import assemble

from vmm.emulation.branches import transfers

YES = (
    "jmp 0x10", "jne 0x10", "jne 0x1000", "call 0x1000", "ret", "ret 8", "call rax", "jmp [rdi]", "loop 0x10",
    "jrcxz 0x10", "int 0x80", "int3", "iretq", "syscall", "sysret", "jmp r12", "call [r8 + 8]", "retfq",
)  # fmt: skip
NO = (
    "nop", "mov eax, [rdi]", "inc dword ptr [rdi]", "push [rdi]", "lea rax, [rip + 5]", "cpuid", "rep movsb", "hlt",
    "setne al", "cmovne eax, ecx", "movzx eax, byte ptr [rdi]", "lock xadd [rdi], eax",
)  # fmt: skip


@pytest.mark.parametrize("text", YES)
def test_transfers(text):
    assert transfers(assemble(text, 64), 64)


@pytest.mark.parametrize("text", NO)
def test_others(text):
    assert not transfers(assemble(text, 64), 64)


def test_prefixes_and_other_modes():
    assert transfers(b"\x66\xe9\0\0", 16) and transfers(b"\xf3\xc3", 64)
    assert not transfers(b"\x40\xc3", 32) and transfers(b"\x40\xc3", 64)  # INC EAX, and a REX prefix
