"""vmm/handlers/task_switch.py: JMP, CALL, IRET, gates, and what the new task starts with."""

import struct

from tasks import (
    CALL,
    CODE3,
    CONFORMING,
    DATA3,
    EXCEPTION,
    EXTERNAL,
    GATE,
    INT1,
    INT3,
    INT_N,
    IRET,
    JMP,
    LDT,
    LDTR,
    NEW,
    NEW16,
    NEW_TSS,
    NMI,
    NT,
    OLD,
    OLD_TSS,
    RF,
    STACK,
    TSS16_A,
    TSS16_B,
    VM,
    entered,
    injected,
    machine,
    new_task,
    rights,
    switch,
    switched,
    words,
)
from vcpus import DATA, GPRS, UNUSABLE

from vmm import verdict
from vmm.fault import DB
from vmm.vtx.vmcs import GUEST_INTERRUPTIBILITY_STATE


def test_jmp():
    vcpu = machine()
    switched(vcpu, JMP)
    assert words(vcpu, OLD_TSS + 0x20, "<10I") == (0x123B, 0x46) + tuple([0x11110000 + i for i in range(8)])
    assert words(vcpu, OLD_TSS + 0x48, "<6I") == (0x10, 0x08, 0x10, 0x10, 0x10, 0x10)
    assert rights(vcpu, OLD) == 0x89 and rights(vcpu, NEW) == 0x8B
    assert words(vcpu, NEW_TSS, "<H") == (0,)
    assert (vcpu.rip, vcpu.rflags) == (0x4000, 0x202)
    assert [getattr(vcpu, GPRS[i]) for i in range(8)] == [1, 2, 3, 4, 0x8000, 6, 7, 8]
    assert vcpu.segment("tr") == (NEW, NEW_TSS, 0x67, 0x8B)
    assert vcpu.segment("ss") == (STACK, 0, 0xFFFFFFFF, DATA)
    assert vcpu.segment("es") == (0, 0, 0, UNUSABLE | 0x60)
    assert vcpu.segment("ldtr")[3] == UNUSABLE
    assert vcpu.cr0 & 8 and vcpu.dr7 == 0x600
    assert vcpu.vm.flushes == 0


def test_call_links_back_and_sets_nt():
    vcpu = machine()
    switched(vcpu, CALL)
    assert words(vcpu, NEW_TSS, "<H") == (OLD,)
    assert vcpu.rflags == 0x202 | NT
    assert rights(vcpu, OLD) == 0x8B and rights(vcpu, NEW) == 0x8B
    assert words(vcpu, OLD_TSS + 0x20, "<I") == (0x123B,)


def test_call_and_iret_return_to_the_same_state():
    vcpu = machine()
    before = [getattr(vcpu, name) for name in GPRS[:8]]
    switched(vcpu, CALL)
    vcpu.length = 1
    switched(vcpu, IRET, OLD)
    assert [getattr(vcpu, name) for name in GPRS[:8]] == before
    assert (vcpu.rip, vcpu.rflags) == (0x123B, 0x46)
    assert words(vcpu, NEW_TSS + 0x20, "<2I") == (0x4001, 0x202)  # NT cleared
    assert rights(vcpu, OLD) == 0x8B and rights(vcpu, NEW) == 0x89


def test_gate_pushes_the_error_code():
    for tss, size in ((NEW, 4), (NEW16, 2)):
        vcpu = machine()
        switched(vcpu, GATE, tss, EXCEPTION, 13, 0x54)
        assert vcpu.rsp & 0xFFFF == 0x8000 - size
        assert vcpu.vm.memory.read(0x8000 - size, 4)[:size] == struct.pack("<I", 0x54)[:size]
        assert words(vcpu, OLD_TSS + 0x20, "<2I") == (0x1234, 0x46 | RF)
        assert vcpu.rflags & NT and words(vcpu, NEW_TSS if tss == NEW else TSS16_B, "<H") == (OLD,)


