"""Floating-point, vector and debug registers and MSRs belong to their guest, whatever Python does."""

import struct

import pytest
from bench import DATA

XSAVE = """
    mov rax, cr4
    or eax, 0x40600
    mov cr4, rax
    xor ecx, ecx
    xgetbv
    or eax, {features:#x}
    xsetbv
"""
FLOATS = "x = 1.5\nfor i in range(20): x = x * 1.7 + float(i) / 3.0\nn[0] += 1"


def ymm(seed):
    """Load all of YMM0-15 with one pattern of `seed` each."""
    lines = [f"mov rax, {seed:#x}"]
    for i in range(16):
        lines += ["inc rax", f"vmovq xmm{i}, rax", f"vpshufd xmm{i}, xmm{i}, 0x44"]
        lines += [f"vinsertf128 ymm{i}, ymm{i}, xmm{i}, 1"]
    return "\n".join(lines)


def check_ymm(seed, bad):
    """Count at `bad` every register that is not what ymm() put there."""
    lines = [f"mov rbx, {seed:#x}"]
    for i in range(16):
        lines += [
            "inc rbx", f"vmovups [rdi], ymm{i}",
            "cmp [rdi], rbx", f"jne bad{i}", "cmp [rdi + 8], rbx", f"jne bad{i}",
            "cmp [rdi + 16], rbx", f"jne bad{i}", "cmp [rdi + 24], rbx", f"je good{i}",
            f"bad{i}:", f"inc qword ptr [{bad:#x}]", f"good{i}:",
        ]  # fmt: skip
    return "\n".join(lines)


def avx_guest(seed):
    return f"""
        {XSAVE.format(features=7)}
        mov rdi, {DATA + 0x800:#x}
        fninit
        fldpi
        fld1
        mov dword ptr [{DATA + 0x40:#x}], 0x3f80
        ldmxcsr [{DATA + 0x40:#x}]
        {ymm(seed)}
    again:
        mov eax, 0x40000000
        cpuid
        {check_ymm(seed, DATA + 8)}
        stmxcsr [{DATA + 0x48:#x}]
        cmp dword ptr [{DATA + 0x48:#x}], 0x3f80
        je mxcsr
        inc qword ptr [{DATA + 16:#x}]
    mxcsr:
        fld st(1)
        fstp tbyte ptr [{DATA + 0x60:#x}]
        inc qword ptr [{DATA:#x}]
        jmp again
    """


PI = 0xC90FDAA22168C235


def check_avx(made):
    rounds, bad, mxcsr = made.words(3)
    assert rounds > 20
    assert (bad, mxcsr) == (0, 0)
    assert made.word(12) == PI  # the significand


def test_a_policy_that_computes_floats(guest):
    made = guest(avx_guest(0x1111111111110000))
    made.exec("n = [0]")
    made.policy("CPUID", FLOATS)
    made.until(f"vm.memory.read_u64({DATA:#x}) > 50")
    assert made.eval("n[0]") > 50
    check_avx(made)


def test_the_check_can_fail(guest):
    """Changing one register behind the guest's back is seen by it."""
    made = guest(avx_guest(0x1111111111110000))
    made.policy("CPUID", "vcpu.fpu()[160 + 16 * 3] ^= 1")
    made.until(f"vm.memory.read_u64({DATA:#x}) > 3")
    assert made.word(1) > 0


def test_two_guests_and_the_prompt(bench, guest):
    made = [guest(avx_guest(seed)) for seed in (0x1111111111110000, 0x7777777777770000)]
    for one in made:
        one.go()
    switches = bench.eval("sched.switches")
    bench.exec("for i in range(20):\n    y = 3.25 * i\n    time.sleep_ms(25)")
    assert bench.eval("sched.switches") - switches > 5
    for one in made:
        check_avx(one)


