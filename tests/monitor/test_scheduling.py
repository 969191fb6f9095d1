"""The usual rule: priorities, shares, turns of 10 ms, and what sched.top() says of it."""

import metronome
import pytest
from bench import DATA

MS = 100_000  # ticks
SLICE = 10 * MS
BUSY = f"again: inc qword ptr [{DATA:#x}]; jmp again"

# Notes the longest time between two looks at its clock, most of which another guest had.
GAPS = f"""
    xor r8d, r8d
again:
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov rcx, rax
    sub rcx, r8
    mov r8, rax
    cmp rcx, [{DATA:#x}]
    jbe again
    mov [{DATA:#x}], rcx
    jmp again
"""


def spin(ticks):
    """Code of a handler that takes so long."""
    return f"mov ecx, {ticks // 2}\nspin: dec ecx\njnz spin"


def used(bench, guests, ms):
    """What part of the next so many ms each guest uses, with what the monitor does for it."""
    refs = ", ".join(one.ref for one in guests)
    printed = bench.exec(
        "import cpu\n"
        f"time.sleep_ms(10)\nbefore = cpu.rdtsc(), [sum(vm.ticks()) for vm in ({refs},)]\ntime.sleep_ms({ms})\n"
        f"passed = cpu.rdtsc() - before[0]\n"
        f"print('used', *[(sum(vm.ticks()) - had) / passed for vm, had in zip(({refs},), before[1])])"
    )
    return [float(part) for part in printed.rpartition("used")[2].split()]


@pytest.fixture
def running(guest):
    def make(source, **options):
        made = guest(source, **options)
        made.go()
        return made

    return make


def top(bench, ms):
    """The rows of sched.top() over so many ms, and what metronomes have seen themselves:
    {name: [state, priority, GUEST%, HOST%, wake-ups, mean, most, most by itself]}."""
    printed = bench.exec(
        "time.sleep_ms(10)\nsched.top()\nprint('begin')\ntime.sleep_ms(10)\n"  # printing has delayed them
        "with still():\n    for vm in vms.values():\n"
        f"        vm.used()\n        vm.memory.write_u64({DATA + 8 * metronome.LATEST:#x}, 0)\n"
        f"    sched._started = __import__('cpu').rdtsc()\ntime.sleep_ms({ms})\n"
        f"with still():\n"
        f"    late = [vm.memory.read_u64({DATA + 8 * metronome.LATEST:#x}) for vm in sched.machines]\n"
        "    sched.top()\nprint(*late)"
    )
    rows = [line.split() for line in printed.rpartition("begin")[2].strip().splitlines()[1:]]
    rows = [[*row, late] for row, late in zip(rows, rows.pop(), strict=True)]
    return {name: [state, *map(float, numbers)] for name, state, *numbers in rows}


@pytest.mark.parametrize("ticks", [0, 1], ids=["by-themselves", "below-a-tick"])
def test_equals_alternate_every_10_ms(bench, running, guest, ticks):
    """A turn goes on after host interrupts, and after a guest above whose timer was due in its middle."""
    pair = running(GAPS), running(GAPS)
    if ticks:
        metronome.start(guest)
    refs = ", ".join(one.ref for one in pair)
    printed = bench.exec(
        f"time.sleep_ms(30)\nfor vm in ({refs}): vm.memory.write_u64({DATA:#x}, 0)\nbefore = sched.switches\n"
        f"time.sleep_ms(300)\n"
        f"print(sched.switches - before, *[vm.memory.read_u64({DATA:#x}) for vm in ({refs})])"
    )
    switches, *gaps = map(int, printed.split())
    assert 27 + ticks * 570 <= switches <= 33 + ticks * 600  # there and back, or on to the other
    for gap in gaps:
        assert 0.9 * SLICE <= gap <= 1.2 * SLICE


