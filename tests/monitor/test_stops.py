"""vm.hide_stops: a guest whose clocks do not show that it was stopped."""

import statistics

import pytest
from bench import CODE, DATA, deadline_timer, start_others
from gdb_session import attached
from pcanel.assemble import assemble
from pcanel.vmm_import import importable

with importable():
    from vmm.acpi.tables import HPET, PM_TMR_BLK

TURNS = 8
SECOND = 100_000_000  # ticks
FEW = 200  # ticks
SLOW = "time.sleep_ms(20)"
NOPS = 1_000_000  # ticks of SLOW, at the least half of them
WATCHED = DATA + 0x2000
AP = 0x8000
SEEN = 0x3000

# Ticks of the instructions at `there`, each turn.
ONE = """
    xor r9d, r9d
again:
    rdtsc
    shl rdx, 32
    lea r8, [rdx + rax]
    call there
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r8
    mov [{data:#x} + r9 * 8], rax
    inc r9d
    cmp r9d, {turns}
    jb again
    hlt
there:
    {there}
    ret
"""
# The longest time between two RDTSCs.
GAP = f"""
    rdtsc
    mov r8d, eax
    xor r9d, r9d
again:
    rdtsc
    mov ecx, eax
    sub ecx, r8d
    mov r8d, eax
    cmp ecx, r9d
    cmovae r9d, ecx
    mov [{DATA:#x}], r9
    inc qword ptr [{DATA + 8:#x}]
    jmp again
"""


def _turns(there, turns=TURNS):
    return ONE.format(data=DATA, turns=turns, there=there)


def _there(made):
    """The gpa of `there`: HLT comes before it."""
    return made.eval(f"bytes(vm.memory.read({CODE:#x}, 256)).find(b'\\xf4') + {CODE + 1:#x}")


def _shown(made, body, event, hidden):
    """Ticks of each turn."""
    made.exec(f"vm.hide_stops = {hidden}")
    made.policy(event, body)
    made.halted()
    assert made.eval("vm.policies[0].hits") == TURNS
    return made.words(TURNS)


@pytest.mark.parametrize("there", ["nop", "push rbx; pop rbx", "mov ecx, [rsp]"])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_hidden_breakpoint_takes_no_time(guest, hidden, there):
    made = guest(_turns(there))
    ticks = _shown(made, SLOW, f"EXECUTE, gpa={_there(made):#x}", hidden)
    assert all(0 < each < FEW for each in ticks) if hidden else min(ticks) > NOPS, ticks


