"""8254 against a model that is clocked pulse by pulse."""

from clock import Clock
from hypothesis import given
from hypothesis import strategies as st
from pit import HZ, Bench, Counter

from vmm.devices.i8254 import I8254


@given(st.randoms(use_true_random=False))
def test_counter_2_against_the_clocked_model(rnd):
    b = Bench()
    model = Counter(0)
    for _ in range(rnd.randrange(1, 60)):
        what = rnd.randrange(6)
        if what == 0:
            mode = rnd.randrange(8)
            bcd = rnd.randrange(4) == 0
            b.put(3, 0xB0 | mode << 1 | bcd)
            model.control(mode if mode < 6 else mode - 4, bcd)
        elif what < 3:
            count = rnd.randrange(2, 40) if rnd.randrange(4) else rnd.randrange(4) * 100
            shown = int(str(count), 16) if model.modulus == 10000 else count
            b.put(2, shown & 0xFF)
            model.first_byte()
            if rnd.randrange(3) == 0:
                b.step(3)
                for _ in range(3):
                    model.clk()
            b.put(2, shown >> 8)
            model.count(count if count else model.modulus)
        elif what == 3:
            gate = rnd.randrange(2)
            b.put(4, gate)
            model.set_gate(gate)
        pulses = rnd.randrange(1, 30)
        b.step(pulses)
        for _ in range(pulses):
            model.clk()
        b.put(3, 0xC8)
        status = b.get(2)
        assert status >> 7 == model.out
        assert status >> 6 & 1 == model.null
        assert status >> 1 & 7 == model.mode
        shown = b.get(2)
        shown |= b.get(2) << 8
        if model.loaded:
            assert shown == model.shown()
        live = b.get(2)
        live |= b.get(2) << 8
        assert live == shown
        assert b.get(4) >> 5 & 1 == model.out


@given(st.randoms(use_true_random=False))
def test_interrupts_rise_with_the_clocked_model(rnd):
    rises = []
    clock = Clock(HZ)

    class Out:
        level = 0

    def irq(level):
        if level and not Out.level:
            rises.append(clock.ticks // 4)
        Out.level = level
        return 1

    pit = I8254(irq, clock)
    del rises[:]
    model = Counter(1)
    expected = []
    pulse = 0
    for _ in range(rnd.randrange(1, 8)):
        mode = rnd.randrange(6)
        old = model.out
        if rnd.randrange(3) == 0 and model.mode in (2, 3) and model.loaded:
            count = rnd.randrange(100, 400)
        else:
            pit.write(3, 1, 0x30 | mode << 1)
            model.control(mode, 0)
            count = rnd.randrange(100, 400)
        if model.out and not old:
            expected.append(pulse)
        model.first_byte()
        pit.write(0, 1, count & 0xFF)
        pit.write(0, 1, count >> 8)
        model.count(count)
        for _ in range(rnd.randrange(1, 1500)):
            old = model.out
            model.clk()
            pulse += 1
            clock.advance(4)
            if model.out and not old:
                expected.append(pulse)
    assert rises == expected


@given(st.randoms(use_true_random=False))
def test_any_access_is_survived(rnd):
    b = Bench()
    for _ in range(200):
        what = rnd.randrange(3)
        if what == 0:
            assert 0 <= b.pit.read(rnd.randrange(6), 1) < 0x100
        elif what == 1:
            b.pit.write(rnd.randrange(6), 1, rnd.getrandbits(32))
        else:
            b.clock.advance(rnd.randrange(100000))
