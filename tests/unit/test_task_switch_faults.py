"""vmm/handlers/task_switch.py: what refuses a switch, before and after the old task is left."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tasks import (
    ABSENT,
    CALL,
    CODE,
    CODE3,
    CODE_ABSENT,
    CONFORMING,
    DATA3,
    EXCEPTION,
    EXECUTE_ONLY,
    EXTERNAL,
    GATE,
    GDT,
    GDT_BYTES,
    INT1,
    INT3,
    INT_N,
    IRET,
    JMP,
    LDTR,
    NEW,
    NEW16,
    NEW_TSS,
    NMI,
    OLD,
    READ_ONLY,
    STACK,
    STACK16,
    VM,
    descriptor,
    entered,
    injected,
    machine,
    new_task,
    switch,
)

from vmm import verdict
from vmm.fault import DF, GP, NP, SS, TS
from vmm.vtx.vmcs import GUEST_INTERRUPTIBILITY_STATE


def test_faults_of_the_old_task():
    for source, selector, vector, error in (
        (JMP, 0, GP, 0),
        (JMP, NEW | 4, GP, NEW | 4),
        (CALL, OLD, GP, OLD),  # busy
        (JMP, CODE, GP, CODE),
        (JMP, 0x1F8, GP, 0x1F8),
        (IRET, NEW, TS, NEW),  # not busy
        (IRET, 0x1F8, TS, 0x1F8),
    ):
        vcpu = machine()
        before = vcpu.vm.memory.read(0, 0x10000), dict(vcpu.fields)
        assert switch(vcpu, source, selector) == verdict.RESUME
        assert injected(vcpu) == (vector, error), (source, selector, vcpu.injected)
        assert (vcpu.vm.memory.read(0, 0x10000), vcpu.fields) == before
        assert vcpu.rip == 0x1234


def test_tss_not_present_and_too_short():
    for limit, rights_, vector in ((0x67, 0x09, NP), (0x66, 0x89, TS)):
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
        ({"ldtr": 0x3C}, TS, 0x3C),
        ({"ldtr": STACK}, TS, STACK),
        ({"ldtr": 0x1F8}, TS, 0x1F8),
        ({"ss": 0}, TS, 0),
        ({"ss": 3}, TS, 0),
        ({"ss": CODE}, TS, CODE),
        ({"ss": READ_ONLY}, TS, READ_ONLY),
        ({"ss": ABSENT}, SS, ABSENT),
        ({"ss": STACK | 3}, TS, STACK),
        ({"ss": DATA3}, TS, DATA3 & ~3),
        ({"cs": 0}, TS, 0),
        ({"cs": STACK}, TS, STACK),
        ({"cs": 0x04}, TS, 0x04),  # no LDT
        ({"cs": CODE3 & ~3}, TS, CODE3 & ~3),
        ({"cs": CODE | 3, "ss": DATA3, "ds": 0}, TS, CODE),
        ({"cs": CODE_ABSENT}, NP, CODE_ABSENT),
        ({"ds": ABSENT}, NP, ABSENT),
        ({"es": EXECUTE_ONLY}, TS, EXECUTE_ONLY),
        ({"fs": NEW}, TS, NEW),
        ({"gs": STACK | 3}, TS, STACK),
        ({"cs": CODE3, "ss": DATA3, "ds": STACK}, TS, STACK),
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
    assert injected(vcpu) == (DF, 0)
    entered(vcpu)
    vcpu = machine()
    new_task(vcpu, ds=ABSENT)
    switch(vcpu, GATE, NEW, INT_N, 0x80)
    assert injected(vcpu) == (NP, ABSENT)
    vcpu = machine()
    new_task(vcpu, ds=ABSENT)
    assert switch(vcpu, GATE, NEW, EXCEPTION, 8, 0) == verdict.TRIPLE_FAULT


def test_no_room_for_the_error_code():
    vcpu = machine()
    vcpu.vm.memory.write(GDT + STACK, descriptor(0, 0xFFF, 0x4093))
    switch(vcpu, GATE, NEW, EXCEPTION, 17, 0)
    assert injected(vcpu) == (SS, 1)
    assert vcpu.rsp == 0x8000


@settings(max_examples=200)
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
