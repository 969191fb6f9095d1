"""A policy of a guest that runs in the middle of another's exit: what it may do to that one."""

import metronome
import pytest
from bench import DATA

THINKS = """
thinking = False
@vm.on('cpuid')
def think(vcpu):
    global thinking
    thinking = True
    for _ in range(3000):
        pass
    thinking = False
"""
MEDDLES = """
refused = []
reads = 0
@vm.on('vmcall', number=0x777)
def meddle(vcpu):
    if thinking and len(refused) < 3:
        try:
            {act}
        except RuntimeError as error:
            refused.append(str(error))
"""


# A driver of the machine's that works for the victim.
DRIVES = """
import cpu
victim = vm
def think():
    global thinking
    thinking = True
    for _ in range(3000):
        pass
    thinking = False
def look(floor):
    cpu.look_at(cpu.rdtsc() + 200000)
    sched.serve(victim, think)
thinking = False
sched.drivers.append(look)
cpu.look_at(1)
"""
WHOLE = [
    ("victim.destroy()", "destroyed"),
    ("victim.reset()", "started"),
    ("victim.pc.save()", "saved"),
    ("victim.pc.load(kept)", "loaded"),
]


@pytest.mark.parametrize(("act", "word"), WHOLE)
def test_an_interrupted_guest_is_left_whole(bench, guest, act, word):
    victim = guest("again: cpuid\ninc qword ptr [0x200000]\njmp again")
    victim.exec(THINKS + "victim = vm\nkept = vm.pc.save()")
    ticking = metronome.start(guest, "push rax\nmov eax, 0x777\nvmcall\npop rax")
    ticking.exec(MEDDLES.format(act=act))
    victim.go()
    bench.run(100)
    assert bench.eval("refused") == [f"guest {victim.name} is in the middle of an exit: it cannot be {word} there"] * 3
    count = victim.word()
    bench.run(50)
    assert victim.word() > count
    assert victim.state == "running"


@pytest.mark.parametrize(("act", "word"), WHOLE)
def test_a_guest_for_which_a_driver_works_is_left_whole(bench, guest, act, word):
    """Its memory must not be another's before the driver has moved what it is about to."""
    victim = guest("again: inc qword ptr [0x200000]\njmp again")
    victim.exec(DRIVES + "kept = vm.pc.save()")
    ticking = metronome.start(guest, CALLS)
    ticking.exec(MEDDLES.format(act=act))
    victim.go()
    bench.run(100)
    bench.exec("sched.drivers.remove(look)")
    assert bench.eval("refused") == [f"guest {victim.name} is in the middle of an exit: it cannot be {word} there"] * 3
    assert victim.state == "running"


WORKS = """
ran = []
def work():
    before = above.vcpu.guest_ticks
    for _ in range(1000):
        pass
    ran.append(above.vcpu.guest_ticks - before)
def look(floor):
    if len(ran) < 3: sched.serve(below, work)
sched.drivers.append(look)
"""


def test_a_drivers_work_makes_way_for_a_guest_that_has_not_halted(bench, guest):
    """It goes first, for a slice at a time: the work ends all the same."""
    below = guest("spin: jmp spin")
    below.exec("below = vm")
    above = guest("spin: jmp spin", priority=3)
    above.exec("above = vm\nvm.resume()\ntime.sleep_ms(30)\n" + WORKS + "sched.poll_later()")
    try:
        bench.exec("wait(above, lambda: len(ran) >= 3)")
        ran = bench.eval("ran")
        assert len(ran) >= 3 and all(bench.eval("sched.slice_ticks") <= ticks for ticks in ran)
    finally:
        bench.exec("sched.drivers.remove(look)")


def test_a_pause_holds_when_the_exit_is_done(bench, guest):
    victim = guest("again: cpuid\ninc qword ptr [0x200000]\njmp again")
    victim.exec(THINKS + "victim = vm")
    ticking = metronome.start(guest, "push rax\nmov eax, 0x777\nvmcall\npop rax")
    ticking.exec(MEDDLES.format(act="victim.pause()\n            refused.append('paused')"))
    victim.go()
    bench.run(100)
    assert victim.state == "paused"
    assert bench.eval("thinking") is False
    count = victim.word()
    bench.run(20)
    assert victim.word() == count
    victim.exec("vm.resume()")
    assert ticking.state in ("running", "halted")


SLOW = """
class Slow:
    def read(self, offset, size):
        global thinking, reads
        thinking = True
        for _ in range(1500):
            pass
        thinking = False
        reads += 1
        return 0
    def write(self, offset, size, value):
        self.read(offset, size)
slow = Slow()
thinking = False
victim = vm
vm.port_bus.claim(0x500, 1, slow)
vm.mmio_bus.claim(0xd0000000, 0x1000, slow)
def late(now):
    for _ in range(100):
        pass
    timer.arm(now + 50000)
timer = vm.clock.timer(late)
timer.arm(1)
"""  # the guest is owed the time that its timer takes
CALLS = "push rax\nmov eax, 0x777\nvmcall\npop rax"
STILL = "victim.{act}()\n            refused.append(reads)"
EXITS = {
    "a port is read": "mov dx, 0x500\nagain: in al, dx\n",
    "memory is written": "mov esi, 0xd0000000\nagain: mov [rsi], eax\n",
}
COUNTS = "inc qword ptr [0x200000]\njmp again"