def test_avx512(bench, guest):
    if not bench.eval("__import__('cpu').cpuid(7)[1] >> 16 & 1"):
        pytest.skip("this CPU model has no AVX-512")
    seeds = (0x2222222222220000, 0x5555555555550000)
    made = []
    for seed in seeds:
        fill = "\n".join(f"inc rax\nvpbroadcastq zmm{i}, rax" for i in range(32))
        check = "\n".join(
            f"inc rax\nvpbroadcastq zmm31, rax\nvpcmpeqq k2, zmm31, zmm{i}\nkmovw ecx, k2\n"
            f"cmp ecx, 0xff\nje ok{i}\ninc qword ptr [{DATA + 8:#x}]\nok{i}:"
            for i in range(31)
        )
        made.append(
            guest(f"""
                {XSAVE.format(features=0xE7)}
                mov ecx, {seed & 0xFFFF | 0x5A}
                kmovw k1, ecx
                mov rax, {seed:#x}
                {fill}
            again:
                mov eax, 0x40000000
                cpuid
                mov rax, {seed:#x}
                {check}
                inc qword ptr [{DATA:#x}]
                jmp again
            """)
        )
    made[0].exec("n = [0]")
    made[0].policy("CPUID", FLOATS)
    for one in made:
        one.go()
    bench.run(600)
    for one in made:
        rounds, bad = one.words(2)
        assert rounds > 20
        assert bad == 0


def identity_guest(seed):
    """DR0-3, STAR, LSTAR, CSTAR, KERNEL_GS_BASE, SYSENTER_EIP, FS and GS base, CR2: set once, compared for ever."""
    msrs = (0xC0000081, 0xC0000082, 0xC0000083, 0xC0000102, 0x176, 0xC0000100, 0xC0000101)
    lines = []
    for i in range(4):
        lines += [f"mov rax, {seed + i:#x}", f"mov dr{i}, rax"]
    lines += [f"mov rax, {seed + 4:#x}", "mov cr2, rax"]
    for i, msr in enumerate(msrs):
        value = seed + 0x10 + i
        lines += [f"mov ecx, {msr:#x}", f"mov eax, {value & 0xFFFFFFFF:#x}", f"mov edx, {value >> 32:#x}", "wrmsr"]
    lines += ["again:", "mov eax, 0x40000000", "cpuid"]
    for i in range(4):
        lines += [f"mov rax, dr{i}", *compare(f"dr{i}", seed + i)]
    lines += ["mov rax, cr2", *compare("cr2", seed + 4)]
    for i, msr in enumerate(msrs):
        lines += [f"mov ecx, {msr:#x}", "rdmsr", "shl rdx, 32", "or rax, rdx", *compare(f"m{i}", seed + 0x10 + i)]
    lines += [f"inc qword ptr [{DATA:#x}]", "jmp again"]
    return "\n".join(lines)


def compare(label, value):
    return [f"mov rbx, {value:#x}", "cmp rax, rbx", f"je {label}_ok", f"inc qword ptr [{DATA + 8:#x}]", f"{label}_ok:"]


def test_debug_registers_and_msrs(bench, guest):
    seeds = (0x111111110000, 0x222222220000)
    made = [guest(identity_guest(seed)) for seed in seeds]
    made[0].exec("n = [0]")
    made[0].policy("CPUID", FLOATS)
    for one in made:
        one.go()
    bench.run(600)
    for one, seed in zip(made, seeds, strict=True):
        rounds, bad = one.words(2)
        assert rounds > 20
        assert bad == 0
        assert one.eval("list(vcpu.debug())[:4]") == [seed, seed + 1, seed + 2, seed + 3]
        assert one.eval("vcpu.msr(0xc0000102)") == seed + 0x13


def test_registers_written_at_the_prompt_reach_the_guest(guest):
    made = guest(f"nop\nmov [{DATA:#x}], rax\nmov [{DATA + 8:#x}], r15\nmov rcx, dr2\nmov [{DATA + 16:#x}], rcx\nhlt")
    made.exec("vcpu.rax = 0xfedcba9876543210\nvcpu.r15 = -1\nvcpu.debug()[2] = 0x1234")
    made.halted()
    assert made.words(3) == (0xFEDCBA9876543210, 0xFFFFFFFFFFFFFFFF, 0x1234)


def test_xmm_registers_are_there_to_read(guest):
    made = guest("mov rax, cr4\nor eax, 0x600\nmov cr4, rax\nmov rax, 0x0123456789abcdef\nmovq xmm5, rax\nhlt")
    made.halted()
    assert struct.unpack("<Q", bytes(made.eval("bytes(vcpu.fpu()[160 + 16 * 5:168 + 16 * 5])"))) == (
        0x0123456789ABCDEF,
    )
