"""8042, port 92h and CF9h: the sequences of Linux's i8042 and atkbd, A20, resets."""

import pytest
from clock import Line
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.i8042 import I8042
from vmm.devices.port92 import Port92
from vmm.devices.reset_cf9 import ResetCf9
from vmm.pointer import Pointer


class Bench:
    def __init__(self, mouse=False):
        self.resets = 0
        self.a20 = []
        self.irq1 = Line()
        self.irq12 = Line()
        self.kbc = I8042(self.irq1, self.irq12, self.reset, self.a20.append, mouse=mouse)

    def reset(self):
        self.resets += 1

    def command(self, *values):
        self.kbc.write(4, 1, values[0])
        for value in values[1:]:
            self.kbc.write(0, 1, value)

    def drain(self):
        got = []
        while self.kbc.read(4, 1) & 1:
            got.append(self.kbc.read(0, 1))
        return got


def test_linux_controller_check():
    b = Bench()
    assert b.drain() == []
    b.command(0xAA)
    assert b.drain() == [0x55]
    b.command(0x20)
    mode = b.drain()[0]
    assert mode & 0x44 == 0x44
    b.command(0x60, mode & ~0x03 | 0x30)
    b.command(0x20)
    assert b.drain() == [mode & ~0x03 | 0x30]
    b.command(0xAB)
    assert b.drain() == [0]
    b.command(0xAD)
    b.command(0x20)
    assert b.drain()[0] & 0x10
    b.command(0xAE)
    b.command(0x20)
    assert not b.drain()[0] & 0x10


def test_aux_loop_and_missing_mouse():
    b = Bench()
    b.command(0xD3, 0x5A)
    assert b.kbc.read(4, 1) & 0x21 == 0x21 and b.drain() == [0x5A]
    b.command(0x60, 0x47)
    b.command(0xD4, 0xF2)
    assert b.kbc.read(4, 1) & 0x61 == 0x61 and b.irq12.level == 1 and b.irq1.level == 0
    assert b.drain() == [0xFE] and b.irq12.level == 0


def test_keyboard():
    b = Bench()
    b.command(0x60, 0x45)
    b.kbc.write(0, 1, 0xFF)
    assert b.irq1.rises == 1 and b.drain() == [0xFA, 0xAA] and b.irq1.rises == 2 and b.irq1.level == 0
    b.kbc.write(0, 1, 0xF2)
    assert b.drain() == [0xFA, 0xAB, 0x41]
    b.kbc.write(0, 1, 0xED)
    b.kbc.write(0, 1, 0x07)
    assert b.drain() == [0xFA, 0xFA]
    b.kbc.write(0, 1, 0x07)
    assert b.drain() == [0xFE]
    b.kbc.key(0x1E)
    assert b.drain() == [0x1E]


def test_a20_and_reset():
    b = Bench()
    b.command(0xD1, 0xDD)
    b.command(0xD1, 0xDF)
    assert b.a20 == [0, 1] and b.resets == 0
    b.command(0xD0)
    assert b.drain() == [0xDF]
    b.command(0xFE)
    assert b.resets == 1
    b.command(0xFF)
    assert b.resets == 1


def test_port_92():
    b = Bench()
    port = Port92(b.reset, b.a20.append)
    assert port.read(0, 1) == 2
    port.write(0, 1, 0xFC)
    port.write(0, 1, 0x02)
    assert b.a20 == [0, 1] and b.resets == 0
    port.write(0, 1, 0x03)
    port.write(0, 1, 0x03)
    assert b.resets == 1


def test_cf9():
    b = Bench()
    port = ResetCf9(b.reset)
    port.write(0, 1, 0x02)
    assert b.resets == 0
    port.write(0, 1, 0x06)
    port.write(0, 1, 0x06)
    assert b.resets == 1 and port.read(0, 1) == 2
    port.write(0, 1, 0x00)
    port.write(0, 1, 0xF4)
    assert b.resets == 2


@given(st.randoms(use_true_random=False))
def test_any_access_is_survived(rnd):
    b = Bench()
    for _ in range(200):
        if rnd.randrange(3) == 0:
            assert 0 <= b.kbc.read(rnd.randrange(6), 1) < 256
        else:
            b.kbc.write(4 * rnd.randrange(2), (1, 2, 4)[rnd.randrange(3)], rnd.getrandbits(32))
        status = b.kbc.read(4, 1)
        assert b.irq1.level + b.irq12.level <= status & 1


def signed(value, negative):
    return value - 256 if negative else value


