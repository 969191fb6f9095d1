"""Typing on the PS/2 keyboard: scan codes of both sets, when they come, and what is refused."""

import pytest
from clock import Clock

from vmm import keyboard
from vmm.devices.i8042 import I8042


class Bench:
    def __init__(self):
        self.clock = Clock()
        self.edges = []
        self.chip = I8042(self.edges.append, lambda level: None, None)
        self.chip.write(4, 1, 0x60)
        self.chip.write(0, 1, 0x45)  # translating, with IRQ 1
        self.typist = keyboard.Typist(self.clock, self.chip)

    def taken(self, most=200):
        """What a guest reads that looks often."""
        out = []
        for _ in range(most):
            self.clock.advance(self.clock.hz // 200)
            while self.chip.read(4, 1) & 1:
                out.append(self.chip.read(0, 1))
        return out


@pytest.fixture
def bench():
    return Bench()


def test_text_in_set_1(bench):
    bench.typist.type("aB1!\n")
    assert bench.taken() == [0x1E, 0x9E, 0x2A, 0x30, 0xB0, 0xAA, 0x02, 0x82, 0x2A, 0x02, 0x82, 0xAA, 0x1C, 0x9C]
    assert bench.edges[:2] == [1, 0]


def test_keys_together_and_extended_ones(bench):
    bench.typist.press("ctrl", "alt", "delete")
    assert bench.taken() == [0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0xB8, 0x9D]
    bench.typist.press("F2")
    bench.typist.press("x")
    assert bench.taken() == [0x3C, 0xBC, 0x2D, 0xAD]


def test_text_in_set_2_where_the_controller_does_not_translate(bench):
    bench.chip.write(4, 1, 0x60)
    bench.chip.write(0, 1, 0x05)
    bench.typist.type("a")
    bench.typist.press("up")
    assert bench.taken() == [0x1C, 0xF0, 0x1C, 0xE0, 0x75, 0xE0, 0xF0, 0x75]


def test_nothing_comes_while_the_guest_does_not_want_it(bench):
    bench.chip.write(4, 1, 0xAD)
    bench.typist.type("a")
    assert bench.taken(20) == []
    bench.chip.write(4, 1, 0xAE)
    assert bench.taken() == [0x1E, 0x9E]
    bench.chip.write(0, 1, 0xF5)
    assert bench.taken(2) == [0xFA]
    bench.typist.type("b")
    assert bench.taken(20) == []
    bench.chip.write(0, 1, 0xF4)
    assert bench.taken() == [0xFA, 0x30, 0xB0]
    bench.typist.type("c")
    bench.typist.reset()
    assert bench.taken() == []


def test_every_printable_character_has_a_key(bench):
    text = "".join(chr(c) for c in range(32, 127))
    pairs = [keyboard.character(c) for c in text]
    assert len(set(pairs)) == len(text) and all(0 < code <= 0x39 for code, _ in pairs)


@pytest.mark.parametrize("call", ["type('é')", "press('f13')", "press('A', '!')"])
def test_what_has_no_key_is_refused(bench, call):
    with pytest.raises(ValueError, match="key|shift"):
        eval("bench.typist." + call)
    assert bench.taken(20) == []


def test_what_waits_is_bounded(bench):
    bench.typist.type("a" * 2000)
    with pytest.raises(MemoryError, match="4000 scan codes"):
        bench.typist.type("a" * 100)
