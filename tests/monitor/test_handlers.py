"""What quick handlers answer is what the CPU would: control registers, CPUID, the ICR, wide ports; and what handlers do
that only an armed control leads to.

Sources: SDM Vol. 2, the instructions; Vol. 3A, "Control Registers", "Interrupt Command Register (ICR)".
"""

import struct

import pytest
from bench import DATA
from pcanel.vmm_import import importable

with importable():
    from vmm.fault import GP
    from vmm.vtx.x86 import CR0_ET as ET
    from vmm.vtx.x86 import CR0_NE as NE
    from vmm.vtx.x86 import CR0_TS as TS
    from vmm.vtx.x86 import CR0_WP as WP

X2APIC = """
    mov ecx, 0x1b; rdmsr; or eax, 0xc00; wrmsr
    mov ecx, 0x80f; mov eax, 0x1ff; xor edx, edx; wrmsr
"""
COUNT = """
    push rax; push rcx; push rdx
    inc qword ptr [{at:#x}]
    mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr
    pop rdx; pop rcx; pop rax
    iretq
"""


def noted(*lines):
    """Code that stores CR0 from DATA on after each of these lines."""
    store = "mov r11, cr0; mov [rbx], r11; add rbx, 8\n"
    return f"mov ebx, {DATA:#x}\n" + "".join(line + "\n" + store for line in lines) + "hlt"


def test_cr0_is_what_the_guest_has_written(guest):
    made = guest(
        noted(
            "mov rax, cr0; and eax, 0xffffffef; mov cr0, rax",  # ET stays
            "mov rax, cr0; and eax, 0xffffffdf; mov cr0, rax",  # NE goes
            "mov rax, cr0; or eax, 8; mov cr0, rax",
            "clts",
            "mov rax, cr0; or eax, 0x1000e; mov cr0, rax",
            "mov rax, cr0; and eax, 0xfffefff1; mov cr0, rax",
            "mov eax, 0xe; lmsw ax",  # cannot clear PE
            "clts",
            "mov rax, cr0; or eax, 0x20; mov cr0, rax",
        )
    )
    made.halted()
    words = made.words(9)
    first = words[0]
    assert first & ET
    without = first & ~NE
    assert words[1:] == (
        without, without | TS, without, without | WP | 0xE, without & ~0xE, without | 0xE, without | 6,
        without | NE | 6,
    )  # fmt: skip
    assert made.eval("vcpu.cr0") == words[8]


def test_write_protection_is_on_at_once(guest):
    """A page is written, made read-only, and CR0.WP is set by a MOV that exits: the next write faults."""
    made = guest(
        """
        mov rax, cr0; and eax, 0xfffeffdf; mov cr0, rax
        mov rsi, 0xb008; and qword ptr [rsi], 0xfffffffffffffffd
        mov rax, cr3; mov cr3, rax
        mov qword ptr [0x200800], 1
        mov rax, cr0; or eax, 0x10000; mov r9, rax
        and r9d, 0xffffffef
        mov cr0, r9
        mov qword ptr [0x200800], 2
        hlt
        """,
        handlers={14: "mov r15d, 14; hlt"},
    )
    made.halted()
    assert made.eval("vcpu.r15") == 14
    assert made.eval(f"vm.memory.read_u64({DATA + 0x800:#x})") == 1


def test_reserved_bits_of_cr0_are_refused(guest):
    made = guest("mov rax, cr0; bts rax, 33; mov cr0, rax; hlt", handlers={GP: "mov r15d, 13; hlt"})
    made.halted()
    assert made.eval("vcpu.r15") == GP


ASK = """
    mov eax, {:#x}; mov ecx, {:#x}; cpuid
    mov [r9], eax; mov [r9 + 4], ebx; mov [r9 + 8], ecx; mov [r9 + 12], edx; add r9, 16
"""
ENABLE = "mov rax, cr4; or eax, 0x40000; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, {:#x}; xsetbv\n"


def answers_of(made, count):
    return list(struct.iter_unpack("<4I", made.eval(f"bytes(vm.memory.read({DATA:#x}, {16 * count}))")))


