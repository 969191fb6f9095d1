"""vmm/handlers/task_switch.py on a small machine: GDT at 1000H, TSSs from 2000H, paging off at first.

Every switch that ends in the new task must leave a state that VM entry takes: guest_checks says so.
"""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from vcpus import DATA, GPRS, TSS, UNUSABLE, Vcpu

from vmm import events, guest_checks, verdict
from vmm.handlers import task_switch
from vmm.vmcs import GUEST_GDTR_BASE, GUEST_GDTR_LIMIT, GUEST_INTERRUPTIBILITY_STATE, GUEST_PDPTE0

CALL, IRET, JMP, GATE = 0, 1, 2, 3
GDT, OLD_TSS, NEW_TSS, TSS16_A, TSS16_B, LDT = 0x1000, 0x2000, 0x2100, 0x2200, 0x2300, 0x2400
CODE, STACK, OLD, NEW, OLD16, NEW16, LDTR = 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38
CODE3, DATA3, ABSENT, CONFORMING = 0x43, 0x4B, 0x50, 0x58
READ_ONLY, EXECUTE_ONLY, CODE_ABSENT, STACK16 = 0x60, 0x68, 0x70, 0x78
NT, VM, RF = 1 << 14, 1 << 17, 1 << 16
VALID, WITH_ERROR = 1 << 31, 1 << 11
EXTERNAL, NMI, EXCEPTION, INT_N, INT1, INT3 = 0, 2, 3, 4, 5, 6


def descriptor(base, limit, rights):
    low = limit & 0xFFFF | (base & 0xFFFF) << 16
    high = base >> 16 & 0xFF | base & 0xFF000000 | limit & 0xF0000 | rights << 8
    return struct.pack("<II", low, high)


GDT_BYTES = b"".join(
    (
        bytes(8),
        descriptor(0, 0xFFFFF, 0xC09B),
        descriptor(0, 0xFFFFF, 0xC093),
        descriptor(OLD_TSS, 0x67, 0x8B),
        descriptor(NEW_TSS, 0x67, 0x89),
        descriptor(TSS16_A, 0x2B, 0x83),
        descriptor(TSS16_B, 0x2B, 0x81),
        descriptor(LDT, 0x0F, 0x82),
        descriptor(0, 0xFFFFF, 0xC0FA),
        descriptor(0, 0xFFFFF, 0xC0F2),
        descriptor(0, 0xFFFFF, 0xC013),
        descriptor(0, 0xFFFFF, 0xC09F),
        descriptor(0, 0xFFFFF, 0xC091),
        descriptor(0, 0xFFFFF, 0xC099),
        descriptor(0, 0xFFFFF, 0xC01B),
        descriptor(0, 0xFFFF, 0x0093),
    )
)


def machine(old16=False):
    """A vCPU in the old task, ready to switch to a new task at 4000H."""
    vcpu = Vcpu()
    memory = vcpu.vm.memory
    memory.write(GDT, GDT_BYTES)
    memory.write(LDT, descriptor(0, 0xFFFFF, 0xC093) + descriptor(0x100, 0xFF, 0x4093))
    vcpu.write(GUEST_GDTR_BASE, GDT)
    vcpu.write(GUEST_GDTR_LIMIT, len(GDT_BYTES) - 1)
    if old16:
        vcpu.set_segment("tr", OLD16, TSS16_A, 0x2B, 0x83)
    else:
        vcpu.set_segment("tr", OLD, OLD_TSS, 0x67, TSS)
    for i in range(8):
        setattr(vcpu, GPRS[i], 0x11110000 + i)
    vcpu.rip, vcpu.rflags, vcpu.dr7, vcpu.length = 0x1234, 0x46, 0x755, 7
    new_task(vcpu)
    struct.pack_into("<7H", memory.view(TSS16_B, 44), 0x0E, 0x4000, 0x3202, 1, 2, 3, 4, 0x8000)
    struct.pack_into("<8H", memory.view(TSS16_B, 44), 0x1C, 6, 7, 8, STACK, CODE, STACK16, STACK, LDTR)
    return vcpu


def new_task(vcpu, cr3=0, flags=0x202, es=0, cs=CODE, ss=STACK, ds=STACK, fs=0, gs=0, ldtr=0, trap=0):
    image = vcpu.vm.memory.view(NEW_TSS, 104)
    struct.pack_into("<11I", image, 0x1C, cr3, 0x4000, flags, 1, 2, 3, 4, 0x8000, 6, 7, 8)
    struct.pack_into("<8I", image, 0x48, es, cs, ss, ds, fs, gs, ldtr, trap)


def switch(vcpu, source, selector=NEW, kind=None, vector=0, error=None):
    vcpu.qualification = source << 30 | selector
    if kind is not None:
        vcpu.vectoring_info = VALID | kind << 8 | vector | (0 if error is None else WITH_ERROR)
        vcpu.vectoring_error = error or 0
    return task_switch.exit(vcpu)


def switched(vcpu, *args, **kwargs):
    assert switch(vcpu, *args, **kwargs) == verdict.RESUME, vcpu.vm.reports
    assert vcpu.injected == (0, 0, 0), vcpu.injected
    entered(vcpu)


