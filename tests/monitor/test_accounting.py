"""What the monitor does for a guest outside of its exits is charged to it: equals get their shares, and sched.top()
shows who has cost what."""

import metronome
import pytest
from bench import CODE, DATA
from test_collection import GARBAGE
from test_hostile import PRINTS, SENDS
from test_scheduling import BUSY, used

MS = 100_000  # ticks


@pytest.fixture
def equal(guest):
    made = guest(BUSY)
    made.go()
    return made


def top(bench, ms):
    """{name: (GUEST%, HOST%)} over so many ms."""
    printed = bench.exec(f"sched.top()\nprint('begin')\ntime.sleep_ms({ms})\nsched.top()")
    rows = [line.split() for line in printed.rpartition("NAME")[2].splitlines()[1:]]
    return {row[0]: (float(row[3]), float(row[4])) for row in rows if len(row) == 8 and row[0].isalnum()}


# Everything that a guest can have done for it, beside an equal that only counts.
LOADS = {
    "starts again and again": (
        "ud2",
        {"memory": 16 << 20, "on_triple_fault": "reset"},
        "vm.backoff.wait_ms = lambda: 0",
    ),
    "makes garbage": ("again: cpuid; jmp again", {}, GARBAGE),
    "prints without end": (PRINTS, {"handlers": {0x40: SENDS}, "console": "com2"}, ""),
    "wakes up all the time": ("again: sti; hlt; cli; jmp again", {}, ""),
}
TICKS = """
mov rsi, 0xfee00000
mov dword ptr [rsi + 0xf0], 0x1ff
mov dword ptr [rsi + 0x3e0], 0xb
mov dword ptr [rsi + 0x320], 0x20041
mov dword ptr [rsi + 0x380], 5000
"""
ENDS_TICK = "mov dword ptr [rsi + 0xb0], 0\niretq"


@pytest.mark.parametrize("how", LOADS)
def test_an_equal_gets_its_share(bench, guest, equal, how):
    source, options, setup = LOADS[how]
    if how.startswith("wakes"):
        source, options = TICKS + source, {"handlers": {0x41: ENDS_TICK}}
    loading = guest(source, **options)
    loading.exec(setup)
    loading.go()
    bench.run(200)
    parts = used(bench, [equal, loading], 600)
    print(how, parts)
    assert parts[0] > 0.4
    assert sum(parts) > 0.9  # nothing that is worth mentioning was nobody's
    if how.startswith(("starts", "makes")):
        assert parts[1] > 0.4
        rows = top(bench, 300)
        assert rows[loading.name][1] > 30
        assert sum(map(sum, rows.values())) < 101


FLOODS = "mov dx, 0x2f8; again: out dx, al; inc qword ptr [%#x]; jmp again" % (DATA + 8)
TAKES = """
mov dx, 0x2fa; mov al, 7; out dx, al
again: mov dx, 0x2fd; in al, dx; test al, 1; jz again
mov dx, 0x2f8; in al, dx; jmp again
"""


def test_who_floods_a_neighbour_pays(bench, guest, equal):
    """Both ends of the cable together get two shares of three, whatever passes over it; a guest above interrupts them,
    so that characters are put off and settled."""
    far = guest(TAKES)
    sender = guest(FLOODS, links=[{"uart": "com2", "to": f"{far.name}:com2"}])
    metronome.start(guest)
    far.go()
    sender.go()
    bench.run(100)
    parts = used(bench, [equal, sender, far], 400)
    print("flood", parts)
    assert parts[0] > 0.25
    assert sender.eval("monitor.links.ends(vm.name)[0].sent") > 100


LAPIC = """
mov rsi, 0xfee00000
mov dword ptr [rsi + 0xf0], 0x1ff
mov dword ptr [rsi + 0x3e0], 0xb
mov dword ptr [rsi + 0x320], {lvt:#x}
mov dword ptr [rsi + 0x380], {count}
"""
PIC = "mov al, 0x11; out 0x20, al; mov al, 0x20; out 0x21, al; mov al, 4; out 0x21, al; mov al, 1; out 0x21, al\n"
PIT = "mov al, 0x34; out 0x43, al; mov al, {low}; out 0x40, al; mov al, {high}; out 0x40, al\n"
RTC = "mov al, 0xa; out 0x70, al; mov al, 0x23; out 0x71, al; mov al, 0xb; out 0x70, al; mov al, 0x42; out 0x71, al\n"
MASK = "mov al, {mask}; out 0x21, al\n"
UNMASKED = PIC + MASK.format(mask=0xFE)
TIMERS = {
    "local APIC": LAPIC.format(lvt=0x20040, count=1000),
    "local APIC, masked": LAPIC.format(lvt=0x30040, count=1000),
    "local APIC, illegal vector": LAPIC.format(lvt=0x20005, count=1000),
    "8254": UNMASKED + PIT.format(low=10, high=0),
    "8254, masked": PIT.format(low=10, high=0),
    "8254, mode 3": UNMASKED + PIT.format(low=100, high=0).replace("0x34", "0x36"),
    "RTC": RTC,
}