def test_cpuid_is_what_the_model_says_by_any_way(guest, xsave):
    """Each answer of a quick handler against Cpuid.leaf(); basic leaves beyond the last answer as the last one does."""
    leaves = [(0, 0), (1, 0), (4, 0), (4, 3), (4, 9), (7, 0), (7, 5), (0xB, 0), (0xB, 1), (0xB, 9), (0xD, 1), (0xD, 0)]
    leaves += [(0xD, 2), (0xD, 9), (0xD, 63), (0x16, 0), (0x40000000, 0), (0x40000010, 0), (0x4000FF00, 0)]
    leaves += [(0x80000000, 0), (0x80000008, 0)]
    unknown = [(0x1000, 0), (0x50000000, 0), (0x80000009, 0), (0xFFFFFFFF, 0)]
    code = "".join(ASK.format(*pair) for pair in leaves + unknown)
    made = guest(f"mov r9d, {DATA:#x}\n{code}hlt")
    made.halted()
    answers = answers_of(made, len(leaves) + len(unknown))
    last = made.eval("vm.cpuid.max_leaf")
    beyond = [pair for pair in leaves if last < pair[0] < 0x40000000]
    for pair, answer in zip(leaves, answers, strict=False):
        shown = (last, pair[1]) if pair in beyond else pair
        expected = list(made.eval(f"vm.cpuid.leaf({shown[0]:#x}, {shown[1]})"))
        if xsave and pair == (0xD, 1) and expected[0] & 2:
            expected[1] = made.eval("vm.cpuid.xsave_size(1, True)")  # of XCR0, not of all components
        assert list(answer) == expected, f"{pair[0]:#x}.{pair[1]}"
    assert answers[len(leaves) :] == [tuple(made.eval("vm.cpuid.leaf(vm.cpuid.max_leaf, 0)"))] * len(unknown)
    asked = [leaf for leaf, _ in beyond + unknown]
    assert made.eval("vm.unclaimed()['cpuid']") == {leaf: asked.count(leaf) for leaf in asked}


def test_sizes_of_leaf_0dh_follow_xcr0(guest, xsave):
    if not xsave:
        pytest.skip("this CPU model has no XSAVE")
    values = (1, 3, 7, 3)
    asked = "".join(ENABLE.format(xcr0) + ASK.format(0xD, 0) + ASK.format(0xD, 1) for xcr0 in values)
    made = guest(f"mov r9d, {DATA:#x}\n{asked}hlt")
    made.halted()
    found = [answer[1] for answer in answers_of(made, 2 * len(values))]
    expected = [made.eval(f"vm.cpuid.xsave_size({xcr0}, {bool(i)})") for xcr0 in values for i in (0, 1)]
    compacts = made.eval("vm.cpuid.leaf(0xd, 1)[0] >> 1 & 1")
    assert found == [size if not i % 2 or compacts else 0 for i, size in enumerate(expected)]


def test_osxsave_and_ospke_follow_cr4(guest, xsave):
    made = guest(
        f"mov r9d, {DATA:#x}\n{ASK.format(1, 0)}{ASK.format(7, 0)}mov rax, cr4; or eax, 0x40000; mov cr4, rax\n"
        f"mov rax, cr4; or eax, 0x400000; mov cr4, rax\n{ASK.format(1, 0)}{ASK.format(7, 0)}hlt",
        handlers={GP: "add rsp, 8; add qword ptr [rsp], 3; iretq"},  # MOV CR4: without XSAVE, or protection keys
    )
    made.halted()
    answers = answers_of(made, 4)
    saves, keys = answers[0][2] >> 26 & 1, answers[1][2] >> 3 & 1
    assert saves == xsave
    assert [answers[0][2] >> 27 & 1, answers[1][2] >> 4 & 1] == [0, 0]
    assert [answers[2][2] >> 27 & 1, answers[3][2] >> 4 & 1] == [saves, keys]


def test_an_ipi_to_itself_comes_by_each_way_of_the_icr(guest):
    send = "mov ecx, 0x830; mov edx, {}; mov eax, {:#x}; wrmsr\nsti; nop; cli\n"
    at = DATA + 0x100
    made = guest(
        X2APIC
        + send.format(0, 0x40040)  # by shorthand
        + send.format(0, 0x40)  # by its ID
        + send.format(1, 0x40)  # to another, which there is not
        + send.format(0, 0x80040)  # to all
        + send.format(0, 0xC0040)  # to all others
        + send.format(0, 0x4000F)  # an illegal vector
        + f"mov ecx, 0x828; xor eax, eax; xor edx, edx; wrmsr; rdmsr; mov [{DATA:#x}], rax\n"
        + f"mov ecx, 0x830; rdmsr; mov [{DATA + 8:#x}], eax; hlt",
        handlers={0x40: COUNT.format(at=at)},
    )
    made.halted()
    assert made.eval(f"vm.memory.read_u64({at:#x})") == 3
    assert made.word() == 0x20  # send illegal vector
    assert made.word(1) & 0xFFFFF == 0x4000F


