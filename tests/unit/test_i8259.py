"""8259A pair against the data sheet's rules: a slow model that knows nothing of bit tricks."""

from clock import Line
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.i8259 import I8259

MASTER, SLAVE = 0, 2


class Chip:
    """One 8259A, written for clarity: lists, and priorities walked one by one."""

    def __init__(self, master):
        self.master = master
        self.lines = [0] * 8
        self.elcr = [0] * 8
        self.clear()
        self.imr = [1] * 8
        self.base = 0

    def clear(self):
        self.edge = [0] * 8
        self.imr = [0] * 8
        self.isr = [0] * 8
        self.lowest = 7
        self.aeoi = self.rotate = self.smm = self.sfnm = 0

    def irr(self, n):
        return self.lines[n] if self.elcr[n] else self.edge[n]

    def order(self):
        return [(self.lowest + 1 + i) % 8 for i in range(8)]

    def request(self):
        for n in self.order():
            if self.irr(n) and not self.imr[n]:
                if not self.isr[n] or (self.master and self.sfnm and n == 2):
                    return n
                if self.smm:
                    return None
            if self.isr[n] and not (self.smm and self.imr[n]):
                return None
        return None

    def take(self, n):
        self.edge[n] = 0
        if not self.aeoi:
            self.isr[n] = 1
        elif self.rotate:
            self.lowest = n

    def ocw2(self, command, level):
        if command == 0:
            self.rotate = 0
        elif command == 4:
            self.rotate = 1
        elif command in (1, 5):
            for n in self.order():
                if self.isr[n] and not (self.smm and self.imr[n]):
                    self.isr[n] = 0
                    if command == 5:
                        self.lowest = n
                    break
        elif command in (3, 7):
            self.isr[level] = 0
            if command == 7:
                self.lowest = level
        elif command == 6:
            self.lowest = level


class Pair:
    def __init__(self):
        self.chips = [Chip(True), Chip(False)]
        self.asked = 0  # the slave's output

    def settle(self):
        """The slave's output is an edge on input 2 of the master."""
        asks = self.chips[1].request() is not None
        if asks and not self.asked:
            self.chips[0].edge[2] = 1
        self.asked = asks

    def intr(self):
        return int(self.chips[0].request() is not None)

    def ack(self):
        n = self.chips[0].request()
        if n is None:
            return self.chips[0].base | 7
        self.chips[0].take(n)
        vector = self.chips[0].base | n
        if n == 2:
            n = self.chips[1].request()
            if n is None:
                vector = self.chips[1].base | 7
            else:
                self.chips[1].take(n)
                vector = self.chips[1].base | n
            self.asked = 0
        self.settle()
        return vector


def bits(values):
    return sum(v << i for i, v in enumerate(values))


def build():
    line = Line()
    return I8259(line), line


def linux_init(pic, aeoi=0, sfnm=0):
    for port, base, cascade, mode in ((0, 0x30, 4, 1 | aeoi | sfnm), (2, 0x38, 2, 1 | aeoi)):
        pic.write(port, 1, 0x11)
        pic.write(port + 1, 1, base)
        pic.write(port + 1, 1, cascade)
        pic.write(port + 1, 1, mode)


def test_linux_probe():
    pic, _ = build()
    pic.write(3, 1, 0xFF)
    pic.write(1, 1, 0xFB)
    assert pic.read(1, 1) == 0xFB


def test_cascade_and_specific_eoi():
    pic, line = build()
    linux_init(pic)
    pic.set_irq(14, 1)
    pic.set_irq(3, 1)
    assert line.level == 1 and pic.ack() == 0x38 + 6
    pic.set_irq(8, 1)
    assert line.level == 0  # the master's level 2 is in service
    pic.write(2, 1, 0x66)
    pic.write(0, 1, 0x62)
    assert line.level == 1 and pic.ack() == 0x38
    pic.write(2, 1, 0x60)
    pic.write(0, 1, 0x62)
    assert pic.ack() == 0x33
    pic.write(0, 1, 0x20)
    assert line.level == 0 and pic.read(0, 1) == 0


def test_spurious():
    pic, line = build()
    linux_init(pic)
    pic.set_irq(3, 1)
    pic.write(1, 1, 0x08)
    assert line.level == 0 and pic.ack() == 0x37
    pic.write(0, 1, 0x0B)
    assert pic.read(0, 1) == 0  # a spurious level 7 is not in service
    pic.write(1, 1, 0)
    assert pic.ack() == 0x33
    pic.write(0, 1, 0x20)
    pic.set_irq(12, 1)
    pic.write(3, 1, 0x10)
    assert line.level == 1 and pic.ack() == 0x3F
    assert pic.read(0, 1) == 4
    pic.write(2, 1, 0x0B)
    assert pic.read(2, 1) == 0


def test_level_input_is_withdrawn_and_returns():
    pic, line = build()
    linux_init(pic)
    pic.write(5, 1, 0x04)  # IRQ10
    pic.set_irq(10, 1)
    assert line.level and pic.ack() == 0x3A
    pic.write(2, 1, 0x62)
    pic.write(0, 1, 0x62)
    assert line.level and pic.ack() == 0x3A  # still held
    pic.set_irq(10, 0)
    pic.write(2, 1, 0x20)
    pic.write(0, 1, 0x20)
    assert not line.level
    assert pic.read(5, 1) == 4
    pic.write(4, 1, 0xFF)
    pic.write(5, 1, 0xFF)
    assert (pic.read(4, 1), pic.read(5, 1)) == (0xF8, 0xDE)


