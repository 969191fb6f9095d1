"""What guest code at CPL 3 may not do: the CPU's faults, wherever the exit comes before the CPU's own check.

Source of the vectors: SDM Vol. 2, the instructions; Vol. 3A, "Privileged Instructions".
"""

import pytest
from bench import DATA
from pcanel.vmm_import import importable
from ring3 import RESUME, ring3, tried

with importable():
    from vmm.fault import GP, UD

NONE = (1 << 64) - 1
DONE = DATA + 0x1000
OSXSAVE = "mov rax, cr4; or eax, 0x40000; mov cr4, rax\n"
REGISTERS = f"mov rsi, {DATA + 0x2000:#x}; mov eax, 3; xor edx, edx; xor ecx, ecx\n"

PRIVILEGED = {
    "hlt": GP,
    "cli": GP,
    "invd": GP,
    "wbinvd": GP,
    "invlpg [rsi]": GP,
    "clts": GP,
    "lmsw ax": GP,
    "mov rax, cr0": GP,
    "mov cr0, rax": GP,
    "mov rax, cr3": GP,
    "mov cr3, rax": GP,
    "mov rax, cr4": GP,
    "mov cr4, rax": GP,
    "mov rax, cr8": GP,
    "mov cr8, rax": GP,
    "mov rax, dr0": GP,
    "mov dr0, rax": GP,
    "mov rax, dr7": GP,
    "mov dr7, rax": GP,
    "rdmsr": GP,
    "wrmsr": GP,
    "lgdt [rsi]": GP,
    "lidt [rsi]": GP,
    "lldt ax": GP,
    "ltr ax": GP,
    "rdpmc": GP,
    "xsetbv": GP,  # with CR4.OSXSAVE, else UD
    "in al, 0x80": GP,
    "out 0x80, al": GP,
    "rdtsc": GP,  # with CR4.TSD
    ".byte 0x0f, 0x01, 0xc8": UD,  # MONITOR
    ".byte 0x0f, 0x01, 0xc9": UD,  # MWAIT
    ".byte 0x0f, 0x01, 0xc2": UD,  # VMLAUNCH
    ".byte 0x0f, 0x01, 0xc4": UD,  # VMXOFF
    ".byte 0x0f, 0xaa": UD,  # RSM
    "cpuid": NONE,
    "vmcall": NONE,
    "sgdt [rsi]": NONE,
    "sldt rax": NONE,
    "pause": NONE,
}  # fmt: skip
# INVLPG, RDPMC, RDTSC, CR3 and CR8 loads and stores, MOV DR exiting; descriptor tables, WBINVD.
PRIMARY = 1 << 9 | 1 << 11 | 1 << 12 | 1 << 15 | 1 << 16 | 1 << 19 | 1 << 20 | 1 << 23
SECONDARY = 1 << 2 | 1 << 6


@pytest.mark.parametrize("all_exits", [False, True])
def test_privileged_instructions(guest, xsave, all_exits):
    expected = {**PRIVILEGED, "xsetbv": GP if xsave else UD}
    code = f"{REGISTERS}{tried(PRIVILEGED, DATA)}\nmov qword ptr [{DONE:#x}], 1\nagain: jmp again"
    before = OSXSAVE if xsave else "mov rax, cr4\n"
    made = ring3(guest, before + "or eax, 4; mov cr4, rax", code, handlers=RESUME, on_triple_fault="stop")
    before = made.eval("[vcpu.debug()[i] for i in range(5)]")
    if all_exits:
        made.exec(f"""
vm.events.set_primary({PRIMARY})
vcpu.write(0x401e, vcpu.read(0x401e) | {SECONDARY})
vm.events.kick()
""")
    made.until(f"vm.memory.read_u64({DONE:#x})")
    found = dict(zip(PRIVILEGED, made.words(len(PRIVILEGED)), strict=True))
    assert found == expected
    assert made.eval("(vcpu.cpl, vcpu.xcr0, vcpu.cr0 & 8)") == (3, 1, 0)
    assert made.eval("[vcpu.debug()[i] for i in range(5)]") == before
    assert made.eval("vcpu.dr7") == 0x400
    assert {"MOV_DR", "GDTR_OR_IDTR_ACCESS"} <= set(made.eval("vm.exit_counts()")) or not all_exits


# MOV DR where it exits, at CPL 0: what the CPU would say.
MOV_DR = f"""
    mov rbx, {DATA:#x}
    mov rax, 0x123456789abc
    mov dr0, rax
    mov rcx, dr0; mov [rbx], rcx
    mov eax, 0xffffffff
    mov dr6, rax
    mov rcx, dr6; mov [rbx + 8], rcx
    mov eax, 0x2ff
    mov dr7, rax
    mov rcx, dr7; mov [rbx + 16], rcx
    .byte 0x0f, 0x21, 0xe1
    mov [rbx + 24], rcx
    mov rax, 0x100000000
    lea r15, [rbx + 32]; mov r14d, 3
    mov dr6, rax
    lea r15, [rbx + 40]
    mov dr7, rax
    mov rax, cr4; or eax, 8; mov cr4, rax
    lea r15, [rbx + 48]
    .byte 0x0f, 0x21, 0xe1
    mov eax, 0xe000
    mov dr6, rax
    mov eax, 0x2000
    mov dr7, rax
    lea r15, [rbx + 56]
    mov rcx, dr0
    hlt
"""
ON_DEBUG = "mov qword ptr [r15], 1; mov rcx, dr6; mov [r15 + 8], rcx; mov rcx, dr7; mov [r15 + 16], rcx; hlt"