def test_reserved_bits_of_the_icr_are_refused(guest):
    code = X2APIC + "mov ecx, 0x830; xor edx, edx; mov eax, 0x100040; wrmsr; hlt"
    made = guest(code, handlers={GP: "mov r15d, 13; hlt"})
    made.halted()
    assert made.eval("vcpu.r15") == GP


def test_words_and_dwords_of_a_device(guest):
    """PM1_STS and PM1_EN at 600H, PM1_CNT at 604H: by 16 and 32 bits, aligned and not."""
    made = guest(f"""
        mov ebx, {DATA:#x}
        mov edx, 0x602; mov eax, 0x1230120; out dx, ax
        mov eax, -1; in ax, dx; mov [rbx], rax
        mov edx, 0x600; mov eax, 0x1000000; out dx, eax
        mov rax, -1; in eax, dx; mov [rbx + 8], rax
        mov edx, 0x603; mov eax, -1; in ax, dx; mov [rbx + 16], rax
        mov edx, 0x608; xor eax, eax; out dx, eax
        hlt
    """)
    made.halted()
    words = made.words(3)
    assert words[0] == 0xFFFF0120
    assert words[1] >> 16 == 0x100
    assert words[2] == 0xFFFF0101  # SCI_EN above, the power button's bit below


TABLES = f"""
    mov rbx, {DATA:#x}
    sgdt [rbx]
    sidt [rbx + 16]
    lgdt [rbx]
    sldt eax; mov [rbx + 32], rax
    str eax; mov [rbx + 40], rax
    xor eax, eax; lldt ax
    mov word ptr [rbx + 48], 0xff; mov qword ptr [rbx + 50], {DATA + 0x400:#x}
    lidt [rbx + 48]
    sidt [rbx + 64]
    rdtsc; shl rdx, 32; or rax, rdx; mov [rbx + 80], rax
    rdtsc; shl rdx, 32; or rax, rdx; mov [rbx + 88], rax
    mov rax, cr3; mov cr3, rax; mov rax, cr3; mov [rbx + 96], rax
    hlt
"""


@pytest.mark.parametrize("exits", [False, True])
def test_armed_instructions_do_what_the_cpu_does(guest, exits):
    """RDTSC, CR3 loads and stores, descriptor tables."""
    made = guest(TABLES)
    if exits:
        made.exec(f"vm.events.set_primary({1 << 12 | 1 << 15 | 1 << 16})\nvm.events.kick()")
        made.exec("vcpu.write(0x401e, vcpu.read(0x401e) | 4)")
    made.halted()
    data = made.eval(f"bytes(vm.memory.read({DATA:#x}, 104))")
    gdt, tables = struct.unpack_from("<HQ", data, 0), (made.eval("vcpu.read(0x4810)"), made.eval("vcpu.read(0x6816)"))
    assert gdt == tables
    assert struct.unpack_from("<HQ", data, 64) == (0xFF, DATA + 0x400)
    ldt, tr = struct.unpack_from("<QQ", data, 32)
    assert (ldt, tr) == (made.eval("vcpu.segment('ldtr')[0]"), made.eval("vcpu.segment('tr')[0]"))
    first, second, cr3 = struct.unpack_from("<QQQ", data, 80)
    assert first < second < first + 1_000_000
    assert cr3 == made.eval("vcpu.cr3")
    counts = set(made.eval("vm.exit_counts()"))
    armed = {"RDTSC", "CONTROL_REGISTER_ACCESS", "GDTR_OR_IDTR_ACCESS", "LDTR_OR_TR_ACCESS"}
    assert counts & armed == (armed if exits else set())


def test_a_vmwrite_that_fails_stops_the_guest(bench, guest):
    """The VMCS is taken away behind the shim's back: the way into the guest says so."""
    made = guest("again: jmp again")
    made.exec("import vmx\nvcpu.read(0x681e)\nvmx.clear(vm._taken[vm._taken.index(vcpu.frame_hpa) - 1])")
    printed = made.until("vm.state == 'stopped'")
    assert "VmxError" in printed and "VMWRITE" in printed
    assert bench.alive()
