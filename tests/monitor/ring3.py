"""Guest code at CPL 3: ring3() enters it by SYSRET; RESUME handlers note a fault and go on behind it."""

import struct

from bench import DATA, STACK
from pcanel.assemble import assemble

USER = 0x301000
CODE_SELECTOR, DATA_SELECTOR = 0x2B, 0x23
_GDTR, _GDT = DATA + 0x8000, DATA + 0x8100
_TSS_RSP0 = 4  # TR has base 0
_TSS_IO_MAP = 0x66
_STACK = DATA + 0x9800

# The second page of 2 MiB, with DATA and USER in it, is the user's too.
_ENTER = f"""
    mov rsi, 0x9000
    or qword ptr [rsi], 4
    mov rsi, 0xa000
    or qword ptr [rsi], 4
    mov rsi, 0xb008
    or qword ptr [rsi], 4
    mov rax, cr3; mov cr3, rax
    mov ecx, 0xc0000080; rdmsr; or eax, 1; wrmsr
    mov ecx, 0xc0000081; xor eax, eax; mov edx, 0x00180010; wrmsr
    lgdt [{_GDTR:#x}]
    mov rsp, {_STACK:#x}
"""
_GDT_ENTRIES = (0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)

# R15: where the vector is stored; R14: bytes of the instruction.
RESUME = {
    6: "mov qword ptr [r15], 6; add [rsp], r14; iretq",
    13: "mov qword ptr [r15], 13; add rsp, 8; add [rsp], r14; iretq",
}


def ring3(guest, before: str, code: str, **options):
    """A guest that runs `before` at CPL 0 and then `code` at CPL 3, 64 bits."""
    return guest(f"{before}\n{enter(USER)}", data={**tables(), USER: assemble(code, 64, USER)}, **options)


def enter(rip: int, compatible: bool = False) -> str:
    """To CPL 3 at `rip`: 64-bit, or 32-bit code."""
    sysret = ".byte 0x0f, 0x07" if compatible else ".byte 0x48, 0x0f, 0x07"
    return f"{_ENTER}\nmov rcx, {rip:#x}\nmov r11, 2\n{sysret}"


def tables() -> dict[int, bytes]:
    """What enter() needs in memory."""
    return {
        _GDTR: struct.pack("<HQ", 8 * len(_GDT_ENTRIES) - 1, _GDT),
        _GDT: struct.pack(f"<{len(_GDT_ENTRIES)}Q", *_GDT_ENTRIES),
        _TSS_RSP0: struct.pack("<Q", STACK),
        _TSS_IO_MAP: b"\xff\xff",  # beyond the limit: no port
    }


def tried(instructions, at: int) -> str:
    """Each instruction once; its vector, or ~0 where it did not fault, goes to at, at + 8, ..."""
    lines = []
    for i, instruction in enumerate(instructions):
        size = len(assemble(instruction, 64, USER))
        lines += [f"mov r15, {at + 8 * i:#x}", "mov qword ptr [r15], -1", f"mov r14d, {size}", instruction]
    return "\n".join(lines)