def entered(vcpu):
    vcpu.write(0x4016, vcpu.injected[0])
    assert guest_checks.faults(vcpu) == ["no check of vmm/guest_checks.py fails"], guest_checks.faults(vcpu)


def injected(vcpu):
    info, error, _ = vcpu.injected
    assert info & VALID and info >> 8 & 7 == 3
    return info & 0xFF, error


def rights(vcpu, selector):
    return vcpu.vm.memory.read_u8(GDT + (selector & 0xFFF8) + 5)


def words(vcpu, gpa, layout):
    return struct.unpack(layout, vcpu.vm.memory.read(gpa, struct.calcsize(layout)))


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
    assert injected(vcpu) == (events.DB, 0) and vcpu.rip == 0x4000
    assert vcpu.dr[4] == 0xFFFF8FF0
    entered(vcpu)


def test_faults_of_the_old_task():
    for source, selector, vector, error in (
        (JMP, 0, events.GP, 0),
        (JMP, NEW | 4, events.GP, NEW | 4),
        (CALL, OLD, events.GP, OLD),  # busy
        (JMP, CODE, events.GP, CODE),
        (JMP, 0x1F8, events.GP, 0x1F8),
        (IRET, NEW, events.TS, NEW),  # not busy
        (IRET, 0x1F8, events.TS, 0x1F8),
    ):
        vcpu = machine()
        before = vcpu.vm.memory.read(0, 0x10000), dict(vcpu.fields)
        assert switch(vcpu, source, selector) == verdict.RESUME
        assert injected(vcpu) == (vector, error), (source, selector, vcpu.injected)
        assert (vcpu.vm.memory.read(0, 0x10000), vcpu.fields) == before
        assert vcpu.rip == 0x1234


def test_tss_not_present_and_too_short():
    for limit, rights_, vector in ((0x67, 0x09, events.NP), (0x66, 0x89, events.TS)):
        for source, kind, external in (
            (CALL, None, 0),
            (GATE, EXTERNAL, 1),
            (GATE, INT_N, 0),
            (GATE, INT1, 1),
        ):
            vcpu = machine()
            vcpu.vm.memory.write(GDT + NEW, descriptor(NEW_TSS, limit, rights_))
            switch(vcpu, source, NEW, kind, 0x30)
            assert injected(vcpu) == (vector, NEW | external)


def test_faults_of_the_new_task():
    for task, vector, error in (
        ({"ldtr": 0x3C}, events.TS, 0x3C),
        ({"ldtr": STACK}, events.TS, STACK),
        ({"ldtr": 0x1F8}, events.TS, 0x1F8),
        ({"ss": 0}, events.TS, 0),
        ({"ss": 3}, events.TS, 0),
        ({"ss": CODE}, events.TS, CODE),
        ({"ss": READ_ONLY}, events.TS, READ_ONLY),
        ({"ss": ABSENT}, events.SS, ABSENT),
        ({"ss": STACK | 3}, events.TS, STACK),
        ({"ss": DATA3}, events.TS, DATA3 & ~3),
        ({"cs": 0}, events.TS, 0),
        ({"cs": STACK}, events.TS, STACK),
        ({"cs": 0x04}, events.TS, 0x04),  # no LDT
        ({"cs": CODE3 & ~3}, events.TS, CODE3 & ~3),
        ({"cs": CODE | 3, "ss": DATA3, "ds": 0}, events.TS, CODE),
        ({"cs": CODE_ABSENT}, events.NP, CODE_ABSENT),
        ({"ds": ABSENT}, events.NP, ABSENT),
        ({"es": EXECUTE_ONLY}, events.TS, EXECUTE_ONLY),
        ({"fs": NEW}, events.TS, NEW),
        ({"gs": STACK | 3}, events.TS, STACK),
        ({"cs": CODE3, "ss": DATA3, "ds": STACK}, events.TS, STACK),
    ):
        vcpu = machine()
        new_task(vcpu, **task)
        assert switch(vcpu, JMP) == verdict.RESUME
        assert injected(vcpu) == (vector, error), (task, vcpu.injected)
        assert vcpu.rip == 0x4000 and vcpu.segment("tr")[0] == NEW
        entered(vcpu)
        for name in task:
            assert vcpu.segment(name)[0] == task[name]


def test_a_fault_in_the_delivery_of_a_fault_is_a_double_fault():
    vcpu = machine()
    new_task(vcpu, ds=ABSENT)
    switch(vcpu, GATE, NEW, EXCEPTION, 13, 0)
    assert injected(vcpu) == (events.DF, 0)
    entered(vcpu)
    vcpu = machine()
    new_task(vcpu, ds=ABSENT)
    switch(vcpu, GATE, NEW, INT_N, 0x80)
    assert injected(vcpu) == (events.NP, ABSENT)
    vcpu = machine()
    new_task(vcpu, ds=ABSENT)
    assert switch(vcpu, GATE, NEW, EXCEPTION, 8, 0) == verdict.TRIPLE_FAULT


