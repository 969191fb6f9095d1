"""8254: its registers, latches and port 61H."""

from pit import Bench

from vmm.devices.i8254 import FREQUENCY
from vmm.devices.oscillator import periods, ticks_at


def test_conversion_is_exact():
    for hz in (1193182, 4772728, 100000000, 2999999999, 3579545):
        for count in (0, 1, 2, 1193181, 1193182, 123456789, 10**13):
            t = ticks_at(count, hz, FREQUENCY)
            assert periods(t, hz, FREQUENCY) == count
            if t:
                assert periods(t - 1, hz, FREQUENCY) < count or hz < FREQUENCY


def test_status_after_control_word():
    b = Bench()
    b.put(3, 0x34)
    b.put(3, 0xE2)
    assert b.get(0) == 0xF4  # OUT high, null count, both bytes, mode 2
    b.put(0, 0x10)
    b.put(0, 0)
    b.step(2)
    b.put(3, 0xE2)
    assert b.get(0) == 0xB4


def test_latch_holds_until_read_and_is_not_overwritten():
    b = Bench()
    b.program(2, 0, 0x1234)
    b.put(4, 1)
    b.step(5)
    first = b.latched(2)
    b.put(3, 0x80)
    b.step(100)
    b.put(3, 0x80)
    low = b.get(2)
    b.step(300)
    assert (low | b.get(2) << 8) == first
    assert b.latched(2) == first - 400


def test_status_before_count_when_both_are_latched():
    b = Bench()
    b.program(0, 2, 100)
    b.step(11)
    b.put(3, 0xC2)
    assert [b.get(0), b.get(0), b.get(0)] == [0xB4, 90, 0]


def test_one_byte_modes():
    b = Bench()
    b.put(3, 0x10)
    b.put(0, 50)
    b.step(11)
    assert b.get(0) == 40
    b.put(3, 0x20)
    b.put(0, 2)
    b.step(1)
    assert b.get(0) == 2
    b.step(1)
    assert b.get(0) == 1


def test_port_61():
    b = Bench()
    spoken = []
    b.pit.speaker = spoken.append
    b.program(2, 0, 10)
    b.put(4, 0xFF)
    assert b.get(4) & 0x2F == 0x0F and spoken == [1]
    b.step(10)
    assert b.get(4) & 0x20 == 0
    b.step(1)
    assert b.get(4) & 0x20
    toggles = 0
    last = b.get(4)
    for _ in range(FREQUENCY // 1000):
        b.step(1)
        now = b.get(4)
        toggles += (now ^ last) >> 4 & 1
        last = now
    assert 64 <= toggles <= 68  # every 15 us


def test_linux_quick_calibration():
    """Mode 0 on counter 2 from FFFFh; the high byte falls every 256 periods."""
    b = Bench()
    b.put(4, 1)
    b.put(3, 0xB0)
    b.put(2, 0xFF)
    b.put(2, 0xFF)
    for expect in range(0xFF, 0xE0, -1):
        for _ in range(200):
            b.get(2)
            if b.get(2) != expect:
                break
            b.step(4)
        low = b.get(2)
        high = b.get(2)
        assert high in (expect, expect - 1) and 0 <= low < 256