class Mouse(Bench):
    """A guest with a mouse, its driver ready."""

    def __init__(self):
        super().__init__(mouse=True)
        self.mouse = self.kbc.mouse
        self.command(0x60, 0x47)  # both interrupts, both interfaces

    def tell(self, *values):
        """Bytes for the mouse; what it answers."""
        for value in values:
            self.command(0xD4, value)
        return self.drain()

    def packets(self, size=3):
        got = self.drain()
        assert len(got) % size == 0
        found = []
        for at in range(0, len(got), size):
            first, x, y, *rest = got[at : at + size]
            assert first & 0xC8 == 8
            found.append((first & 7, signed(x, first & 0x10), signed(y, first & 0x20), *rest))
        return found


def test_a_driver_finds_the_mouse():
    b = Mouse()
    assert b.tell(0xFF) == [0xFA, 0xAA, 0]
    assert b.tell(0xF2) == [0xFA, 0]
    b.command(0xD4, 0xE9)
    assert b.kbc.read(4, 1) & 0x21 == 0x21 and b.irq12.level and not b.irq1.level
    assert b.drain() == [0xFA, 0x00, 2, 100]
    assert b.tell(0xE8, 3, 0xE7, 0xF3, 40, 0xF4) == [0xFA] * 6
    assert b.tell(0xE9) == [0xFA, 0x30, 3, 40]
    assert b.tell(0xE1) == [0xFE]
    assert b.tell(0xEE, 0x55, 0xF4, 0xEC) == [0xFA, 0x55, 0xF4, 0xFA]
    assert b.tell(0xF6, 0xE9) == [0xFA, 0xFA, 0x00, 2, 100]


def test_movements_and_buttons():
    b = Mouse()
    assert b.mouse.event(5, 5, 0, 1) and b.drain() == []  # it is not asked to report
    b.tell(0xF4)
    b.mouse.event(3, -4, 0, 0)
    assert b.irq12.level
    b.mouse.event(1, 0, 0, 0)  # waits, as the guest has not taken the first
    b.mouse.event(2, 7, 0, 0)
    b.mouse.event(0, 0, 0, 1)
    b.mouse.event(0, 0, 0, 0)
    assert b.packets() == [(0, 3, 4), (0, 3, -7), (1, 0, 0), (0, 0, 0)]
    b.mouse.event(-600, 300, 0, 2)
    assert b.packets() == [(2, -255, -255), (2, -255, -45), (2, -90, 0)]
    assert b.drain() == [] and not b.irq12.level


def test_the_wheel():
    b = Mouse()
    b.tell(0xF4)
    b.mouse.event(0, 0, 1, 0)
    assert b.packets() == [(0, 0, 0)]
    for rate in (200, 100, 80):
        b.tell(0xF3, rate)
    assert b.tell(0xF2) == [0xFA, 3]
    b.mouse.event(0, 0, -9, 4)
    assert b.packets(4) == [(4, 0, 0, 0xF9), (4, 0, 0, 0xFE)]
    for rate in (200, 200, 80):
        b.tell(0xF3, rate)
    assert b.tell(0xF2) == [0xFA, 4]
    b.mouse.event(0, 0, -1, 8)
    assert b.packets(4) == [(0, 0, 0, 0x1F)]


def test_remote_mode_reports_when_it_is_asked():
    b = Mouse()
    b.tell(0xF0)
    b.mouse.event(9, 0, 0, 1)
    assert b.drain() == []
    assert b.tell(0xEB) == [0xFA, 9, 9, 0]
    assert b.tell(0xEB) == [0xFA, 9, 0, 0]


def test_what_waits_for_the_guest_is_bounded():
    b = Mouse()
    b.tell(0xF4)
    taken = [b.mouse.event(1, 0, 0, n & 1) for n in range(100)]
    assert taken[:66] == [True] * 65 + [False]
    assert len(b.packets()) == 65
    b.command(0xA7)  # its interface is off: it waits
    b.mouse.event(4, 0, 0, 0)
    assert b.drain() == []
    b.command(0xA8)
    assert b.packets() == [(0, 4, 0)]


@given(st.lists(st.integers(0, 255), max_size=30))
def test_any_bytes_for_the_mouse(values):
    b = Mouse()
    for value in values:
        b.tell(value)
        b.mouse.event(1, 2, 3, value & 31)
    b.drain()
    b.command(0xD4, 0xFF)
    assert b.drain()[-3:] == [0xFA, 0xAA, 0]


def test_a_hand_on_the_mouse():
    b = Mouse()
    b.tell(0xF4)
    hand = Pointer(b.mouse)
    hand.click()
    hand.press("right", "middle")
    hand.move(7, -8)
    hand.release("right", "middle")
    hand.wheel(1)
    assert b.packets() == [(1, 0, 0), (0, 0, 0), (6, 7, 8), (0, 0, 0)]
    with pytest.raises(ValueError, match="there is no button 'up'; there are extra, left, middle, right, side"):
        hand.press("up")
    with pytest.raises(MemoryError, match="the guest takes none"):
        for _ in range(99):
            hand.click()