def meddled(bench, guest, source, setup, act):
    """A guest that a higher one's policy has done this to in the middle of an exit."""
    victim = guest(source)
    victim.exec(setup)
    ticking = metronome.start(guest, CALLS)
    ticking.exec(MEDDLES.format(act=STILL.format(act=act)))
    victim.go()
    bench.run(40)
    assert bench.eval("refused")
    return victim


@pytest.mark.parametrize("exit", EXITS)
def test_a_pause_in_a_devices_handler_holds(bench, guest, exit):
    """No policy is there to look after that: the guest must not get to its next instruction."""
    victim = meddled(bench, guest, EXITS[exit] + COUNTS, SLOW, "pause")
    assert victim.eval("(vm.state, thinking)") == ("paused", False)
    before = bench.eval("refused[0]")
    for _ in range(2):
        assert (bench.eval("reads"), victim.word()) == (before + 1, before)
        bench.run(10)
    victim.exec("refused += 3 * ['enough']\nvm.resume()\ntime.sleep_ms(30)")
    assert victim.word() > before
    assert victim.state == "running"


def test_a_pause_before_hlt_holds(bench, guest):
    victim = meddled(bench, guest, f"mov dx, 0x500\nagain: in al, dx\nhlt\n{COUNTS}", SLOW, "pause")
    assert victim.state == "paused"
    victim.exec("vm.resume()\ntime.sleep_ms(20)")
    assert (victim.state, victim.word()) == ("halted", 0)


HALTS = """
from vmm.vtx import reasons
thinking = False
victim = vm
def halt(vcpu):
    global thinking
    thinking = True
    for _ in range(3000):
        pass
    thinking = False
    return 5
vm.exits.replace(reasons.HLT, "test", lambda vcpu, below: halt)
"""


def test_who_was_paused_at_hlt_waits_on(bench, guest):
    victim = meddled(bench, guest, f"again: hlt\n{COUNTS}", HALTS, "pause")
    assert victim.state == "paused"
    victim.exec("vm.resume()\ntime.sleep_ms(20)")
    assert (victim.state, victim.word()) == ("halted", 0)
    victim.exec("vm.pause()\nvm.resume()\ntime.sleep_ms(20)")
    assert (victim.state, victim.word()) == ("halted", 0)


RESETS = THINKS.replace("'cpuid'", "'io', port=0xcf9") + "victim = vm"


@pytest.mark.parametrize(("act", "state", "starts"), [("pause", "paused", 2), ("power_off", "off", 1)])
def test_who_resets_itself_meanwhile_stays_so(bench, guest, act, state, starts):
    victim = meddled(bench, guest, f"{COUNTS.partition('jmp')[0]}mov dx, 0xcf9\nmov al, 6\nout dx, al", RESETS, act)
    assert victim.eval("(vm.state, vm.starts)") == (state, starts)
    if act == "pause":
        assert victim.word() == 0
        victim.exec("refused += 3 * ['enough']\nvm.resume()\ntime.sleep_ms(20)")
        assert victim.eval("vm.starts") > 2
    else:
        assert victim.eval("vm.powered") is False


# Each of its interrupts has another trigger mode than the one before: their delivery passes bytecode.
TURNS = """
trigger = 0
@vm.on('cpuid', leaf=0x777)
def turn(vcpu):
    global trigger
    trigger ^= 0x8000
    vcpu.vm.pc.lapic.receive(0x50 | trigger, 0)
"""


def test_who_is_interrupted_while_its_interrupt_is_delivered_is_entered(bench, guest):
    lower = guest(
        f"""
        mov rsi, 0xfee00000
        mov dword ptr [rsi + 0xf0], 0x1ff
        sti
        again: mov eax, 0x777
        cpuid
        inc qword ptr [{DATA:#x}]
        jmp again
        """,
        handlers={0x50: f"inc qword ptr [{DATA + 8:#x}]\nmov dword ptr [rsi + 0xb0], 0\niretq"},
    )
    lower.exec(TURNS)
    ticking = metronome.start(guest, period=30_000)
    before = ticking.word(metronome.COUNT)
    lower.go()
    bench.run(100)
    rounds, taken = lower.words(2)
    assert rounds > 50
    assert rounds - 1 <= taken <= rounds + 1
    assert ticking.word(metronome.COUNT) - before > 300
    assert (lower.state, ticking.state in ("running", "halted")) == ("running", True)
