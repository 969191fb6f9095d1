"""Interrupts of the machine's own devices end the CPU's idling, whenever they come.

The machine's 8254 stands for such a device: nothing else uses its counter 0 and line.
"""

import metronome
import pytest

SHOTS = """
import cpu
LINE = 2  # of counter 0 at the I/O APIC

def shoot():
    "The line rises in 240 periods of 1193182 Hz."
    cpu.outb(0x43, 0x30)
    cpu.outb(0x40, 240)
    cpu.outb(0x40, 0)

def raised():
    cpu.outb(0x43, 0xE2)
    return cpu.inb(0x40) & 0x80

def heard(at):
    "Idle up to `at` ticks from now, and if that has ended before the interrupt, until the line is up."
    shoot()
    began = cpu.rdtsc()
    heard = cpu.idle(began + at)
    while not raised():
        heard = cpu.idle(cpu.rdtsc() + 1000) or heard
    return heard or cpu.idle(cpu.rdtsc() + 20000)

def took():
    shoot()
    began = cpu.rdtsc()
    while not raised():
        cpu.idle(0)
    return cpu.rdtsc() - began
"""


def test_one_that_comes_as_the_deadline_does_is_not_lost(bench):
    """A driver that is not told waits for its device for ever: it ended a disk's requests, now and then."""
    bench.exec(SHOTS + "with still():\n    cpu.line(LINE, 1)\n    times = sorted([took() for _ in range(8)])")
    bench.exec(
        "with still():\n    lost = [at for at in range(times[0] - 3000, times[-1] + 300, 3) if not heard(at)]\n"
        "    cpu.line(LINE, 0)",
        240,
    )
    assert bench.eval("lost") == []


def test_drivers_look_again_at_the_time_that_one_has_asked_for(bench):
    """The first of several; idling, and what else waits, does not put it off."""
    bench.exec("""
import cpu
with still():
    ends = []
    cpu.idle(cpu.rdtsc() + 1000)
    began = cpu.rdtsc()
    cpu.look_at(began + 300000)
    cpu.look_at(began + 900000)
    while not cpu.idle(cpu.rdtsc() + 7000):
        cpu.alarm(0)
    ends.append(cpu.rdtsc() - began)
    ends.append(cpu.idle(began + 1200000))
""")
    first, second = bench.eval("ends")
    assert 300000 <= first < 330000 and second is False


def test_a_guest_makes_way_for_that(bench, guest):
    bench.exec("import cpu\nlooks = []\nlook = lambda floor: looks.append(cpu.rdtsc())\nsched.drivers.append(look)")
    busy = guest("spin: jmp spin")
    busy.exec(
        "vm.resume()\ndel looks[:]\nwhen = cpu.rdtsc() + cpu.tsc_hz // 100\ncpu.look_at(when)\ntime.sleep_ms(30)\n"
        "sched.drivers.remove(look)\nlate = [at - when for at in looks if at >= when]"
    )
    assert 0 <= bench.eval("late[0]") < 100_000


def test_a_look_that_an_exit_asks_for_does_not_wait_for_the_end_of_a_turn(bench, guest):
    """A disk's request of another guest goes before the one of this exit, for instance. Nobody shares the CPU: the
    turn has no end."""
    spins = guest("cpuid\nspin: jmp spin")
    spins.policy("CPUID", "global asked\nsched.poll_later()\nasked = cpu.rdtsc()", "asks")
    spins.exec(
        "import cpu\nlooks = []\nlook = lambda floor: looks.append(cpu.rdtsc())\nsched.drivers.append(look)\n"
        "vm.resume()\ntime.sleep_ms(50)\nsched.drivers.remove(look)\nlate = [at - asked for at in looks if at >= asked]"
    )
    assert 0 <= bench.eval("late[0]") < 100_000


def test_one_that_comes_while_guests_stand_still_is_looked_at_afterwards(bench):
    bench.exec("""
import cpu
looks = []
look = lambda floor: looks.append(cpu.rdtsc())
time.sleep_ms(1)
sched.drivers.append(look)
with still():
    cpu.look_at(cpu.rdtsc() + 100000)
    time.sleep_ms(20)
    within = len(looks)
time.sleep_ms(1)
after = len(looks)
sched.drivers.remove(look)
""")
    assert bench.eval("(within, after > 0)") == (0, True)


