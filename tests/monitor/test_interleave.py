"""vm.interleave: the order of a guest's vCPUs is the user's, and the same answers give the same order."""

import pytest
from bench import DATA, start_others

AP = 0x8000  # where the second processor starts
COUNT = 0x3000
DONE = 0x3004
ROUNDS = 5

# Both add to a word, each by a load and a store of its own: an update is lost where the other comes in between.
BOOT = f"""{start_others(AP)}
    mov ebx, {COUNT:#x}
    mov edi, {DATA:#x}
    mov esi, {ROUNDS}
again:
    mov eax, [rbx]
    inc eax
    mov [rbx], eax
    dec esi
    jnz again
wait:
    pause
    cmp dword ptr [rbx + {DONE - COUNT}], 1
    jne wait
    mov eax, [rbx]
    mov [rdi], eax
    hlt
"""
SECOND = f"""
    xor ax, ax
    mov ds, ax
    mov cx, {ROUNDS}
again:
    mov eax, [{COUNT:#x}]
    inc eax
    mov [{COUNT:#x}], eax
    dec cx
    jnz again
    mov dword ptr [{DONE:#x}], 1
    hlt
"""
RUN = f"""
from vmm.scheduling.interleave import Random, Replay, RoundRobin, Starve
def run(order):
    with still():
        vm.interleave = order
        vm.start()
        vm.memory.write({AP:#x}, code)
    assert wait(vm, lambda: vm.state == 'halted'), (vms, [hex(v.rip) for v in vm.vcpus])
    return vm.memory.read_u32({DATA:#x}), vm.interleave.schedule if vm.interleave else None
"""


@pytest.fixture(scope="module")
def pair(bench):
    from pcanel.assemble import assemble

    guest = bench.guest(BOOT, start=False, cpus=2)
    guest.exec(f"code = {assemble(SECOND, 16, AP)!r}\n{RUN}")
    yield guest
    guest.destroy()


def test_without_one_both_run(pair):
    assert pair.eval("run(None)") == (2 * ROUNDS, None)
    assert pair.eval("[v.scheduled.state for v in vm.vcpus]") == ["halted", "halted"]


def test_the_same_seed_gives_the_same_order(pair):
    first = pair.eval("run(Random(3, instructions=1))")
    assert first == pair.eval("run(Random(3, instructions=1))")
    assert len(first[1]) > 10
    assert {number for number, _ in first[1]} == {0, 1}
    assert first[1] != pair.eval("run(Random(4, instructions=1))")[1]


def test_a_lost_update_is_found_and_replayed(pair):
    pair.exec("""
for seed in range(100):
    count, schedule = run(Random(seed, instructions=1))
    if count != 10: break
""")
    count, schedule = pair.eval("(count, schedule)")
    assert count < 2 * ROUNDS
    assert pair.eval("run(Replay(schedule, instructions=1))") == (count, schedule)
    assert pair.eval("vm.interleave.function.diverged") is None


def test_starved_it_runs_when_the_other_waits_for_it(pair):
    """It has the fewest instructions between the other's PAUSEs, and gets no update in between the other's."""
    count, schedule = pair.eval("run(Starve(1, instructions=1))")
    assert count == 2 * ROUNDS
    assert schedule[0][0] == 0 and schedule[0][1] > 4 * ROUNDS


def test_ticks_and_exits(pair):
    _, by_exits = pair.eval("run(RoundRobin())")
    _, by_ticks = pair.eval("run(RoundRobin(ticks=100))")
    assert sum(points for _, points in by_ticks) >= sum(points for _, points in by_exits) > 3


def test_one_that_fails_is_removed_and_the_guest_runs_on(pair):
    said = pair.exec("print(run(lambda vm, runnable, why: 1 // 0), vm.interleave)")
    assert "interleave of guest" in said and "failed and is removed" in said and "ZeroDivisionError" in said
    assert said.splitlines()[-1] == f"({2 * ROUNDS}, None) None"
    assert "which cannot run" in pair.exec("print(run(lambda vm, runnable, why: vm))")


def test_why_it_is_asked(pair):
    pair.exec("""
seen = set()
def last(vm, runnable, why):
    seen.add(why)
    return runnable[-1]
run(last)
""")
    seen = pair.eval("seen")
    assert {"START", "WRMSR", "HALT"} <= seen <= {"START", "WRMSR", "RDMSR", "HALT", "PAUSE", "HLT"}


def test_nonsense_is_refused(bench, pair):
    assert "a function of (vm, runnable, why), not 3" in pair.refused("vm.interleave = 3")
    assert "a number from 0" in pair.refused("vm.interleave = RoundRobin(ticks=-1)")
    alone = bench.guest("hlt", start=False)
    assert "has one vCPU" in alone.refused("vm.interleave = RoundRobin()")
    alone.destroy()
