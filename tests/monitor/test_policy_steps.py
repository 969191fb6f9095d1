"""Policies on single steps, on the ends of a guest, and on what several need of all processors."""

from bench import DATA, HANDLERS
from policy_runs import ARMED, STORE
from ring3 import RESUME, USER, ring3


def test_single_steps(guest, bench):
    """Each instruction once, one that exits by itself without a step after it; HANDLED skips the next one."""
    source = "mov eax, 1\nnop\nmov eax, 0x40000000\ncpuid\nadd eax, 2\nmov ecx, 3\nrep stosb\n"
    made = guest(f"mov edi, {DATA + 0x100:#x}\n" + source + STORE)
    if not bench.eval("monitor.trial.mtf"):
        assert "monitor trap flag" in made.refused("vm.on(STEP)") or "lacks" in made.refused("vm.on(STEP)")
        return
    before = made.eval(ARMED)
    made.exec("seen = []")
    made.policy("STEP", "seen.append(vcpu.rip)\nif vcpu.peek(vcpu.rip, 1) == b'\\x90': return HANDLED")
    start = made.eval("vcpu.rip")
    made.halted()
    seen = made.eval("seen")
    # mov rsp, mov edi, mov eax, (nop: skipped), mov eax, cpuid: no step; add, mov ecx, three of rep stosb, ...
    offsets = [at - start for at in seen]
    assert offsets == sorted(offsets)
    assert len(offsets) - len(set(offsets)) == 2
    assert made.eval(ARMED) != before
    made.exec("p.detach()")
    assert made.eval(ARMED) == before
    assert len(offsets) == 14


def test_single_steps_narrowed_and_with_a_watched_page(guest, bench):
    """A step that lets an access to a watched page happen is a single step of the guest's, too."""
    if not bench.eval("monitor.trial.mtf"):
        return
    source = f"mov edi, {DATA + 0x1000:#x}\nmov ecx, 1\nrep movsb\nlock add [rdi], ecx\nfnstcw [rdi]\nnop\n"
    rips = {}
    for name in ("alone", "both"):
        made = guest(f"mov esi, {DATA:#x}\n" + source + STORE)
        made.exec("seen = []")
        made.policy("STEP", "seen.append(vcpu.rip)")
        if name == "both":
            made.policy(f"MEMORY, gpa={DATA + 0x1000:#x}", "pass", "q")
        made.halted()
        rips[name] = set(made.eval("seen"))
    assert len(rips["alone"] - rips["both"]) <= 2  # what the monitor executes itself has no step
    made = guest(source + STORE)
    made.exec("p = vm.on(STEP, once=True)(lambda vcpu: PAUSED)")
    made.until("vm.state == 'paused'")
    made.exec("vm.resume()")
    made.halted()
    assert made.eval("p.hits") == 1


SHUT_DOWN = "ud2\nmov eax, 5\n"  # there is no IDT


BRANCHES = """
    lea r8, [rip + again]
    lea r9, [rip + f]
    lea r10, [rip + over]
    mov ecx, 3
again:
    nop
    dec ecx
    jnz again
    test ecx, ecx
    jnz again
    call f
    jmp over
f:
    ret
over:
    jmp next
next:
    mov eax, 7
"""


def test_branches_that_are_taken(guest, bench):
    """And none that leads to the next instruction."""
    if not bench.eval("monitor.trial.mtf"):
        return
    made = guest(BRANCHES + STORE)
    made.exec("seen = []")
    made.policy("STEP, branches=True", "seen.append(vcpu.rip)")
    made.halted()
    again, f, over = made.eval("(vcpu.r8, vcpu.r9, vcpu.r10)")
    assert made.eval("seen") == [again, again, f, f - 2, over]
    assert made.word() == 7


def test_changes_of_ring(guest, bench):
    """By SYSRET, by an exception, and by the handler's IRET."""
    if not bench.eval("monitor.trial.mtf"):
        return
    code = f"mov eax, 1\nud2\nmov [{DATA + 8:#x}], rax\nx: jmp x"
    made = ring3(guest, f"mov r15, {DATA:#x}\nmov r14d, 2", code, handlers={6: RESUME[6]})
    made.exec("seen = []")
    made.policy("RING", "seen.append((vcpu.cpl, vcpu.rip))")
    made.policy("RING, to=3", "pass", "q")
    made.policy("RING, before=3, to=0", "pass", "r")
    made.policy("RING, cpl=3", "pass", "s")
    made.until(f"vm.memory.read_u64({DATA + 8:#x}) == 1")
    assert made.eval("seen") == [(3, USER), (0, HANDLERS), (3, USER + 7)]
    assert made.eval("(q.hits, r.hits, s.hits)") == (2, 1, 2)
    assert "both are the level that follows" in made.refused("vm.on(RING, to=0, cpl=3)")


def test_triple_fault(guest):
    """HANDLED goes on from the registers that the policy sets; paused, the guest can be looked at first."""
    made = guest(SHUT_DOWN + STORE, on_triple_fault="stop")
    made.policy("TRIPLE_FAULT, cpl=0", "vcpu.rip += 2\nreturn HANDLED")
    made.halted()
    assert (made.word(), made.eval("p.hits")) == (5, 1)
    made = guest(SHUT_DOWN + STORE, on_triple_fault="stop")
    made.policy("TRIPLE_FAULT", "return PAUSED")
    made.until("vm.state == 'paused'")
    made.exec("vm.resume()")
    made.until("vm.state == 'stopped'")
    assert (made.eval("vm.why").startswith("triple fault"), made.eval("p.hits")) == (True, 1)


def test_reset(guest):
    """Without an answer the guest's file decides; HANDLED drops the reset, and so does a pause."""
    source = "mov dx, 0xcf9\nmov al, 6\nout dx, al\nmov eax, 7\n"
    for body, state in (("pass", "off"), ("return HANDLED", "halted"), ("return PAUSED", "paused")):
        made = guest(source + STORE, on_reset="power-off")
        made.policy("RESET", body)
        made.until(f"vm.state == {state!r}")
        if state == "paused":
            made.exec("vm.resume()")
            made.halted()
        assert made.eval("p.hits") == 1
        assert state == "off" or made.word() == 7


def test_what_several_need_is_counted_on_all_processors(guest, bench):
    """Policies and vm.interleave need the same bits: each goes with the last of them."""
    if not bench.eval("monitor.trial.mtf"):
        return
    made = guest("mov rax, cr0\nxor eax, 0x10000\nmov cr0, rax\nhlt", cpus=2)
    armed = f"[{ARMED} for vcpu in vm.vcpus]"
    before = made.eval(armed)
    made.exec("held = [vm.on(event)(lambda vcpu: None) for event in (CR, STEP, PAUSE)]")
    made.exec("vm.interleave = lambda vm, runnable, why: runnable[0]")
    watched = made.eval(armed)
    assert watched[0] == watched[1] != before[0]
    made.halted()
    assert made.eval("held[0].hits") == 1
    made.exec("vm.interleave = None")
    assert made.eval(armed) == watched
    made.exec("for p in held: p.detach()")
    assert made.eval(armed) == before
