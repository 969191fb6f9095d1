"""Stepping over a watched page: the flags, the stack and the order of events are those of the CPU without a step.

Every instruction that changes TF or IF, stores them, or holds traps back runs in a page that a policy watches, by both
ways of stepping; the same code runs unwatched beside it, and what it leaves must be equal.
"""

import struct

import pytest
from bench import CODE, DATA, IDTR, STACK
from pcanel.assemble import assemble
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx.x86 import RFLAGS_IF as IF
    from vmm.vtx.x86 import RFLAGS_TF as TF

PAGE = CODE + 0x10000  # of the code under test
SIZE = 0x80  # of a case there
USER = PAGE + 0xF00
OUT = CODE + 0x8000
TABLE = 0x220000

_GDT = 0x230000
_GDTR = 0x23F000
_TSS = 0x231000
_STACK0 = STACK - 0x4000

# {name: (source in the watched page, flags before it, flags after it)}; it ends by a jump to OUT.
CASES = {
    "cli": ("cli", IF, 0),
    "sti": ("sti\nnop", 0, IF),
    "sti where IF is set": ("sti", IF, IF),
    "cli after mov ss": ("mov eax, ss\nmov ss, eax\ncli\nnop", IF, 0),
    "cli after mov ss from memory": (f"mov eax, {DATA - 8:#x}\nmov [rax], ss\nmov ss, [rax]\ncli\nnop", IF, 0),
    "mov ss from r8": ("mov r8d, ss\nmov ss, r8d\nnop", IF, IF),
    "popf that sets": (f"push {IF | 2}\npopfq", 0, IF),
    "popf that clears": ("push 2\npopfq", IF, 0),
    "pushf": ("pushfq\npop rax\nand eax, 0x300\nmov r9, rax", IF, IF),
    "iret": (
        f"mov rax, rsp\nmov ebx, ss\npush rbx\npush rax\npush {IF | 2}\nmov ebx, cs\npush rbx\nlea rax, [rip + over]\n"
        "push rax\niretq\nover: nop",
        0, IF,
    ),
    "syscall": (
        "lea rax, [rip + over]\nmov ecx, 0xc0000082\nmov rdx, rax\nshr rdx, 32\nwrmsr\nsyscall\nover: mov r9, r11\n"
        "and r9d, 0x300",
        IF, 0,
    ),
    "sysenter": (
        "mov ecx, 0x176\nlea rax, [rip + over]\nmov rdx, rax\nshr rdx, 32\nwrmsr\nmov ecx, 0x175\nmov rax, rsp\n"
        "xor edx, edx\nwrmsr\nsysenter\nover: nop",
        IF, 0,
    ),
    "int n": ("int 0x41", IF, IF),
    "int3": ("int3", IF, IF),
    "a fault": ("ud2", IF, IF),
    "sysret": (f"mov r11d, {IF | 0x3002}\nmov ecx, {USER:#x}\n.byte 0x48, 0x0f, 0x07", 0, IF),
    "sysexit": (f"mov ecx, {STACK - 0x8000:#x}\nmov edx, {USER:#x}\n.byte 0x48, 0x0f, 0x35", IF, IF),
}  # fmt: skip

# Handlers that keep the flags that they were entered with and those that were pushed.
SEEN = "pushfq\npop r14\nand r14d, 0x300\nmov r15, [rsp + 16]\nand r15d, 0x300\niretq"
SKIP = SEEN.replace("iretq", "add qword ptr [rsp], 2\niretq")