STANDS = {
    "slept": "wait(vm, lambda: vm.state == 'halted')\ntime.sleep_ms(100)\nvm.nmi()\n",
    "was paused": "vm.nmi()\ntime.sleep_ms(20)\nvm.pause()\ntime.sleep_ms(100)\nvm.resume()\n",
}


@pytest.mark.parametrize("how", STANDS)
def test_who_stood_still_gets_nothing_back(bench, running, how):
    """Who had the CPU alone meanwhile waits for one turn of the other's at a time."""
    alone = running(GAPS)
    other = running(f"hlt; {BUSY}", handlers={2: "iretq"})
    gap = other.exec(
        f"{STANDS[how]}{alone.ref}.memory.write_u64({DATA:#x}, 0)\ntime.sleep_ms(200)\n"
        f"print({alone.ref}.memory.read_u64({DATA:#x}))"
    )
    assert other.word() > 0
    assert 0.9 * SLICE <= int(gap) <= 1.2 * SLICE


def test_shares_of_equals(bench, running):
    small, large = running(BUSY, share=100), running(BUSY, share=300)
    parts = used(bench, [small, large], 400)
    assert sum(parts) > 0.9
    assert parts[1] / parts[0] == pytest.approx(3, rel=0.15)
    small.exec("vm.share = 900")
    parts = used(bench, [small, large], 400)
    assert parts[0] / parts[1] == pytest.approx(3, rel=0.15)


def test_a_halt_gives_the_cpu_away_at_once(bench, running, guest):
    working = metronome.start(guest, spin(MS), period=SLICE, priority=0)
    other = running(BUSY)
    parts = used(bench, [working, other], 400)
    assert parts[0] == pytest.approx(0.1, abs=0.02)
    assert parts[1] == pytest.approx(0.9, abs=0.04)


def test_who_is_above_leaves_nothing(bench, running):
    above, below = running(BUSY, priority=1), running(BUSY)
    assert used(bench, [above, below], 100)[1] == 0
    above.exec("vm.priority = 0")
    assert min(used(bench, [above, below], 200)) > 0.4
    below.exec("vm.priority = 7")
    assert used(bench, [above, below], 100)[0] == 0


@pytest.mark.parametrize("share", [1, 10000])
def test_a_guest_above_does_not_make_those_below_wait_for_each_other(bench, running, guest, share):
    """Who wakes up starts where its equals are, whatever those have used that go before all of them."""
    running(BUSY, share=share)
    waking = metronome.start(guest, period=SLICE, priority=0, share=1000)
    metronome.start(guest, spin(40_000))
    bench.run(50)
    count = waking.word(metronome.COUNT)
    latest = metronome.latest(waking, 200)
    print("latest", latest)
    assert waking.word(metronome.COUNT) - count >= 20
    assert latest < SLICE  # not the seconds that those above have used


def test_short_turns_count(bench, running, guest):
    """One of 30,000 ticks counts to one of the largest share, too."""
    pair = [running(BUSY, share=share) for share in (2500, 10000)]
    metronome.start(guest, spin(60_000))
    bench.run(50)
    parts = used(bench, pair, 400)
    assert parts[1] / parts[0] == pytest.approx(4, rel=0.15)


CALMS_DOWN = """
def calm(vcpu):
    vcpu.vm.priority = 0
    return 0
vm.hypercalls.add(0x600, calm)
"""


def test_a_guest_that_changes_its_priority_takes_no_turns_along(bench, running):
    """In the middle of its own turn: its virtual time is that of its new equals then."""
    moving = running(f"mov ecx, 10000000; high: dec ecx; jnz high; mov eax, 0x600; vmcall; {BUSY}", priority=3)
    moving.exec(CALMS_DOWN)
    other = running(BUSY)
    moving.until("vm.priority == 0")
    assert min(used(bench, [moving, other], 200)) > 0.4


MOVES = """
at = len(seen)
for vm, priority in zip(moved, ((9, 0, 5), (0, 9, 3), (5, 5, 5), (6, 4, 5))[at & 3]):
    vm.priority = priority
seen.append((sched.inside is vcpu.vm, [vm.priority for vm in sched.machines]))
if at == 15:
    return PAUSED
"""


