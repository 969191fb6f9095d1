"""Exits of many kinds while the monitor's heap is locked: steady state makes no object."""

import ast

import pytest
from bench import DATA, deadline_timer

VECTOR = 0x40

# Each round makes one exit of each kind; then the local APIC's timer ends a HLT.
SOURCE = f"""
{deadline_timer(VECTOR)}
    mov rsi, 0xfec00000
    mov dword ptr [rsi], 1
    mov rdi, 0xfed00000
    mov dword ptr [rdi + 0x10], 1
again:
    mov r15d, 100
some:
    xor eax, eax
    cpuid
    mov ecx, 0x3b
    rdmsr
    wrmsr
    in al, 0x21
    out 0x21, al
    in al, 0x40
    mov dx, 0x3fd
    in al, dx
    mov dx, 0x3f8
    out dx, al
    mov dx, 0x608
    in eax, dx
    mov al, 0xc
    out 0x70, al
    in al, 0x71
    in al, 0x64
    mov eax, [rdi + 0xf0]
    mov eax, [rsi + 0x10]
    mov dword ptr [rsi], 1
    mov eax, 0x999
    vmcall
    inc qword ptr [{DATA:#x}]
    dec r15d
    jnz some
    rdtsc
    shl rdx, 32
    or rax, rdx
    add rax, 20000
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0x6e0
    wrmsr
    sti
    hlt
    cli
    jmp again
"""

HANDLER = f"""
    push rax
    push rcx
    push rdx
    inc qword ptr [{DATA + 8:#x}]
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq
"""

KINDS = ("CPUID", "RDMSR", "WRMSR", "IO_INSTRUCTION", "VMCALL", "EPT_VIOLATION", "HLT")

RUN = """
import gc
from micropython import heap_lock, heap_unlock
from vmm.vtx import reasons
from vmm.vtx.exits import _word
from vmm.vtx.frame import COUNT
def exits():
    total = 0
    for reason in range(reasons.SLOTS):
        total += _word(vcpu, COUNT + 2 * reason)
    return total
def run(count):
    gc.collect()
    end = exits() + count
    heap_lock()
    try:
        for _ in range(600):
            if exits() >= end or vm.state not in ('running', 'halted'):
                break
            time.sleep_ms(100)
    finally:
        heap_unlock()
    return exits() - end
"""


def counts(guest):
    return {name: count for name, (count, _) in guest.eval("vm.exit_counts()").items()}


@pytest.mark.parametrize("exits", [200_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_exits_with_the_heap_locked(bench, guest, exits):
    made = guest(SOURCE, handlers={VECTOR: HANDLER})
    made.until(f"vm.memory.read_u64({DATA + 8:#x}) > 2")  # all has been met once
    made.exec("vm.pause()")
    before, rounds, ticks = counts(made), made.word(), made.word(1)
    output = made.exec(f"{RUN}vm.resume()\nover = run({exits})\nprint((over, vm.state))\nvm.pause()", 600)
    assert output.startswith("("), output
    over, state = ast.literal_eval(output)
    after = counts(made)
    assert state in ("running", "halted"), made.eval("vm.messages")
    assert over >= 0
    assert made.word(1) > ticks
    rounds = made.word() - rounds
    assert rounds > exits // 100
    for kind in KINDS[:-1]:
        assert after[kind] - before[kind] >= rounds - 1, kind  # one round was half done
    assert after["HLT"] - before["HLT"] >= rounds // 100
    assert made.eval("vm.messages") == []