@pytest.mark.parametrize("name", TIMERS)
def test_timers_that_nobody_takes_cost_nothing(bench, guest, name):
    """Halted for good, or running with interrupts off: ticks of a timer are computed, not polled."""
    halted = guest(TIMERS[name] + "cli; hlt")
    halted.halted()
    running = guest(TIMERS[name] + f"cli; {BUSY}")
    running.go()
    bench.run(20)
    halts, runs = f"sum({halted.ref}.ticks())", f"{running.ref}.exit_counts().get('PREEMPTION_TIMER_EXPIRED', (0,))[0]"
    printed = bench.exec(f"a = {halts}, {runs}\ntime.sleep_ms(200)\nprint({halts} - a[0], {runs} - a[1])")
    ticks, exits = map(int, printed.split())
    print(name, ticks, exits)
    assert ticks == 0
    assert exits <= 200 * 1.5  # a look each ms where an interrupt waits to be taken, and turns


BEGAN = "rdtsc; shl rdx, 32; or rax, rdx; mov [%#x], rax\n" % DATA
COUNT = DATA + 8
WAKES = (
    BEGAN
    + """
{timer}
cli
hlt
sti
idle: hlt; jmp idle
"""
)
END_APIC = "mov dword ptr [rsi + 0xb0], 0"
END_PIC = "push rax; mov al, 0x20; out 0x20, al; pop rax"
COUNTS = {
    "local APIC": (LAPIC.format(lvt=0x20040, count=MS), 0x40, END_APIC),
    "8254": (UNMASKED + PIT.format(low=0xA9, high=4), 0x20, END_PIC),
}
# How many ticks of 1 ms its interrupts have counted, and how many there were since BEGAN.
TSC = "vm.clock.now() + vm.clock.skew"
TICKED = f"print('ticks', vm.memory.read_u64({COUNT:#x}), {TSC} - vm.memory.read_u64({DATA:#x}))"


def ticked(printed):
    count, passed = map(int, printed.rpartition("ticks ")[2].split())
    return count, passed / MS


@pytest.mark.parametrize("name", COUNTS)
def test_a_timer_goes_on_when_its_guest_does(guest, name):
    """1 kHz, interrupts off for 100 ms, an NMI: ticks that were lost are made up for, then they come as they should."""
    timer, vector, end = COUNTS[name]
    handlers = {2: "iretq", vector: f"inc qword ptr [{COUNT:#x}]\n{end}\niretq"}
    made = guest(WAKES.format(timer=timer), handlers=handlers)
    printed = made.exec(f"vm.resume()\ntime.sleep_ms(100)\n{TICKED}\nvm.nmi()\ntime.sleep_ms(100)\n{TICKED}")
    before, after = printed.split("ticks ")[1:]
    assert before.split()[0] == "0"
    count, passed = ticked(after)
    print(name, count, passed)
    assert passed > 190
    assert count == pytest.approx(passed, abs=3)


