"""Guests that tests put under gdb."""

import struct
import subprocess

from bench import CODE, DATA
from pcanel.assemble import assemble

LOOP = f"""
    mov rbx, {DATA:#x}
    nop
again:
    inc qword ptr [rbx]
    inc rcx
    mov [rbx + 0x100], rcx
    mov rdx, [rbx + 0x200]
    jmp again
"""
NOP = CODE + 14
INC = CODE + 15
COUNT = INC + 3
STORED = COUNT + 10  # the instruction after the one that stores RCX
READ = STORED + 7  # the one after that, which reads

# Real mode, then 32-bit code at CODE32, then 64-bit code at CODE64.
CODE32 = 0x8000
CODE64 = 0x9000
_GDT, _GDTR, _TABLES = 0x6000, 0x6100, 0xA000
SWITCH = f"""
    cli
    xor ax, ax
    mov ds, ax
    mov bx, 0x1234
    lgdt [{_GDTR:#x}]
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0xea, 0x00, 0x80, 0x08, 0x00
"""
_SWITCH32 = f"""
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov esp, 0x7000
    mov ebx, 0x12345678
    push ebx
    mov eax, {_TABLES:#x}
    mov cr3, eax
    mov eax, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
"""
SWITCH_DATA = {
    _GDT: struct.pack("<4Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF),
    _GDTR: struct.pack("<HI", 31, _GDT),
    CODE32: assemble(_SWITCH32, 32, CODE32) + b"\xea" + struct.pack("<IH", CODE64, 0x18),
    CODE64: assemble("mov rax, 0x1122334455667788\nmov r9, rax\nagain: inc r10\njmp again", 64, CODE64),
    _TABLES: struct.pack("<Q", _TABLES + 0x1007),
    _TABLES + 0x1000: struct.pack("<Q", _TABLES + 0x2007),
    _TABLES + 0x2000: struct.pack("<Q", 0x87),
}

# A program with lines and local variables.
PROGRAM = """volatile long total;
long square(long n)
{
    long value = n * n;
    return value;
}
long sum(long n)
{
    long all = 0;
    for (long i = 0; i < n; i++)
        all += square(i);
    return all;
}
void work(void)
{
    for (;;) {
        total += sum(100);
        total += square(3);
    }
}
"""
WORK = 0x110000
_GCC = (
    "gcc", "-g", "-O0", "-ffreestanding", "-fno-pic", "-no-pie", "-mno-red-zone", "-fcf-protection=none", "-nostdlib",
    "-static", f"-Wl,-Ttext={WORK:#x}", f"-Wl,-Tbss={DATA:#x}", "-Wl,-e,work",
)  # fmt: skip


def program(directory):
    """Compile PROGRAM: (its ELF, its code for WORK)."""
    source, elf, code = directory / "work.c", directory / "work.elf", directory / "work.bin"
    source.write_text(PROGRAM)
    subprocess.run([*_GCC, "-o", elf, source], check=True, cwd=directory)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", elf, code], check=True)
    return elf, code.read_bytes()