def test_a_disk_that_never_answers_is_waited_for_no_longer_than_its_time(bench, guest):
    """Nothing interrupts, and the deadlines of a guest's timer come and go."""
    ticking = metronome.start(guest)
    ticking.exec("""
import cpu
from vmm.host import FLUSH, Request, ata
class Dead:
    "Busy for ever; its seconds are milliseconds."
    tsc_hz = cpu.tsc_hz // 1000
    rdtsc, look_at, line = cpu.rdtsc, cpu.look_at, cpu.line
    def inb(self, port):
        return 0x80
    def outb(self, port, value):
        pass
class Disk:
    long, number, block = False, 0, 16
owner, answers = Disk(), []
owner.vm = vm
channel = ata.Channel(Dead(), sched, 0x1F0, 0x3F6, 14)
sched.drivers.append(channel.look)
began = cpu.rdtsc()
channel.submit(owner, Request(owner, FLUSH, 0, b"", 0, lambda ok: answers.append((ok, cpu.rdtsc() - began))))
time.sleep_ms(19)
early = list(answers)
time.sleep_ms(10)
sched.drivers.remove(channel.look)
""")
    assert bench.eval("early") == []
    ((ok, took),) = bench.eval("answers")
    hz = bench.eval("cpu.tsc_hz")
    assert ok is False and 0.020 <= took / hz < 0.024
    assert bench.eval("channel.timeouts") == 1


SERVICE = 20_000  # ticks
LATE = 12_000  # the line goes on when its sleep ends, which takes 8,300
SERVICES = f"""
import cpu
import micropython
from array import array
from uctypes import addressof
counted = array("I", [0])  # a list that grows searches for room
COUNTED = addressof(counted)
@micropython.viper
def service(floor: int):
    "As viper drivers do: nothing preempts it."
    end = int(cpu.rdtsc()) + {SERVICE}
    while int(cpu.rdtsc()) < end:
        pass
    ptr32(int(COUNTED))[0] += 1

def shots(on):
    "The 8254's interrupt, every 108,949 ticks: it comes at each phase of the metronome's period."
    cpu.line(2, on)
    cpu.outb(0x43, 0x34)
    cpu.outb(0x40, 1300 & 0xff)
    cpu.outb(0x40, 1300 >> 8)
"""


@pytest.mark.parametrize("others", [None, "spin: jmp spin", "spin: mov eax, 20; cpuid; jmp spin"])
def test_no_service_begins_shortly_before_a_guest_of_priority_is_due(bench, guest, others):
    bench.exec(SERVICES)
    ticking = metronome.start(guest)
    if others:
        guest(others).go()
    bench.exec("counted[0] = 0\nsched.drivers.append(service)\nshots(1)")
    late = metronome.latest(ticking, 300)
    bench.exec("cpu.line(2, 0)\nsched.drivers.remove(service)")
    assert late < LATE
    assert bench.eval("counted[0]") > 250


def test_nor_where_that_guest_has_run_in_the_middle_of_a_line(bench, guest):
    """So that nobody has serviced what waited for it."""
    bench.exec(SERVICES)
    ticking = metronome.start(guest)
    guest("spin: jmp spin").go()
    bench.exec("""
def line(ticks):
    end = cpu.rdtsc() + ticks
    while cpu.rdtsc() < end:
        pass

counted[0] = 0
sched.drivers.append(service)
shots(1)
""")
    metronome.forget(ticking)
    bench.exec("for i in range(300):\n    line(40000 + i * 300)\n    time.sleep_ms(1)")
    late = metronome.so_far(ticking)
    bench.exec("cpu.line(2, 0)\nsched.drivers.remove(service)")
    assert late < LATE
    assert bench.eval("counted[0]") > 250


def test_a_service_does_not_wait_for_guests_that_are_due_all_the_time(bench, guest):
    bench.exec(SERVICES)
    metronome.start(guest, period=12_000)
    bench.exec("counted[0] = 0\nsched.drivers.append(service)\nshots(1)\ntime.sleep_ms(300)")
    bench.exec("cpu.line(2, 0)\nsched.drivers.remove(service)")
    assert bench.eval("counted[0]") > 200
