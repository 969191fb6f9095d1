"""8042, port 92h and CF9h: the sequences of Linux's i8042 and atkbd, A20, resets."""

from clock import Line
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.i8042 import I8042
from vmm.devices.port92 import Port92
from vmm.devices.reset_cf9 import ResetCf9


class Bench:
    def __init__(self):
        self.resets = 0
        self.a20 = []
        self.irq1 = Line()
        self.irq12 = Line()
        self.kbc = I8042(self.irq1, self.irq12, self.reset, self.a20.append)

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
