"""Interrupts of the machine's own devices end the CPU's idling, whenever they come.

The machine's 8254 stands for such a device: nothing else uses its counter 0 and line.
"""

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


def test_a_guest_makes_way_for_that(bench):
    bench.exec("import cpu\nlooks = []\nlook = lambda floor: looks.append(cpu.rdtsc())\nsched.drivers.append(look)")
    guest = bench.guest("spin: jmp spin")
    guest.exec(
        "vm.resume()\ndel looks[:]\nwhen = cpu.rdtsc() + cpu.tsc_hz // 100\ncpu.look_at(when)\ntime.sleep_ms(30)\n"
        "sched.drivers.remove(look)\nlate = [at - when for at in looks if at >= when]"
    )
    assert 0 <= bench.eval("late[0]") < 100_000