def test_no_room_for_the_error_code():
    vcpu = machine()
    vcpu.vm.memory.write(GDT + STACK, descriptor(0, 0xFFF, 0x4093))
    switch(vcpu, GATE, NEW, EXCEPTION, 17, 0)
    assert injected(vcpu) == (events.SS, 1)
    assert vcpu.rsp == 0x8000


def paging_on(vcpu, directory, table, absent=()):
    """4 KiB pages, the first 64 KiB of memory identity mapped."""
    memory = vcpu.vm.memory
    memory.write_u32(directory, table | 3)
    for page in range(16):
        memory.write_u32(table + 4 * page, 0 if page in absent else page << 12 | 3)
    vcpu.cr0 = 0x80010031


def test_cr3_changes_with_paging():
    vcpu = machine()
    paging_on(vcpu, 0x9000, 0xA000)
    paging_on(vcpu, 0xB000, 0xC000)
    vcpu.cr3 = 0x9000
    new_task(vcpu, cr3=0xB000)
    switched(vcpu, JMP)
    assert vcpu.cr3 == 0xB000 and vcpu.vm.flushes == 1


def test_page_faults_come_before_any_change():
    for absent, selector, cr2, error in ((2, NEW, 0x2100, 0), (1, NEW, 0x1020, 0)):
        vcpu = machine()
        vcpu.cr3 = 0x9000
        paging_on(vcpu, 0x9000, 0xA000, (absent,))
        fields = dict(vcpu.fields)
        switch(vcpu, JMP, selector)
        assert injected(vcpu) == (events.PF, error)
        assert vcpu.cr2 == cr2 and vcpu.fields == fields and vcpu.rip == 0x1234


def test_page_fault_in_the_new_address_space():
    vcpu = machine()
    vcpu.cr3 = 0x9000
    paging_on(vcpu, 0x9000, 0xA000)
    paging_on(vcpu, 0xB000, 0xC000, (7,))
    new_task(vcpu, cr3=0xB000)
    switch(vcpu, GATE, NEW, EXCEPTION, 17, 0)
    assert injected(vcpu) == (events.PF, 2) and vcpu.cr2 == 0x7FFC and vcpu.rip == 0x4000
    entered(vcpu)


def test_pae_loads_pdptes():
    for low, want in ((0xC001, None), (0xC007, (events.TS, 0))):
        vcpu = machine()
        memory = vcpu.vm.memory
        for pdpt, entry in ((0x9000, 0xC001), (0x9020, low)):
            memory.write_u64(pdpt, entry)
        memory.write_u64(0xC000, 0xD003)
        for page in range(16):
            memory.write_u64(0xD000 + 8 * page, page << 12 | 3)
        vcpu.cr0, vcpu.cr3, vcpu.cr4 = 0x80010031, 0x9000, 0x2020
        new_task(vcpu, cr3=0x9020)
        switch(vcpu, JMP)
        if want:
            assert injected(vcpu) == want
        else:
            assert vcpu.injected[0] == 0 and vcpu.read(GUEST_PDPTE0) == low
        assert vcpu.cr3 == 0x9020


def test_paging_structures_outside_memory_stop_the_guest():
    vcpu = machine()
    vcpu.cr0, vcpu.cr3 = 0x80010031, 0x10000000
    assert switch(vcpu, JMP) == verdict.STOP
    assert "outside guest memory" in vcpu.vm.reports[0]


@settings(max_examples=400)
@given(st.randoms(use_true_random=False))
def test_hostile_tables_never_leave_a_state_that_cannot_be_entered(random):
    vcpu = machine()
    memory = vcpu.vm.memory
    selectors = list(range(0, len(GDT_BYTES) + 8, 8)) + [4, 0x0C, 0x14]
    for at in range(8, len(GDT_BYTES), 8):
        if at != NEW and random.randrange(3) == 0:
            memory.write_u8(GDT + at + 5, random.randrange(256))
            memory.write_u8(GDT + at + 6, random.randrange(256))
    task = {name: random.choice(selectors) | random.choice((0, 0, 3)) for name in ("es", "ds", "fs", "gs")}
    task["cs"] = random.choice((CODE, CODE, CODE3, CONFORMING, random.choice(selectors)))
    task["ss"] = random.choice((STACK, STACK, DATA3, STACK16, random.choice(selectors)))
    task["ldtr"] = random.choice((0, LDTR, LDTR, random.choice(selectors)))
    new_task(vcpu, flags=random.getrandbits(30) & ~(VM if random.randrange(4) else 0), **task)
    kind = random.choice((None, EXTERNAL, NMI, EXCEPTION, INT_N, INT1, INT3))
    vcpu.write(GUEST_INTERRUPTIBILITY_STATE, random.choice((0, 0, 2, 8)))
    source = random.choice((CALL, JMP)) if kind is None else GATE
    error = random.getrandbits(16) if kind == EXCEPTION else None
    answer = switch(vcpu, source, random.choice((NEW, NEW, NEW16)), kind, random.randrange(32), error)
    assert answer in (verdict.RESUME, verdict.STOP, verdict.TRIPLE_FAULT)
    if answer == verdict.RESUME:
        entered(vcpu)
