"""8254: no tick of counter 0 is lost, however late its timers are served."""

from clock import Clock, Line
from pit import Bench

from vmm.devices.i8254 import FREQUENCY, I8254
from vmm.devices.i8259 import I8259


def ticking(hz=100000000, count=1193):
    """Counter 0 in mode 2 on input 0 of an 8259 that an OS has set up; returns clock, INT line, 8259."""
    clock = Clock(hz)
    asked = Line()
    pic = I8259(asked)
    for offset, value in ((0, 0x11), (1, 0x20), (1, 4), (1, 1), (1, 0xFE)):
        pic.write(offset, 1, value)
    pit = I8254(lambda level: pic.set_irq(0, level), clock)
    pit.write(3, 1, 0x34)
    pit.write(0, 1, count & 0xFF)
    pit.write(0, 1, count >> 8)
    return clock, asked, pic


def drive(runs, sleeps, busy, hz=100000000, count=1193):
    """An OS with counter 0 at about 1 kHz through the 8259 for a second. It runs and sleeps in turns of
    so many ticks; timers are served only while it runs, its handler takes `busy` ticks. Returns the
    ticks that it counted."""
    clock, asked, pic = ticking(hz, count)
    ticks = 0
    while clock.ticks < hz:
        clock.ticks += sleeps
        end = clock.ticks + runs
        while clock.ticks < end:
            if asked.level:
                assert pic.ack() == 0x20
                ticks += 1
                clock.advance(busy)
                pic.write(0, 1, 0x20)
            else:
                clock.advance(500)
    return ticks


def test_no_tick_is_lost_when_callbacks_are_late():
    exact = FREQUENCY // 1193
    assert abs(drive(1000000, 0, 100) - exact) <= 1
    assert abs(drive(100000, 70000, 20000) - exact) <= 2
    assert abs(drive(200000, 400000, 1000) - exact) <= 8  # off for four periods
    assert abs(drive(100000, 0, 99000) - exact) <= 2


def test_ticks_are_made_up_for_after_a_pause():
    clock, asked, pic = ticking()
    clock.ticks += 20000000  # 200 ms in which nobody looked
    ticks = 0
    while clock.ticks < 40000000:
        clock.advance(1000)
        if asked.level:
            pic.ack()
            pic.write(0, 1, 0x20)
            ticks += 1
    assert 398 <= ticks <= 401


def test_fast_rates_do_not_flood():
    b = Bench()
    b.program(0, 2, 2)
    before = b.clock.fired
    b.step(FREQUENCY)
    assert b.clock.fired - before <= 20100


def test_ticks_are_made_up_for_while_interrupts_are_off():
    """Timers are in time, but the guest takes nothing for 20 periods."""
    clock, asked, pic = ticking()
    clock.advance(2000000)
    assert asked.level == 1
    ticks = 0
    while clock.ticks < 10000000:
        if asked.level:
            pic.ack()
            pic.write(0, 1, 0x20)
            ticks += 1
        clock.advance(1000)
    assert 99 <= ticks <= 101
