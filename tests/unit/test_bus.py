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
    bus.claim(0x3F8, 8, device, widest=4)
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


class Bytes:
    """An 8-bit chip: `name` << 4 | offset."""

    def __init__(self, name, seen):
        self.name = name
        self.seen = seen

    def read(self, offset, size):
        assert size == 1
        return self.name << 4 | offset

    def write(self, offset, size, value):
        assert size == 1
        self.seen.append((self.name, offset, value))


def chips():
    """Two chips at 21h and 40h-43h, the first at A0h and 22h too, as its offsets 1, 2 and 3."""
    bus, seen = PortBus(), []
    pic, pit = Bytes(1, seen), Bytes(2, seen)
    bus.claim(0x21, 1, pic, 1)
    bus.claim(0xA0, 1, pic, 2)
    bus.claim(0x40, 4, pit)
    return bus, seen


def test_wide_accesses_are_made_byte_for_byte_over_the_ports():
    bus, seen = chips()
    assert bus.read(0x20, 4) == 0xFFFF11FF
    assert bus.read(0x40, 2) == 0x2120 and bus.read(0x42, 4) == 0xFFFF2322
    assert bus.read(0x3F, 2) == 0x20FF and bus.read(0x9F, 4) == 0xFFFF12FF
    bus.write(0x21, 2, 0xAABB)
    bus.write(0x3E, 4, 0x44332211)
    bus.write(0x42, 2, 0xFFDDCC)
    assert seen == [(1, 1, 0xBB), (2, 0, 0x33), (2, 1, 0x44), (2, 2, 0xCC), (2, 3, 0xDD)]
    assert bus.unclaimed[0x22, True] == 1


def test_a_device_takes_what_its_claim_says_and_the_rest_in_halves():
    bus, words, dwords = PortBus(), Device(), Device()
    bus.claim(0x600, 4, words, widest=2)
    bus.claim(0x604, 8, dwords, widest=4)
    bus.read(0x600, 4)
    bus.read(0x601, 2)
    bus.read(0x602, 4)
    assert words.seen == [("read", 0, 2), ("read", 2, 2), ("read", 1, 2), ("read", 2, 2)]
    assert dwords.seen == [("read", 0, 2)]
    bus.write(0x606, 4, 0x11223344)
    bus.write(0x60A, 4, 0x11223344)
    assert dwords.seen[1:] == [("write", 2, 4, 0x11223344), ("write", 6, 2, 0x3344)]


def test_one_device_on_two_ranges_does_not_join_them():
    bus, device = PortBus(), Device()
    bus.claim(0x20, 2, device, widest=4)
    bus.claim(0x22, 2, device, 8, widest=4)
    bus.write(0x20, 4, 0x44332211)
    assert device.seen == [("write", 0, 2, 0x2211), ("write", 8, 2, 0x4433)]


def test_a_reserved_dword_is_not_split():
    bus, device = PortBus(), Device()
    bus.claim(0xCF9, 1, device)
    bus.reserve_dword(0xCF8)
    bus.write(0xCF8, 4, 0x80000400)
    assert bus.read(0xCF8, 4) == 0xFFFFFFFF and device.seen == []
    bus.write(0xCF8, 2, 0x0400)
    assert device.seen == [("write", 0, 1, 4)]
    assert bus.unclaimed == {(0xCF8, True): 2, (0xCF8, False): 1}


def test_the_last_port_has_no_successor():
    bus, device = PortBus(), Device()
    bus.claim(0xFFFF, 1, device)
    assert bus.read(0xFFFF, 2) == 0xFF88


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


def test_changes_that_are_told_once():
    bus, told = MmioBus(), []
    bus.changed = lambda: told.append(len(bus.regions))
    one, two = Device(), Device()

    def work():
        bus.claim(0x1000, 0x1000, one)
        bus.claim(0x2000, 0x1000, two)
        bus.release(one)

    bus.together(work)
    assert told == [1]
    with pytest.raises(Overlap):
        bus.together(lambda: bus.claim(0x2000, 1, one))
    assert told == [1, 1]
    bus.release(two)
    assert told == [1, 1, 0]
