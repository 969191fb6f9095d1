"""MC146818 against a calendar that is walked day by day, and its three interrupts."""

from clock import Clock, Line
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.mc146818 import Mc146818

HZ = 1000000
# 2024-02-28 23:59:58, a Wednesday
LEAP = 1709164798


def number(value):
    assert value & 15 < 10
    return (value >> 4) * 10 + (value & 15)


class Bench:
    def __init__(self, epoch=LEAP, hz=HZ):
        self.clock = Clock(hz, 12345)
        self.line = Line()
        self.rtc = Mc146818(self.line, self.clock, epoch)

    def get(self, index):
        """A register; the fast path agrees, and does not need the slow one twice."""
        self.rtc.write(0, 1, index)
        quick = self.rtc.reader(1, 1)
        before = quick(self.clock.now())
        value = self.rtc.read(1, 1)
        assert before in (-1, value)
        assert quick(self.clock.now()) == (-1 if index & 0x7F in (12, 13) else value)
        return value

    def put(self, index, value):
        self.rtc.write(0, 1, index)
        self.rtc.write(1, 1, value)

    def time(self):
        return [number(self.get(i)) for i in (0x32, 9, 8, 7, 4, 2, 0)]

    def set_time(self, century, year, month, day, hour, minute, second):
        values = (century, year, month, day, hour, minute, second)
        for i in range(7):
            self.put((0x32, 9, 8, 7, 4, 2, 0)[i], values[i] // 10 << 4 | values[i] % 10)


def calendar(days):
    """Year, month, day of a day since 1970, by counting."""
    year = 1970
    while True:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        if days < 365 + leap:
            break
        days -= 365 + leap
        year += 1
    for month in range(12):
        length = (31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month]
        if days < length:
            return year, month + 1, days + 1
        days -= length


def test_leap_day():
    b = Bench()
    assert b.time() == [20, 24, 2, 28, 23, 59, 58] and b.get(6) == 4
    b.clock.advance(2 * HZ)
    assert b.time() == [20, 24, 2, 29, 0, 0, 0] and b.get(6) == 5
    b.clock.advance(86400 * HZ)
    assert b.time() == [20, 24, 3, 1, 0, 0, 0]


@given(st.randoms(use_true_random=False))
def test_dates_both_ways(rnd):
    time = rnd.getrandbits(32)
    b = Bench(time)
    year, month, day = calendar(time // 86400)
    second = time % 86400
    expected = [year // 100, year % 100, month, day, second // 3600, second // 60 % 60, second % 60]
    assert b.time() == expected
    b = Bench(0)
    b.put(11, 0x82)
    b.set_time(*expected)
    b.put(11, 0x02)
    assert b.time() == expected
    b.clock.advance(3600 * HZ)
    time += 3600
    year, month, day = calendar(time // 86400)
    assert b.time()[:5] == [year // 100, year % 100, month, day, time % 86400 // 3600]


def test_formats():
    for hour, pm_hour in ((0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)):
        b = Bench(hour * 3600)
        b.put(11, 0x00)
        assert b.get(4) == pm_hour
        b.put(11, 0x06)
        assert b.get(4) == hour
        b.put(11, 0x00)
        b.put(4, pm_hour)
        b.put(11, 0x02)
        assert number(b.get(4)) == hour


def test_uip_precedes_the_update():
    b = Bench()
    assert b.get(10) == 0x26
    b.clock.advance(HZ - 245)
    assert b.get(10) == 0x26
    b.clock.advance(2)
    assert b.get(10) == 0xA6 and b.time()[6] == 58
    b.clock.advance(243)
    assert b.get(10) == 0x26 and b.time()[6] == 59


def test_set_and_divider_reset_stop_the_clock():
    b = Bench()
    b.put(11, 0x82)
    b.clock.advance(5 * HZ)
    assert b.time()[6] == 58 and b.get(10) & 0x80 == 0
    b.put(10, 0x66)
    b.put(11, 0x02)
    b.clock.advance(5 * HZ)
    assert b.time()[6] == 58
    b.put(10, 0x26)
    b.clock.advance(HZ // 2 - 1)
    assert b.time()[6] == 58
    b.clock.advance(1)
    assert b.time()[6] == 59  # half a second after the divider was released


def test_update_interrupt():
    b = Bench()
    b.put(11, 0x12)
    b.clock.advance(HZ - 1)
    assert b.line.level == 0
    b.clock.advance(1)
    assert b.line.level == 1
    assert b.get(12) == 0xD0 and b.line.level == 0 and b.get(12) == 0
    b.clock.advance(3 * HZ)
    assert b.line.rises == 2 and b.get(12) == 0xF0  # midnight matches the alarm registers, all 0
    b.put(11, 0x82)
    assert b.get(11) == 0x82  # SET clears UIE


def test_periodic_interrupt():
    b = Bench()
    b.get(12)
    for rate, hz in ((3, 8192), (6, 1024), (15, 2), (1, 256), (2, 128)):
        b.put(10, 0x20 | rate)
        b.put(11, 0x42)
        count = 0
        end = b.clock.ticks + HZ
        b.get(12)
        while True:
            timer = b.clock.next_timer()
            if timer.deadline > end:
                break
            b.clock.until(timer.deadline)
            assert b.line.level == 1 and b.get(12) & 0xC0 == 0xC0 and b.line.level == 0
            count += 1
        assert hz - 1 <= count <= hz + 1
        b.clock.until(end)
    b.put(11, 0x02)
    assert b.clock.next_timer() is None
    b.clock.advance(HZ)
    assert b.get(12) & 0xC0 == 0x40 and b.line.level == 0  # flags without enables


@given(st.randoms(use_true_random=False))
def test_alarm_against_counting_seconds(rnd):
    b = Bench(rnd.randrange(86400 * 400))
    alarm = [rnd.randrange(60), rnd.randrange(60), rnd.randrange(24)]
    if rnd.randrange(2):
        at = b.rtc._time() + rnd.randrange(1, 200)
        alarm = [at % 60, at // 60 % 60, at // 3600 % 24]
    for i in range(3):
        if rnd.randrange(3) == 0:
            alarm[i] = -1
        b.put(2 * i + 1, 0xC0 if alarm[i] < 0 else alarm[i] // 10 << 4 | alarm[i] % 10)
    b.put(11, 0x22)
    b.get(12)
    now = b.rtc._time()
    expected = 0
    for second in range(now + 1, now + 400):
        fields = [second % 60, second // 60 % 60, second // 3600 % 24]
        if all([alarm[i] < 0 or alarm[i] == fields[i] for i in range(3)]):
            expected = second
            break
    timer = b.clock.next_timer()
    if expected:
        assert timer.deadline == b.rtc.tick + (expected - b.rtc._seconds) * HZ
        b.clock.until(timer.deadline)
        assert b.line.level == 1 and b.get(12) & 0xA0 == 0xA0
    else:
        assert timer is None or timer.deadline > b.clock.ticks + 398 * HZ


def test_ram_and_nmi_bit():
    nmi = []
    b = Bench()
    b.rtc.nmi_mask = nmi.append
    b.put(0x80 | 0x40, 0x5A)
    assert b.get(0x40) == 0x5A and nmi == [1, 0]
    assert b.get(13) == 0x80
    b.put(13, 0)
    assert b.get(13) == 0x80 and b.rtc.ram[0x40] == 0x5A


@given(st.randoms(use_true_random=False))
def test_any_access_is_survived(rnd):
    b = Bench(rnd.getrandbits(32))
    for _ in range(100):
        what = rnd.randrange(3)
        index = rnd.randrange(16) if rnd.randrange(4) else rnd.getrandbits(8)
        if what == 0:
            assert 0 <= b.get(index) < 256
        elif what == 1:
            b.put(index, rnd.getrandbits(8))
        else:
            b.clock.advance(rnd.randrange(1000000 if rnd.randrange(4) else 100000000))
            b.get(12)
