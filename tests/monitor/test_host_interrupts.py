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