# Segments as SYSCALL and SYSENTER want them: 10h and 18h the kernel's, 20h to 30h the user's; the TSS; all cases.
DRIVER = f"""
    lgdt [{_GDTR:#x}]
    mov eax, 0x18
    mov ss, eax
    mov eax, 0x38
    ltr ax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 1
    wrmsr
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 0x00200010
    wrmsr
    mov ecx, 0xc0000084
    mov eax, {TF | IF:#x}
    xor edx, edx
    wrmsr
    mov ecx, 0x174
    mov eax, 0x10
    wrmsr
    mov r12d, {TABLE:#x}
    mov r13d, {DATA:#x}
    next:
    mov ecx, 0xc0000082
    lea rax, [rip + back]
    mov rdx, rax
    shr rdx, 32
    wrmsr
    mov rsp, {STACK:#x}
    xor r9d, r9d
    xor r14d, r14d
    xor r15d, r15d
    push qword ptr [r12 + 8]
    popfq
    jmp qword ptr [r12]
    back:
    add r12, 16
    add r13, 64
    cmp qword ptr [r12], 0
    jne next
    cli
    hlt
"""
# Flags, what the case kept, flags in a handler, flags that were pushed for it, CPL; from CPL 3 back by SYSCALL.
LEFT = """
    pushfq
    pop rax
    and eax, 0x300
    mov [r13], rax
    mov [r13 + 8], r9
    mov [r13 + 16], r14
    mov [r13 + 24], r15
    mov eax, cs
    and eax, 3
    mov [r13 + 32], rax
    jnz user
    cli
    mov eax, {back:#x}
    jmp rax
    user: syscall
"""
_OPEN = """
def user(table, level):
    for i in range(512):
        entry = vm.memory.read_u64(table + 8 * i)
        if entry & 1 and not entry & 4:
            vm.memory.write_u64(table + 8 * i, entry | 4)
            if level and not entry & 0x80:
                user(entry & 0xFFFFFFFFF000, level - 1)
        elif not entry:
            break
user(vcpu.cr3 & 0xFFFFFFFFF000, 3)
"""


def gdt():
    table = [0, 0, 0xAF9B000000FFFF, 0xCF93000000FFFF, 0xCFFB000000FFFF, 0xCFF3000000FFFF, 0xAFFB000000FFFF]
    table += [0x67 | (_TSS & 0xFFFFFF) << 16 | 0x89 << 40 | (_TSS >> 24) << 56, 0]
    return struct.pack("<9Q", *table)


def image():
    data = {}
    rows = b""
    for i, (source, flags, _) in enumerate(CASES.values()):
        code = assemble(f"{source}\nmov eax, {OUT:#x}\njmp rax", 64, PAGE + SIZE * i)
        assert len(code) <= SIZE and PAGE + SIZE * (i + 1) <= USER
        data[PAGE + SIZE * i] = code
        rows += struct.pack("<2Q", PAGE + SIZE * i, flags | 0x3002)
    data[TABLE] = rows + bytes(16)
    data[USER] = assemble(f"mov eax, {OUT:#x}\njmp rax", 64, USER)
    start = f"mov rsp, {STACK:#x}\nlidt [{IDTR:#x}]\n" + DRIVER
    back = CODE + len(assemble(start.partition("back:")[0].replace("rip + back", "rip + 5"), 64, CODE))
    data[OUT] = assemble(LEFT.format(back=back), 64, OUT)
    tss = bytearray(0x68)
    tss[4:12] = struct.pack("<Q", _STACK0)
    data[_GDT], data[_GDTR], data[_TSS] = gdt(), struct.pack("<HQ", 0x47, _GDT), bytes(tss)
    return data


def run(guest, prepare=None):
    """{case: the five words that it left}."""
    made = guest(DRIVER, data=image(), handlers={0x41: SEEN, 3: SEEN, 6: SKIP, 1: "hlt", 13: "hlt"})
    made.exec(_OPEN)
    if prepare:
        prepare(made)
    made.until("vm.state in ('halted', 'stopped')", 60000)
    assert made.eval(f"vcpu.r12 - {TABLE}") == 16 * len(CASES), made.eval("(vm.why, vcpu.r12, vcpu.rip)")
    words = made.words(8 * len(CASES))
    return {name: words[8 * i : 8 * i + 5] for i, name in enumerate(CASES)}


@pytest.fixture(scope="module")
def unwatched(bench):
    return alone(bench, run)


