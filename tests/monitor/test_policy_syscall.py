"""SYSCALL as an event of any 64-bit guest, also where a page fault's error code does not tell fetches from reads."""

import pytest
from bench import CODE, DATA
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx.x86 import IA32_EFER as EFER

CODE_SELECTOR = 0x10
ENTRY = CODE + 0x800
SOURCE = f"""
    mov ecx, {EFER:#x}
    rdmsr
    or eax, {{efer:#x}}
    wrmsr
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, {CODE_SELECTOR}
    wrmsr
    mov ecx, 0xc0000084
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000082
    mov eax, {ENTRY:#x}
    wrmsr
    rdmsr
    mov [{DATA + 16:#x}], eax
    mov eax, 7
    syscall
    mov [{DATA:#x}], rax
    mov eax, 8
    syscall
    mov [{DATA + 8:#x}], rax
    hlt
"""
ENTERED = b"\x48\xff\xc0\xff\xe1"  # inc rax; jmp rcx


@pytest.mark.parametrize("efer", [0x1, 0x801], ids=["without NXE", "with NXE"])
@pytest.mark.parametrize("late", [False, True], ids=["before the start", "from a policy"])
def test_calls_are_seen_and_go_on(guest, efer, late):
    made = guest(SOURCE.format(efer=efer), data={ENTRY: ENTERED})
    attach = "vm.on(SYSCALL)(lambda vcpu: seen.append((vcpu.rax, vcpu.rip)))"
    made.exec("seen = []")
    # The write of FMASK comes behind that of EFER.
    made.exec(f"@vm.on(WRMSR, msr=0xC0000084)\ndef begin(vcpu): {attach}" if late else attach)
    made.halted()
    assert made.eval("seen") == [(7, ENTRY), (8, ENTRY)]
    assert made.words(3) == (8, 9, ENTRY)


def test_numbers_and_answers(guest):
    made = guest(SOURCE.format(efer=1), data={ENTRY: ENTERED})
    made.exec("@vm.on(SYSCALL, number=8)\ndef other(vcpu): vcpu.rax += 10")
    made.halted()
    assert made.words(2) == (8, 19)
    assert made.eval("(other.hits, vm.vcpu.msr(0xC0000082))") == (1, 0xFFFFFFFFFFFFF000)
    made.exec("other.detach()")
    assert made.eval("vm.vcpu.msr(0xC0000082)") == ENTRY
