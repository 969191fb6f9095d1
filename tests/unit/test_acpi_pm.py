"""ACPI PM block: timer, status bits that ones clear, soft-off."""

from clock import Clock, Line
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices import acpi_pm
from vmm.devices.acpi_pm import PM1_CNT, PM1_EN, PM1_STS, PM_TMR, AcpiPm


class Bench:
    def __init__(self, hz=100000000):
        self.off = 0
        self.slept = []
        self.clock = Clock(hz)
        self.line = Line()
        self.pm = AcpiPm(self.line, self.clock, self.power_off, self.slept.append)

    def power_off(self):
        self.off += 1


def test_timer_rate():
    b = Bench()
    b.clock.advance(100000000)
    assert b.pm.read(PM_TMR, 4) == 3579545
    b.clock.advance(100000000 * 1200)
    value = 3579545 * 1201 & 0xFFFFFFFF
    assert b.pm.read(PM_TMR, 4) == value
    assert b.pm.read(PM_TMR, 2) == value & 0xFFFF
    assert b.pm.read(PM_TMR + 2, 2) == value >> 16
    assert b.pm.read(PM_TMR + 1, 1) == value >> 8 & 0xFF


def test_timer_status_follows_bit_31():
    b = Bench()
    b.pm.write(PM1_EN, 2, 1)
    b.clock.advance(100000000 * 599)
    assert b.line.level == 0 and b.pm.read(PM1_STS, 2) == 0
    b.clock.advance(100000000)
    assert b.line.level == 1 and b.pm.read(PM1_STS, 2) == 1
    b.pm.write(PM1_STS, 2, 1)
    assert b.line.level == 0
    b.clock.advance(100000000 * 600)
    assert b.line.rises == 2


def test_power_button():
    b = Bench()
    b.pm.press_power_button()
    assert b.line.level == 0 and b.pm.read(PM1_STS, 4) == 0x0100
    b.pm.write(PM1_EN, 2, 0x0100)
    assert b.line.level == 1
    b.pm.write(PM1_STS, 2, 0x0400)
    assert b.line.level == 1
    b.pm.write(PM1_STS + 1, 1, 0x01)
    assert b.line.level == 0 and b.pm.read(PM1_STS, 4) == 0x01000000


def test_soft_off():
    b = Bench()
    assert b.pm.read(PM1_CNT, 2) == 1
    b.pm.write(PM1_CNT, 2, 5 << 10)
    assert b.off == 0 and b.pm.read(PM1_CNT, 2) == 0x1401
    b.pm.write(PM1_CNT, 2, 0x2000 | 5 << 10)
    assert b.off == 1 and b.pm.read(PM1_CNT, 2) == 0x1401  # SLP_EN reads 0
    b.pm.write(PM1_CNT, 2, 0x2000 | 3 << 10)
    assert b.off == 1 and b.slept == [3]


def test_empty_blocks():
    b = Bench()
    b.pm.write(acpi_pm.GPE0_STS, 4, 0xFFFFFFFF)
    b.pm.write(PM_TMR, 4, 0xFFFFFFFF)
    assert b.pm.read(acpi_pm.GPE0_STS, 4) == 0 and b.pm.read(PM_TMR, 4) == 0
    assert b.pm.read(16, 2) == 0xFFFF


@given(st.randoms(use_true_random=False))
def test_any_access_is_survived(rnd):
    b = Bench()
    for _ in range(100):
        size = (1, 2, 4)[rnd.randrange(3)]
        what = rnd.randrange(3)
        if what == 0:
            assert 0 <= b.pm.read(rnd.randrange(18), size) < 1 << (8 * size)
        elif what == 1:
            b.pm.write(rnd.randrange(18), size, rnd.getrandbits(32))
        else:
            b.clock.advance(rnd.getrandbits(30) << 6)
        assert b.line.level == int(bool(b.pm.read(PM1_STS, 2) & b.pm.read(PM1_EN, 2) & 0x501))