def test_a_policy_moves_guests_past_each_other(bench, running, guest):
    """What it answers is for the guest whose exit it is, wherever that stands among the others by then."""
    sleepers = guest("again: hlt; jmp again", priority=5), guest("again: hlt; jmp again", priority=5)
    for sleeper in sleepers:
        sleeper.go()
    caller = guest("again: cpuid; jmp again", priority=5)
    bench.exec(f"seen = []\nmoved = [{', '.join(one.ref for one in (*sleepers, caller))}]")
    caller.policy("CPUID", MOVES)
    caller.go()
    caller.until("vm.state == 'paused'")
    seen = bench.eval("seen")
    assert len(seen) == 16
    for inside, priorities in seen:
        assert inside
        assert priorities == sorted(priorities, reverse=True)
    assert [bench.eval(f"{one.ref}.state") for one in sleepers] == ["halted", "halted"]


WRONG = [
    ("share", "0"), ("share", "10001"), ("share", "'7'"), ("share", "1.5"), ("priority", "-1"), ("priority", "256"),
    ("priority", "None"),
]  # fmt: skip


def test_wrong_values_are_refused(guest):
    made = guest("hlt", share=200, priority=2)
    for name, value in WRONG:
        span = "1 to 10000" if name == "share" else "0 to 255"
        assert made.refused(f"vm.{name} = {value}") == f"ValueError: {name} {value}: a number from {span}"
    assert made.eval("(vm.share, vm.priority)") == (200, 2)


def test_top_counts_wake_ups_and_their_lateness(bench, running, guest):
    ticking = metronome.start(guest)
    slow = metronome.start(guest, period=SLICE, priority=0)
    storm = running("again: mov eax, 0x40000000; cpuid; jmp again")
    # Between an entry and the handler's first look at the clock may come a turn of the metronome above, but none of
    # the other guest, and the prompt's turn, but not every time.
    for _ in range(3):
        rows = top(bench, 200)
        for made, period in ((ticking, MS), (slow, SLICE)):
            wakes, mean, most, seen = rows[made.name][4:]
            assert wakes == pytest.approx(200 * MS / period, abs=4)
            assert 0 <= mean <= most <= seen
        if all(seen <= most + 15_000 for *_, most, seen in (rows[ticking.name], rows[slow.name])):
            break
    else:
        pytest.fail(f"late by themselves, in time for the monitor: {rows}")
    assert rows[slow.name][5] > 1500  # at priority 0 it is woken at its deadline, and has the way to wait for
    assert rows[ticking.name][5] < 1000
    assert rows[storm.name][4:7] == [0, 0, 0]
    assert 80 < sum(row[2] + row[3] for row in rows.values()) < 101  # the rest is the scheduler's own


def test_top_says_what_the_monitor_used_for_each(bench, running):
    storm = running("again: mov eax, 0x40000000; cpuid; jmp again")
    quiet = running(BUSY)
    costs = f"before = sum([ticks for _, ticks in {storm.ref}.exit_counts().values()])"
    printed = bench.exec(
        f"import cpu\ntime.sleep_ms(10)\nsched.top()\n{costs}\nbegan = cpu.rdtsc()\ntime.sleep_ms(300)\n"
        f"passed = cpu.rdtsc() - began\nprint('begin')\nsched.top()\nwas = before\n{costs}\n"
        "print((before - was) * 100 / passed)"
    )
    *rows, part = printed.rpartition("begin")[2].strip().splitlines()
    rows = {name: line for name, *line in map(str.split, rows)}
    assert float(rows[storm.name][3]) == pytest.approx(float(part), abs=2)
    assert float(rows[storm.name][3]) > 20
    assert float(rows[quiet.name][3]) < 3
    assert float(rows[quiet.name][2]) == pytest.approx(50, abs=5)