def test_gate_for_interrupts_and_software():
    for kind, vector, eip, flags in (
        (EXTERNAL, 0x30, 0x1234, 0x46),
        (NMI, 2, 0x1234, 0x46),
        (EXCEPTION, 1, 0x1234, 0x46),
        (INT_N, 0x80, 0x123B, 0x46),
        (INT3, 3, 0x123B, 0x46),
        (INT1, 1, 0x123B, 0x46),
    ):
        vcpu = machine()
        vcpu.write(GUEST_INTERRUPTIBILITY_STATE, 3)
        switched(vcpu, GATE, NEW, kind, vector)
        assert words(vcpu, OLD_TSS + 0x20, "<2I") == (eip, flags), kind
        assert vcpu.rsp == 0x8000
        assert vcpu.read(GUEST_INTERRUPTIBILITY_STATE) == (8 if kind == NMI else 0)


def test_iret_ends_blocking_by_nmi():
    vcpu = machine()
    switched(vcpu, CALL)
    vcpu.write(GUEST_INTERRUPTIBILITY_STATE, 8)
    switched(vcpu, IRET, OLD)
    assert vcpu.read(GUEST_INTERRUPTIBILITY_STATE) == 0


def test_16_bit_tasks():
    vcpu = machine(old16=True)
    switched(vcpu, CALL, NEW16)
    assert words(vcpu, TSS16_A + 0x0E, "<10H") == (0x123B, 0x46, 0, 1, 2, 3, 4, 5, 6, 7)
    assert words(vcpu, TSS16_A + 0x22, "<5H") == (0x10, 0x08, 0x10, 0x10, 0)
    assert (vcpu.rip, vcpu.rflags) == (0x4000, 0x3202 | NT)
    assert (vcpu.rax, vcpu.rsp, vcpu.rdi) == (0xFFFF0001, 0xFFFF8000, 0xFFFF0008)
    assert vcpu.segment("tr") == (NEW16, TSS16_B, 0x2B, 0x83)
    assert vcpu.segment("ldtr") == (LDTR, LDT, 0x0F, 0x82)
    assert vcpu.segment("fs")[3] & UNUSABLE and vcpu.segment("gs")[0] == 0


def test_segments_of_an_ldt():
    vcpu = machine()
    new_task(vcpu, ldtr=LDTR, ds=0x0C, gs=0x04)
    switched(vcpu, JMP)
    assert vcpu.segment("ds") == (0x0C, 0x100, 0xFF, 0x4093)
    assert vcpu.segment("gs") == (0x04, 0, 0xFFFFFFFF, DATA)


def test_user_task_and_accessed_bits():
    vcpu = machine()
    new_task(vcpu, cs=CODE3, ss=DATA3, ds=DATA3, es=CONFORMING)
    switched(vcpu, JMP)
    assert vcpu.cpl == 3 and rights(vcpu, CODE3) == 0xFB and rights(vcpu, DATA3) == 0xF3


def test_virtual_8086_task():
    vcpu = machine()
    new_task(vcpu, flags=VM | 0x3202, cs=0x1000, ss=0x2000, ds=0x3000, es=0x4000, fs=0x5000, gs=0x6000)
    switched(vcpu, JMP)
    assert vcpu.segment("cs") == (0x1000, 0x10000, 0xFFFF, 0xF3)
    assert vcpu.rflags == VM | 0x3202


def test_reserved_flags_are_dropped():
    vcpu = machine()
    new_task(vcpu, flags=0xFFC08028 | 0x200)
    switched(vcpu, JMP)
    assert vcpu.rflags == 0x202


def test_debug_trap():
    vcpu = machine()
    new_task(vcpu, trap=1)
    assert switch(vcpu, JMP) == verdict.RESUME
    assert injected(vcpu) == (DB, 0) and vcpu.rip == 0x4000
    assert vcpu.debug()[4] == 0xFFFF8FF0
    entered(vcpu)