UNMASKS = (
    """
{timer}
mov ecx, 10000000
wait: dec ecx
jnz wait
%s
{unmask}
sti
idle: hlt; jmp idle
"""
    % BEGAN
)
UNMASKED_LATER = {
    "local APIC": (
        LAPIC.format(lvt=0x30040, count=MS), "mov dword ptr [rsi + 0x320], 0x20040", 0x40, END_APIC,
    ),
    "8254 by the 8259": (
        PIC + MASK.format(mask=0xFF) + PIT.format(low=0xA9, high=4), MASK.format(mask=0xFE), 0x20, END_PIC,
    ),
    "8254 by the I/O APIC": (
        PIT.format(low=0xA9, high=4) + LAPIC.format(lvt=0x10000, count=0),
        "mov rdi, 0xfec00000; mov dword ptr [rdi], 0x14; mov dword ptr [rdi + 0x10], 0x41", 0x41, END_APIC,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNMASKED_LATER)
def test_a_timer_that_is_unmasked_later(guest, name):
    """What it did while nobody heard it is not made up for, and then it ticks once each ms."""
    timer, unmask, vector, end = UNMASKED_LATER[name]
    source = UNMASKS.format(timer=timer, unmask=unmask)
    made = guest(source, handlers={vector: f"inc qword ptr [{COUNT:#x}]\n{end}\niretq"})
    printed = made.until(f"vm.memory.read_u64({COUNT:#x})", 20000) + made.exec(f"time.sleep_ms(100)\n{TICKED}")
    count, passed = ticked(printed)
    print(name, count, passed)
    assert passed > 99
    assert count == pytest.approx(passed, abs=3)


def test_resets_back_off(guest):
    """Two at once, then later and later; said a few times and no more, whatever it does."""
    made = guest("ud2", on_triple_fault="reset")
    said = made.exec("vm.resume()\ntime.sleep_ms(1500)\nprint('now', vm.starts, vm.state, vm.why)")
    starts, state, why = said.rpartition("now ")[2].strip().split(" ", 2)
    assert 6 <= int(starts) <= 12  # held for 10 ms, 20, 40, ... 640
    assert (state, why) == ("halted", "resets again and again: held")
    made.bench.run(1)  # for what was held back while the line ran
    lines = made.eval("vm.messages")
    why = f"triple fault at {CODE + 7:#x}: #UD, #GP(0x33), #GP(0x6b), #DF, #GP(0x43); vm.explain() tells more"
    assert lines[:-1] == [why] * 2
    assert lines[-1].endswith("again and again; it is held in reset for longer each time, until it stays up")


HELD = """
vm.resume()
wait(vm, lambda: vm.backoff.held and vm.starts > 7)
starts = vm.starts
def show(*more):
    print('is', vm.state, vm.starts - starts, *more)
vm.nmi()
time.sleep_ms(5)
show()
vm.pause()
time.sleep_ms(1000)
show()
vm.resume()
time.sleep_ms(100)
show()
vm.power_off()
time.sleep_ms(2000)
show()
vm.start()
vm.pause()
show(vm.backoff.held)
"""


def test_a_guest_that_is_held_in_reset(guest):
    """What the prompt does to it takes effect, and nothing else wakes it."""
    made = guest("ud2", on_triple_fault="reset")
    printed = [line for line in made.exec(HELD).splitlines() if line.startswith("is")]
    assert printed == ["is halted 0", "is paused 0", "is halted 1", "is off 1", "is paused 2 False"]


def test_a_guest_that_stays_up_is_forgiven(guest):
    """At first it resets itself at once, then it stays up for long enough."""
    made = guest("mov eax, 0x700; vmcall; cmp eax, 6; ja stays; ud2; stays: mov eax, 0x701; vmcall; ud2")
    made.exec("import cpu\nvm.hypercalls.add(0x700, lambda vcpu: vcpu.vm.starts)")
    made.policy("VMCALL, number=0x701", "vcpu.vm.backoff._started -= 6 * cpu.tsc_hz\nreturn HANDLED")
    printed = made.exec(
        "vm.resume()\nheld = wait(vm, lambda: vm.backoff.held and vm.starts == 6)\n"
        "print('is', held, wait(vm, lambda: vm.starts > 9), vm.backoff.held)"
    )
    assert printed.split("is ")[-1].split() == ["True", "True", "False"]


RESETS = ["keyboard controller", "port 92h", "CF9", "triple fault"]


@pytest.mark.parametrize("by", RESETS)
def test_resets_of_all_kinds_back_off(guest, by):
    """Each goes by its own word of the description, also when the guest is let go."""
    source = {
        "keyboard controller": "mov al, 0xfe; out 0x64, al", "port 92h": "mov al, 1; out 0x92, al",
        "CF9": "mov dx, 0xcf9; mov al, 6; out dx, al", "triple fault": "ud2",
    }[by]  # fmt: skip
    ends = {"on_reset": "stop", "on_triple_fault": "stop"}
    ends["on_triple_fault" if by == "triple fault" else "on_reset"] = "reset"
    made = guest(source + "\nhlt", **ends)
    made.until("vm.backoff.held")
    made.until("vm.starts > 4")
    assert made.state != "stopped"