def test_edge_after_icw1_needs_a_new_edge():
    pic, line = build()
    linux_init(pic)
    pic.write(1, 1, 0xFF)
    pic.set_irq(4, 1)
    linux_init(pic)
    assert not line.level
    pic.set_irq(4, 0)
    pic.set_irq(4, 1)
    assert line.level and pic.ack() == 0x34


def test_coalesced_edge_is_reported():
    pic, _ = build()
    linux_init(pic)
    assert pic.set_irq(0, 1) == 1
    pic.set_irq(0, 0)
    assert pic.set_irq(0, 1) == 0
    assert pic.ack() == 0x30
    pic.set_irq(0, 0)
    assert pic.set_irq(0, 1) == 1
    pic.write(1, 1, 1)
    pic.set_irq(0, 0)
    assert pic.set_irq(0, 1) == 1  # masked: nobody waits for it


def test_poll_command():
    pic, line = build()
    linux_init(pic)
    pic.set_irq(5, 1)
    pic.write(0, 1, 0x0C)
    assert pic.read(0, 1) == 0x85 and not line.level
    pic.write(0, 1, 0x0C)
    assert pic.read(0, 1) & 0x80 == 0
    pic.write(0, 1, 0x20)
    pic.set_irq(9, 1)
    pic.write(2, 1, 0x0C)
    assert pic.read(2, 1) == 0x81


def test_special_fully_nested():
    pic, line = build()
    linux_init(pic, sfnm=0x10)
    pic.set_irq(12, 1)
    assert pic.ack() == 0x3C
    pic.set_irq(8, 1)
    assert line.level and pic.ack() == 0x38
    pic.set_irq(5, 1)
    assert not line.level


def test_icw_sequences():
    pic, _ = build()
    pic.write(0, 1, 0x12)  # single, no ICW4
    pic.write(1, 1, 0x4F)
    pic.write(1, 1, 0xAA)
    assert pic.read(1, 1) == 0xAA
    pic.set_irq(2, 1)
    assert pic.ack() == 0x4A  # level 2 is an input like the others


@given(st.randoms(use_true_random=False))
def test_against_the_model(rnd):
    pic, line = build()
    aeoi = 2 * (rnd.randrange(4) == 0)
    sfnm = 16 * (rnd.randrange(4) == 0)
    plain = rnd.randrange(2)
    linux_init(pic, aeoi, sfnm)
    pair = Pair()
    for c, base in ((0, 0x30), (1, 0x38)):
        chip = pair.chips[c]
        chip.clear()
        chip.base = base
        chip.aeoi = aeoi
        chip.sfnm = sfnm
    for _ in range(150):
        what = rnd.randrange(12)
        c = rnd.randrange(2)
        chip = pair.chips[c]
        if what < 4:
            n = rnd.randrange(16)
            if n == 2:
                continue
            level = rnd.randrange(2)
            target = pair.chips[n >> 3]
            if level and not target.lines[n & 7]:
                served = int(not (target.edge[n & 7] and not target.elcr[n & 7] and not target.imr[n & 7]))
                target.edge[n & 7] = 1
            else:
                served = 1
            target.lines[n & 7] = level
            if target.elcr[n & 7]:
                target.edge[n & 7] = 0
            assert pic.set_irq(n, level) == served
        elif what < 6:
            if pair.intr() or rnd.randrange(4) == 0:
                assert pic.ack() == pair.ack()
        elif what == 6:
            mask = rnd.getrandbits(8) & rnd.getrandbits(8)
            chip.imr = [mask >> i & 1 for i in range(8)]
            pic.write(2 * c + 1, 1, mask)
        elif what < 10:
            command = 1 if plain or rnd.randrange(2) else rnd.randrange(8)
            level = rnd.randrange(8) if command != 1 else 0
            chip.ocw2(command, level)
            pic.write(2 * c, 1, command << 5 | level)
        elif what == 10 and not plain:
            chip.smm = rnd.randrange(2)
            pic.write(2 * c, 1, 0x48 | chip.smm << 5)
        elif what == 11:
            value = rnd.getrandbits(8)
            pic.write(4 + c, 1, value)
            value &= (0xF8, 0xDE)[c]
            for i in range(8):
                if chip.elcr[i] or value >> i & 1:
                    chip.edge[i] = 0
                chip.elcr[i] = value >> i & 1
        pair.settle()
        assert line.level == pair.intr()
        for c in (0, 1):
            chip = pair.chips[c]
            pic.write(2 * c, 1, 0x0A)
            assert pic.read(2 * c, 1) == bits([chip.irr(i) for i in range(8)])
            pic.write(2 * c, 1, 0x0B)
            assert pic.read(2 * c, 1) == bits(chip.isr)
            assert pic.read(2 * c + 1, 1) == bits(chip.imr)


@given(st.randoms(use_true_random=False))
def test_any_access_is_survived(rnd):
    pic, _ = build()
    for _ in range(300):
        what = rnd.randrange(4)
        if what == 0:
            assert 0 <= pic.read(rnd.randrange(7), 1) < 0x100
        elif what == 1:
            pic.write(rnd.randrange(7), 1, rnd.getrandbits(32))
        elif what == 2:
            pic.set_irq(rnd.randrange(16), rnd.randrange(2))
        else:
            assert 0 <= pic.ack() < 256