@pytest.mark.parametrize("exits", [False, True])
def test_mov_dr_that_exits_is_what_the_cpu_does(guest, exits):
    made = guest(MOV_DR, handlers={1: ON_DEBUG, **RESUME}, on_triple_fault="stop")
    if exits:
        made.exec("vm.events.set_primary(1 << 23)\nvm.events.kick()")
    made.halted()
    words = made.words(10)
    assert words[:3] == (0x123456789ABC, 0xFFFF0FF0 | 0xE00F, 0x6FF)
    assert words[3] == words[1]  # DR4 is DR6 without CR4.DE
    assert words[4:7] == (GP, GP, UD)
    assert words[7] == 1
    assert words[8] & 0xE000 == 0xE000  # BD, and what was there before
    assert words[9] & 1 << 13 == 0  # the processor clears GD
    assert ("MOV_DR" in made.eval("vm.exit_counts()")) == exits


HYPERCALLS = f"""
    mov rdi, {DATA:#x}
    mov r8d, 0x101; call one
    mov r8d, 0x100; call one
    mov r8d, 0x700; call one
    mov r8d, 0x701; call one
    mov qword ptr [{DONE:#x}], 1
    again: jmp again
    one: mov eax, r8d; xor ebx, ebx; vmcall; mov [rdi], rax; add rdi, 8; ret
"""
ADD = "vm.hypercalls.add(0x700, lambda vcpu: 7)\nvm.hypercalls.add(0x701, lambda vcpu: 8, cpl=3)"


@pytest.mark.parametrize("cpl, answers, refused", [({}, (NONE, NONE, NONE, 8), 3), ({"cpl": 3}, (2, 1, NONE, 8), 1)])
def test_hypercalls_are_the_kernels_unless_a_window_says_otherwise(guest, cpl, answers, refused):
    board = {"name": "board", "size": 0x1000, "gsi": 5}
    other = guest("hlt", shared=[board])
    made = ring3(guest, "", HYPERCALLS, shared=[{**board, **cpl}])
    made.exec(ADD + "\nvm.windows[0].ring()\nvm.windows[0].ring()")
    made.until(f"vm.memory.read_u64({DONE:#x})")
    assert made.words(4) == answers
    assert made.eval("vm.windows[0].rings") == (0 if cpl else 2)
    assert other.eval("vm.windows[0].rung") == (1 if cpl else 0)
    assert made.eval("vm.unclaimed()['refused']") == {"hypercall at too high a CPL": refused}


def test_a_level_that_there_is_not(guest):
    assert "ValueError: cpl=4" in guest("hlt").refused("vm.hypercalls.add(0x702, print, cpl=4)")


LEAVES = (4, 7, 0xB, 0xD, 0x40000002, 0x40000003)
SUBLEAVES = (0x10000, 0x10001, 0x1000000, 0x80000001, 0xFFFFFFFF)


def test_no_subleaf_is_another_for_the_kernel(guest):
    """What CPL 3 asks for, with any ECX, does not change what the kernel reads afterwards."""
    ask = "mov eax, {:#x}; mov ecx, {:#x}; cpuid; mov [r9], eax; mov [r9 + 4], ebx; mov [r9 + 8], ecx\n"
    ask += "mov [r9 + 12], edx; add r9, 16\n"
    low = [ask.format(leaf, subleaf) for leaf in LEAVES for subleaf in (0, 1, 0xFF)]
    high = [ask.format(leaf, subleaf) for leaf in LEAVES for subleaf in SUBLEAVES]
    start = f"mov r9d, {DATA:#x}\n"
    shared = [{"name": "board", "size": 0x1000}]
    right = guest(start + "".join(low) + "hlt", shared=shared)
    right.halted()
    after = "mov qword ptr [r9], 1; again: jmp again"
    made = ring3(guest, "", start + "".join(high) + "".join(low) + after, shared=shared)
    count = 2 * len(low)
    made.until(f"vm.memory.read_u64({DATA + 16 * (len(low) + len(high)):#x})")
    assert made.words(count, 2 * len(high)) == right.words(count)
    last = made.eval("vm.cpuid.max_leaf")
    answers = iter(made.eval(f"[vm.memory.read_u32({DATA:#x} + 4 * i) for i in range({4 * len(high)})]"))
    for leaf in LEAVES:
        for subleaf in SUBLEAVES:
            found = [next(answers) for _ in range(4)]
            topology = leaf == 0xB or last == 0xB < leaf < 0x40000000  # a leaf beyond the last answers as that does
            assert found == [0, 0, subleaf & 0xFF if topology else 0, found[3] if topology else 0], (leaf, subleaf)