def alone(bench, run_):
    """What run_(guest) gives for a guest that is gone afterwards."""
    made = []

    def guest(*args, **options):
        made.append(bench.guest(*args, **options))
        return made[-1]

    left = run_(guest)
    made[0].destroy()
    return left


def watch(way):
    """Let a policy watch PAGE, and step by this way."""

    def prepare(made):
        made.exec(f"""
from vmm.policies import monitortrap, stepper, trapflag
ways = (trapflag.TrapFlag(vm.vcpu),)
if {way == "MonitorTrap"}: ways = (monitortrap.MonitorTrap(vm.vcpu),) + ways
vm.vcpu.stepper = stepper.Stepper(vm.vcpu, ways)
n = [0]
""")
        made.policy(f"MEMORY, gpa={PAGE}, length=4096, access='x'", "n[0] += 1")

    return prepare


# The guest steps itself: where its traps come, and DR6 there.
OWN = """
    mov ebx, ss
    pushfq
    or qword ptr [rsp], 0x100
    popfq
    nop
    sti
    nop
    mov ss, ebx
    cli
    cpuid
    pushfq
    pop rax
    mov [r14], rax
    mov ecx, 2
    rep stosb
    int3
    mov dr0, r13
    mov eax, 0xd0001
    mov dr7, rax
    mov dword ptr [r13], 1
    cmp dword ptr [r13], 1
    int 0x41
    pushfq
    and qword ptr [rsp], 0xfffffffffffffeff
    popfq
    nop
    hlt
"""
TRAP = """
    push rax
    mov rax, [rsp + 8]
    mov [r15], rax
    mov rax, dr6
    mov [r15 + 8], rax
    add r15, 16
    xor eax, eax
    mov dr6, rax
    pop rax
    iretq
"""


def run_own(guest, prepare=None):
    """The traps, and the flags that PUSHF stored."""
    start = f"mov r15d, {DATA:#x}\nmov r14d, {TABLE:#x}\nmov r13d, {TABLE + 64:#x}\nmov edi, {TABLE + 128:#x}\n"
    data = {PAGE: assemble(OWN, 64, PAGE)}
    made = guest(f"{start}mov eax, {PAGE:#x}\njmp rax", data=data, handlers={1: TRAP, 3: "iretq", 0x41: "iretq"})
    if prepare:
        prepare(made)
    made.until("vm.state in ('halted', 'stopped')", 60000)
    assert made.state == "halted", made.eval("vm.why")
    traps = (made.eval("vcpu.r15") - DATA) // 16
    return made.words(2 * traps), made.eval(f"vm.memory.read_u64({TABLE}) & 0x300")


@pytest.fixture(scope="module")
def own(bench):
    return alone(bench, run_own)


def test_the_guests_own_steps(own):
    words, flags = own
    assert flags == TF
    dr6 = [word & 0x400F for word in words[1::2]]
    assert dr6.count(0x4000) == len(dr6) - 1 and dr6.count(0x4001) == 1


@pytest.mark.parametrize("way", ["MonitorTrap", "TrapFlag"])
def test_the_guests_own_steps_in_a_watched_page(bench, guest, own, way):
    assert run_own(guest, watch(way)) == own
    assert bench.eval("n[0]") > 20


def test_without_a_step(unwatched):
    assert {name: words[0] for name, words in unwatched.items()} == {name: case[2] for name, case in CASES.items()}
    assert unwatched["syscall"][1] == unwatched["pushf"][1] == IF
    assert unwatched["int n"][2:4] == unwatched["int3"][2:4] == unwatched["a fault"][2:4] == (0, IF)
    assert [unwatched[name][4] for name in ("iret", "sysret", "sysexit")] == [0, 3, 3]


@pytest.mark.parametrize("way", ["MonitorTrap", "TrapFlag"])
def test_in_a_watched_page(bench, guest, unwatched, way):
    if way == "MonitorTrap" and not bench.eval("monitor.trial.mtf"):
        pytest.skip("the monitor trap flag of this engine does not work")
    assert run(guest, watch(way)) == unwatched
    assert bench.eval("n[0]") > 3 * len(CASES)
