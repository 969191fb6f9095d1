"""The buses: claims, overlaps, and what nobody claims."""

import pytest

from vmm.bus import MmioBus, Overlap, PortBus


class Device:
    def __init__(self):
        self.seen = []

    def read(self, offset, size):
        self.seen.append(("read", offset, size))
        return 0x1122334455667788

    def write(self, offset, size, value):
        self.seen.append(("write", offset, size, value))


def test_a_device_sees_offsets_and_masked_values():
    bus, device = PortBus(), Device()
    bus.claim(0x3F8, 8, device)
    assert bus.read(0x3FD, 1) == 0x88
    assert bus.read(0x3F8, 4) == 0x55667788
    bus.write(0x3F9, 2, 0xABCDEF)
    assert device.seen == [("read", 5, 1), ("read", 0, 4), ("write", 1, 2, 0xCDEF)]


def test_one_device_on_two_ranges():
    bus, device = PortBus(), Device()
    bus.claim(0x20, 2, device)
    bus.claim(0xA0, 2, device, 2)
    bus.read(0xA1, 1)
    assert device.seen == [("read", 3, 1)]


@pytest.mark.parametrize("base", [0x3F1, 0x3F8, 0x3FF])
def test_overlapping_ports_are_refused_and_nothing_changes(base):
    bus, first, second = PortBus(), Device(), Device()
    bus.claim(0x3F8, 8, first)
    before = dict(bus.claims)
    with pytest.raises(Overlap):
        bus.claim(base, 8, second)
    assert bus.claims == before


@pytest.mark.parametrize("base", [-1, 0xFFFC, 0x10000])
def test_ports_beyond_the_last_are_refused(base):
    with pytest.raises(ValueError):
        PortBus().claim(base, 8, Device())


def test_unclaimed_ports_read_all_ones_and_are_counted():
    bus = PortBus()
    assert [bus.read(0x80, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    bus.write(0x80, 1, 5)
    assert bus.unclaimed == {(0x80, False): 3, (0x80, True): 1}


def test_memory_regions():
    bus, low, high = MmioBus(), Device(), Device()
    bus.claim(0xFEE00000, 0x1000, high)
    bus.claim(0xFEC00000, 0x1000, low)
    with pytest.raises(Overlap):
        bus.claim(0xFEBFF000, 0x1001, Device())
    assert bus.read(0xFEE00020, 4) == 0x55667788
    bus.write(0xFEC00010, 4, 7)
    assert high.seen == [("read", 0x20, 4)] and low.seen == [("write", 0x10, 4, 7)]
    assert bus.read(0xFED00000, 4) == 0xFFFFFFFF
    bus.write(0xFED00008, 4, 1)
    assert bus.unclaimed == {0xFED00000: 2}
    assert bus.release(low) == (0xFEC00000, 0x1000)
    assert bus.find(0xFEC00000) is None