@pytest.mark.parametrize(
    "there, event",
    [
        (f"mov [{WATCHED:#x}], rax", f"WRITE, gpa={WATCHED:#x}, size=8"),
        (f"mov rax, [{WATCHED:#x}]", f"MEMORY, gpa={WATCHED:#x}, length=8"),
        (f"paddd xmm0, [{WATCHED:#x}]", f"READ, gpa={WATCHED:#x}, size=16"),
        ("in al, 0x80", "IO, port=0x80"),
        ("mov rax, cr3; mov cr3, rax", "CR, number=3, write=True"),
        ("mov ecx, 0x8b; rdmsr", "RDMSR, msr=0x8b"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_policy_takes_no_time(guest, hidden, there, event):
    source = "mov rax, cr4\nor eax, 0x600\nmov cr4, rax\n" + _turns(there)
    ticks = _shown(guest(source), SLOW, event, hidden)
    assert all(0 < each < FEW for each in ticks) if hidden else min(ticks) > NOPS, ticks


@pytest.mark.parametrize("hidden", [False, True])
def test_what_a_filter_leaves_out_takes_no_time_either(guest, hidden):
    """The exit is the watcher's all the same."""
    made = guest(_turns("mov rax, cr3; mov cr3, rax"))
    made.exec(f"vm.hide_stops = {hidden}")
    made.policy("CR, number=3, cpl=3", "pass")
    made.halted()
    assert made.eval("vm.policies[0].hits") == 0
    ticks = statistics.median(made.words(TURNS))
    assert ticks < FEW if hidden else ticks > 3 * FEW


@pytest.mark.parametrize("hidden", [False, True])
def test_steps_take_no_time(guest, hidden):
    made = guest(_turns("nop"))
    made.exec(f"vm.hide_stops = {hidden}")
    made.exec("vm.step(60); vm.resume()")
    made.halted()
    ticks = max(made.words(TURNS))
    assert ticks < 10 * FEW if hidden else ticks > NOPS, ticks


@pytest.mark.parametrize("hidden", [False, True])
def test_gdb_takes_no_time(bench, guest, hidden):
    made = guest(_turns("nop"))
    made.exec(f"vm.hide_stops = {hidden}")
    session = attached(bench.monitor, made.eval("min(vm.vpids)"))
    try:
        out = session(f"break *{_there(made):#x}", *["c"] * TURNS, "stepi", "p/x $rip")
        assert f"$1 = {_there(made) + 1:#x}" in out
    finally:
        session.quit()
    made.halted()
    ticks = made.words(TURNS)
    assert all(0 < each < FEW for each in ticks) if hidden else min(ticks) > NOPS, ticks


@pytest.mark.parametrize("hidden", [False, True])
def test_a_pause_takes_no_time(guest, hidden):
    made = guest(GAP)
    made.exec(f"vm.hide_stops = {hidden}")
    made.until(f"vm.memory.read_u64({DATA + 8:#x}) > 1000")
    made.exec("vm.pause(); before = vm.clock.now(); time.sleep(3); after = vm.clock.now(); vm.resume()")
    made.until(f"vm.memory.read_u64({DATA + 8:#x}) > 100000")
    gap = made.word()
    assert made.eval("after - before") == 0 if hidden else made.eval("after - before") > 2 * SECOND
    assert gap < SECOND // 10 if hidden else gap > 2 * SECOND, gap


@pytest.mark.parametrize("hidden", [False, True])
def test_time_by_the_event_of_time(guest, hidden):
    made = guest(GAP)
    made.exec(f"vm.hide_stops = {hidden}")
    made.policy("TIME, ticks=10_000_000", "time.sleep_ms(200)")
    made.until(f"vm.memory.read_u64({DATA + 8:#x}) > 1000 and vm.policies[0].hits > 4", 60000)
    gap = made.word()
    assert gap < SECOND // 10 if hidden else gap > SECOND // 10, gap


SAMPLE = f"""
    rdtsc
    mov [rbx], eax
    mov dx, {PM_TMR_BLK}
    in eax, dx
    mov [rbx + 8], eax
    mov eax, [rdi + 0xf0]
    mov [rbx + 16], eax
    xor eax, eax
    out 0x43, al
    in al, 0x40
    mov ah, al
    in al, 0x40
    xchg al, ah
    mov [rbx + 24], eax
    xor eax, eax
    out 0x70, al
    in al, 0x71
    mov [rbx + 32], eax
    rdtsc
    mov [rbx + 40], eax
"""
CLOCKS = f"""
    mov al, 0x34
    out 0x43, al
    xor eax, eax
    out 0x40, al
    out 0x40, al
    mov edi, {HPET:#x}
    mov dword ptr [rdi + 0x10], 1
    mov rbx, {DATA:#x}
    {SAMPLE}
    mov rbx, {DATA + 0x40:#x}
    {SAMPLE}
    call there
    mov rbx, {DATA + 0x80:#x}
    {SAMPLE}
    hlt
there:
    nop
    ret
"""
COUNTERS = (
    (8, 3579545, 1 << 32, 1),
    (16, None, 1 << 32, 1),
    (24, 1193182, 1 << 16, -1),
)  # offset, Hz, wraps, direction


@pytest.mark.parametrize("hidden", [False, True])
def test_all_clocks_agree(guest, hidden):
    """TSC, power management timer, HPET, 8254 and MC146818 stand still together."""
    made = guest(CLOCKS)
    made.exec(f"vm.hide_stops = {hidden}")
    made.policy(f"EXECUTE, gpa={_there(made):#x}, once=True", "return PAUSED")
    made.until("vm.state == 'paused'")
    made.exec("time.sleep(3); vm.resume()")
    made.halted()
    hz = made.eval("vm.clock.hz")
    hpet = made.eval("__import__('vmm.devices.hpet_comparators', None, None, ('FREQUENCY',)).FREQUENCY")
    _, before, after = (made.words(6, first) for first in (0, 8, 16))
    passed = (after[0] - before[0]) % (1 << 32)
    if not hidden:
        assert passed > 2 * SECOND and after[4] != before[4]
        return
    assert 0 < passed < SECOND // 1000
    for offset, frequency, wraps, direction in COUNTERS:
        at = offset // 8
        counted = direction * (after[at] - before[at]) % wraps * hz // (frequency or hpet)
        assert abs(counted - passed) < 3000, (offset, counted, passed)
    assert after[4] in (before[4], before[4] + 1)


DEADLINE = (
    deadline_timer(0x40)
    + """
    rdtsc
    shl rdx, 32
    or rax, rdx
    add rax, 3000000
    mov r8, rax
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0x6e0
    wrmsr
    sti
    call there
spin:
    jmp spin
    hlt
there:
    nop
    ret
"""
)
LATE = f"rdtsc; shl rdx, 32; or rax, rdx; sub rax, r8; mov [{DATA:#x}], rax; hlt"


def test_a_deadline_is_met_as_late_as_without_the_stop(guest):
    """Neither early, by the host's time, nor at the end of the stop."""
    late = {}
    for hidden in (None, False, True):
        made = guest(DEADLINE, handlers={0x40: LATE})
        if hidden is not None:
            made.exec(f"vm.hide_stops = {hidden}")
            made.policy(f"EXECUTE, gpa={_there(made):#x}, once=True", "return PAUSED")
            made.until("vm.state == 'paused'")
            made.exec("time.sleep(3); vm.resume()")
        made.halted()
        late[hidden] = made.word()
    assert late[False] > SECOND
    assert 0 < late[None] < 50_000 and 0 < late[True] < 50_000, late


@pytest.mark.parametrize("hidden", [False, True])
def test_a_guest_that_waits_wakes_up_as_late(guest, hidden):
    """It is paused at HLT, and its timer is due later by as much."""
    made = guest(DEADLINE.replace("call there", "hlt"), handlers={0x40: LATE})
    made.exec(f"vm.hide_stops = {hidden}")
    made.exec("vm.resume()\nwhile vm.state != 'halted': time.sleep_us(100)\nvm.pause(); time.sleep(3); vm.resume()")
    made.until(f"vm.memory.read_u64({DATA:#x}) != 0")
    assert made.word() > SECOND if not hidden else made.word() < 100_000, made.word()


FIRST = (
    start_others(AP)
    + f"""
    mov r10, {SEEN:#x}
    xor r11d, r11d
started:
    cmp dword ptr [r10], 0
    je started
"""
    + _turns("nop").replace(
        "again:",
        """again:
    mov esi, [r10]
    rdtsc
    cmp eax, esi
    jae forward
    inc r11d
    mov [r10 + 12], r11d
forward:
    mov [r10 + 4], eax
""",
    )
)
OTHER = f"""
    xor ax, ax
    mov ds, ax
    rdtsc
    mov ecx, eax
again:
    mov esi, [{SEEN + 4:#x}]
    rdtsc
    cmp eax, esi
    jae forward
    inc dword ptr [{SEEN + 12:#x}]
forward:
    mov [{SEEN:#x}], eax
    mov ebx, eax
    sub ebx, ecx
    mov ecx, eax
    cmp ebx, [{SEEN + 8:#x}]
    jbe again
    mov [{SEEN + 8:#x}], ebx
    jmp again
"""


@pytest.mark.parametrize("hidden", [False, True])
def test_the_tscs_of_all_vcpus_stand_still(guest, hidden):
    made = guest(FIRST, start=False, cpus=2)
    made.exec(
        f"vm.hide_stops = {hidden}\nwith still():\n    vm.start(); vm.pause()\n"
        f"    vm.memory.write({AP:#x}, {assemble(OTHER, 16, AP)!r})"
    )
    made.policy(f"EXECUTE, gpa={_there(made):#x}", "time.sleep_ms(300)")
    made.until("vm.vcpu.scheduled.state == 'halted'", 60000)
    gap, back = made.eval(f"(vm.memory.read_u32({SEEN + 8:#x}), vm.memory.read_u32({SEEN + 12:#x}))")
    assert made.eval("vm.policies[0].hits") == TURNS
    assert back == 0  # the TSC of one is never behind what the other has seen
    assert made.eval("vm.vcpus[0].clock.skew == vm.vcpus[1].clock.skew")
    assert gap < SECOND // 5 if hidden else gap > SECOND // 5, gap


def test_it_is_switched_on_and_off(guest):
    made = guest(_turns("nop"), hide_stops=True)
    assert made.eval("vm.hide_stops") is True
    assert made.refused("vm.hide_stops = 1") == "ValueError: hide_stops 1: True or False"
    made.exec("vm.hide_stops = False")
    assert made.eval("vm.hide_stops") is False and made.eval("vm.stops") is None
    made.policy(f"EXECUTE, gpa={_there(made):#x}", SLOW)
    made.halted()
    assert min(made.words(TURNS)) > NOPS
    made.exec("vm.reset()")
    made.exec("vm.hide_stops = True")
    made.until(f"vm.state == 'halted' and vm.policies[0].hits >= {TURNS + 1}")


def test_a_reset_in_a_stop(guest):
    made = guest(GAP, hide_stops=True)
    made.exec("vm.pause(); time.sleep(1); vm.reset()")
    made.until(f"vm.memory.read_u64({DATA + 8:#x}) > 1000")
    assert made.eval("vm.vcpu.clock.skew + vm.clock.now()") < SECOND  # TSC, from 0 at the reset
