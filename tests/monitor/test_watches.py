"""READ, WRITE and EXECUTE: to the byte, with old and new values."""

import struct

from bench import CODE, DATA
from pcanel.assemble import assemble

PAGE = 0x300000
FILL = {PAGE: struct.pack("<4Q", 0x10, 0x11, 0x12, 0x13), PAGE + 0xFF8: struct.pack("<2Q", 1, 2)}


def make(guest, source, *policies, **options):
    made = guest(f"mov rsi, {PAGE:#x}\n" + source + "hlt", data={**FILL, **options.pop("data", {})}, **options)
    made.exec("seen = []")
    for i, (event, body) in enumerate(policies):
        made.policy(event, body, f"p{i}")
    made.halted()
    return made


WRITES = """
    mov eax, 0x55
    mov [rsi + 7], al
    mov [rsi + 8], al
    mov [rsi + 4], rax
    mov [rsi + 5], eax
    add qword ptr [rsi + 8], 2
    mov word ptr [rsi + 9], 0x1234
    mov [rsi + 12], al
    mov [rsi + 16], rax
    mov rax, [rsi + 8]
    lea rdi, [rsi + 6]
    mov ecx, 3
    rep stosb
"""


def test_writes_to_the_byte(guest):
    body = "seen.append((vcpu.gpa, vcpu.old, vcpu.new))"
    made = make(guest, WRITES, (f"WRITE, at={PAGE + 8:#x}, size=4", body))
    seen = made.eval("seen")
    assert [gpa - PAGE for gpa, _, _ in seen] == [8, 4, 5, 8, 9, 8]
    assert seen[0] == (PAGE + 8, 0x11, 0x55)
    assert seen[1][2] == 0x55
    assert seen[3][2] == seen[3][1] + 2
    assert seen[4][2] == 0x1234 and seen[5][2] == 2
    assert made.eval(f"vm.memory.read_u64({PAGE + 16:#x})") == 0x55
    made.exec("p0.detach()")
    assert made.eval(f"vm.ept.walk({PAGE:#x})[1]") > 4096


def test_reads_to_the_byte(guest):
    source = """
        mov rax, [rsi]
        mov al, [rsi + 11]
        mov al, [rsi + 12]
        mov [rsi + 8], al
        mov eax, [rsi + 8]
    """
    made = make(guest, source, (f"READ, at={PAGE + 8:#x}, size=4", "seen.append((vcpu.gpa, vcpu.old))"))
    assert made.eval("seen") == [(PAGE + 11, 0), (PAGE + 8, 0)]


def test_verdicts(guest):
    source = f"mov qword ptr [rsi + 8], 0x55\nmov rax, [rsi + 8]\nmov [{DATA:#x}], rax\n"
    made = make(guest, source, (f"WRITE, gpa={PAGE + 8:#x}, size=8", "return Value(0x66)"))
    assert made.word() == 0x66
    made = make(guest, source, (f"WRITE, gpa={PAGE + 8:#x}, size=8", "return HANDLED"))
    assert made.word() == 0x11
    made = make(guest, source, (f"READ, gpa={PAGE + 8:#x}, size=8", "return Value(0x77)"))
    assert made.word() == 0x77


def test_over_the_end_of_a_page(guest):
    source = "mov [rsi + 0xff8], rax\nmov [rsi + 0x1000], rax\nmov [rsi + 0xff0], rax\nmov [rsi + 0x1008], rax\n"
    made = make(guest, source, (f"WRITE, at={PAGE + 0xFFC:#x}, size=8", "seen.append(vcpu.gpa)"))
    assert made.eval("seen") == [PAGE + 0xFF8, PAGE + 0x1000]


def test_what_cannot_be_told_is_none(guest):
    made = make(
        guest, "mov rax, cr4\nor eax, 0x600\nmov cr4, rax\nmovups [rsi], xmm0\n",
        (f"WRITE, at={PAGE + 8:#x}", "seen.append(vcpu.new)"),
    )  # fmt: skip
    assert made.eval("seen") == [None]


def test_execution_of_a_range(guest):
    code = CODE + 0x3000
    target = assemble("mov eax, 1\nnop\nmov eax, 2\nxor ecx, ecx\nret", 64, code)
    source = f"mov rbx, {code:#x}\ncall rbx\nmov [{DATA:#x}], rax\n"
    policy = (f"EXECUTE, at={code + 5:#x}, size=7", "seen.append(vcpu.rip)")
    made = make(guest, source, policy, data={code: target})
    assert made.eval("seen") == [code + 5, code + 6, code + 11]
    assert made.word() == 2
    made = make(guest, source, (f"EXECUTE, gpa={code + 6:#x}", "return HANDLED"), data={code: target})
    assert made.word() == 1


def test_bad_ranges(guest):
    made = make(guest, "")
    for event, text in (
        ("WRITE", "names at= or gpa="),
        ("READ, at=1, gpa=1", "names at= or gpa="),
        ("WRITE, at=0xffff800000000000", "is not mapped"),
        ("WRITE, gpa=0xfee00000", "no RAM"),
        ("EXECUTE, gpa=0xfee00000", "no RAM"),
        ("EXECUTE, at=0x1000, size=2000", "size=2000"),
        ("READ, gpa=0x1000, cr3=0", "cr3="),
    ):
        assert text in made.refused(f"vm.on({event})(print)")
    assert made.eval("vm.policies") == []
