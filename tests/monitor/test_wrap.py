"""RIP where it leaves 32 bits: EIP goes round at 4 GiB, in 64-bit mode RIP goes on."""

import struct

import pytest
from bench import DATA, STACK
from pcanel.assemble import assemble
from ring3 import enter, tables

TOP = 1 << 32
GOOD = 0x600D

# 32-bit protected mode, code segment with a base: the linear address at which EIP is 0 is RAM.
BASE = 0x300010
FLAT = 0x00CF9B000000FFFF
GDTR, GDT = DATA + 0x40, DATA + 0x80
CODE_32 = struct.pack("<5Q", 0, 0, FLAT, 0x00CF93000000FFFF, FLAT | (BASE & 0xFFFFFF) << 16 | BASE >> 24 << 56)
NOTE_32 = assemble(f"mov eax, {DATA:#x}\nmov dword ptr [eax], {GOOD:#x}\nhlt", 32, 0)
NOTE_64 = assemble(f"mov eax, {DATA:#x}\nmov dword ptr [rax], {GOOD:#x}\nhlt", 64, 0)

# What exits, and the emulator's own advance; EBX is where a device answers.
INSTRUCTIONS = {
    "none": "mov eax, eax",
    "CPUID": "cpuid",
    "IN": "in al, 0x80",
    "INS": "insb",
    "RDMSR": "mov ecx, 0x10; rdmsr",
    "VMCALL": "vmcall",
    "MOV from a device": "mov eax, [ebx]",
    "ADD to a device": "add dword ptr [ebx], 0",
    "MOV to CR0": "mov eax, cr0; mov cr0, eax",
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_eip_goes_round(guest, name):
    code = assemble(INSTRUCTIONS[name], 32, 0)
    start = TOP - len(code)
    data = {GDTR: struct.pack("<HI", len(CODE_32) - 1, GDT), GDT: CODE_32, BASE - len(code): code + NOTE_32}
    source = f"lgdt [{GDTR:#x}]\nmov ebx, 0xfec00000\nmov edi, {DATA + 0x100:#x}\nmov edx, 0x80\n"
    made = guest(
        source + f".byte 0xea\n.long {start:#x}\n.word 0x20",
        bits=32, mode="protected", on_triple_fault="stop", data=data,
    )  # fmt: skip
    made.until("vm.state in ('halted', 'stopped')")
    assert made.state == "halted", made.eval("vm.messages")
    assert made.word() == GOOD
    assert made.eval("vcpu.rip") == len(NOTE_32)


# The last page of 4 GiB is the user's RAM from 0x3FF000 on, and the one behind it is gpa 0.
MAP = """
    mov rsi, 0x9000
    or qword ptr [rsi], 4
    mov rsi, 0xa018
    or qword ptr [rsi], 4
    mov rsi, 0xeff8
    mov qword ptr [rsi], 0x200087
    mov rsi, 0xa020
    mov qword ptr [rsi], 0x220007
    mov rsi, 0x220000
    mov qword ptr [rsi], 0x87
    mov rax, cr3; mov cr3, rax
"""
ON_PAGE_FAULT = f"mov rax, cr2; mov [{DATA:#x}], rax; mov rax, [rsp + 8]; mov [{DATA + 8:#x}], rax; hlt"


# Bochs 2.7 itself does not go round there: only what exits is looked at.
def test_compatibility_mode_at_cpl_3(guest):
    """Behind the last byte comes the kernel's page 0: #PF there, with RIP 0."""
    data = {**tables(), 0x3FFFFE: assemble("cpuid", 32, 0)}
    made = guest(MAP + enter(TOP - 2, True), handlers={14: ON_PAGE_FAULT}, data=data, on_triple_fault="stop")
    made.until("vm.state in ('halted', 'stopped')")
    assert made.state == "halted", made.eval("vm.messages")
    assert made.words(2) == (0, 0)


@pytest.mark.parametrize("instruction", ["mov eax, eax", "cpuid"])
def test_64_bit_mode_goes_on(guest, instruction):
    data = {0x3FFFFE: assemble(instruction, 64, 0), 0: NOTE_64}
    made = guest(f"{MAP}mov rax, {TOP - 2:#x}\njmp rax", data=data, on_triple_fault="stop")
    made.until("vm.state in ('halted', 'stopped')")
    assert made.state == "halted", made.eval("vm.messages")
    assert made.word() == GOOD
    assert made.eval("vcpu.rip") == TOP + len(NOTE_64)


def test_the_stack_is_where_it_was(guest):
    """A single step over the wrapping CPUID: the trap's frame has the new EIP."""
    data = {**tables(), 0x3FFFFE: assemble("cpuid", 32, 0)}
    source = MAP + enter(TOP - 2, True).replace("mov r11, 2", "mov r11, 0x102")
    handlers = {1: f"mov rax, [rsp]; mov [{DATA:#x}], rax; mov rax, [rsp + 24]; mov [{DATA + 8:#x}], rax; hlt"}
    made = guest(source, handlers=handlers, data=data, on_triple_fault="stop")
    made.until("vm.state in ('halted', 'stopped')")
    assert made.state == "halted", made.eval("vm.messages")
    assert made.words(2) == (0, DATA + 0x9800)
    assert made.eval(f"vcpu.rsp < {STACK:#x}")
