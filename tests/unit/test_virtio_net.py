"""Network interfaces and the switch between them: frames of every cut, offloads, rings of nonsense.

One file: all of it needs two guests' drivers, whose rings are built here.
"""

import random as chance
import struct

import pytest
import rings
from rings import DATA, Driver

from vmm.devices.virtio.device import DRIVER_OK, EVENT_IDX, FEATURES_OK, INDIRECT_DESC, NEEDS_RESET, VERSION_1
from vmm.devices.virtio.net import Net
from vmm.network import offload
from vmm.network.port import Port
from vmm.network.switch import Switches

BASE = VERSION_1 | INDIRECT_DESC
CSUM, GUEST_CSUM, TSO4, TSO6, MERGE = 1 << 0, 1 << 1, 1 << 7, 1 << 8, 1 << 15
ALL = BASE | CSUM | GUEST_CSUM | TSO4 | TSO6 | 1 << 11 | 1 << 12 | MERGE
RX_RING, TX_RING = 0x4000, 0
BROADCAST = b"\xff" * 6


class Scheduler:
    """As far as ports need it: nothing is inside, so that nobody is preempted."""

    hz = 1000

    def __init__(self):
        self.depth = memoryview(bytearray(8)).cast("I")
        self._words = memoryview(bytearray(128)).cast("I")
        self.put_off = []

    def defer(self, settle=None):
        self.put_off.append(settle)

    def on_behalf(self, vm, work):
        work()


class Cpu:
    frame_hpa = 0


class Vm:
    vcpus = (Cpu, Cpu)

    def __init__(self, scheduler):
        self.monitor = self
        self.scheduler = scheduler


class Guest:
    """A driver of one interface."""

    def __init__(self, lan, number, features=ALL, buffers=(2048,) * 8):
        self.lan = lan
        self.memory = rings.memory()
        self.mac = bytes((2, 0, 0, 0, 0, number))
        self.refused, self.signals = [], []
        self.net = Net(self.memory, self.refused.append, self.mac)
        self.net.signal = self.signals.append
        self.net.changed = lambda: self.signals.append("changed")
        self.port = Port(Vm(lan.scheduler), self.net, "g%d/net0" % number)
        lan.join("lan", self.port)
        self.port.power(True)
        self.start(features, buffers)

    def start(self, features=ALL, buffers=(2048,) * 8):
        net = self.net
        net.write_status(0)
        net.write_status(3)
        net.accept(0, features & 0xFFFFFFFF)
        net.accept(1, features >> 32)
        net.write_status(3 | FEATURES_OK)
        assert net.status & FEATURES_OK
        self.memory.write(RX_RING + 0x3000, bytes(8))
        self.memory.write(0x3000, bytes(8))
        self.rx = Driver(self.memory, net.queues[0], 8, RX_RING)
        self.tx = Driver(self.memory, net.queues[1], 8, TX_RING)
        net.enable(0)
        net.enable(1)
        net.write_status(3 | FEATURES_OK | DRIVER_OK)
        self.places = {}
        at = DATA
        for i, size in enumerate(buffers):
            self.rx.chain(i, (at, size, 1))
            self.places[i] = at, size
            self.rx.add(i)
            at += size

    def send(self, frame, header=bytes(12), cut=None):
        """cut: sizes of the pieces; None: the header in its own."""
        data = header + frame
        at, parts = 0x38000, []
        self.memory.write(at, data)
        for size in cut or (12, len(frame)):
            parts.append((at, size, 0))
            at += size
        self.tx.chain(0, *parts)
        self.tx.add(0)
        self.net.kicks[1]()
        assert self.tx.back() == [(0, 0)]

    def got(self):
        """[(header, frame), ...] since the last call."""
        out = []
        back = self.rx.back()
        while back:
            head, size = back.pop(0)
            data = self.memory.read(self.places[head][0], size)
            header = data[:12]
            for _ in range(header[10] | header[11] << 8, 1, -1):
                head, size = back.pop(0)
                data += self.memory.read(self.places[head][0], size)
            out.append((header, data[12:]))
        return out


class Lan(Switches):
    def __init__(self):
        self.scheduler = Scheduler()
        Switches.__init__(self, self.scheduler, None, None)


def frame(to, source, size=60, kind=0x88B5):
    return to + source + struct.pack(">H", kind) + bytes(i * 7 & 0xFF for i in range(size - 14))


def pair(**options):
    lan = Lan()
    return lan, Guest(lan, 1, **options), Guest(lan, 2, **options)


def test_an_unknown_address_goes_to_all_and_is_learned():
    lan, a, b = pair()
    c = Guest(lan, 3)
    one = frame(b.mac, a.mac)
    a.send(one)
    plain = bytes(10) + b"\1\0"
    assert a.got() == [] and b.got() == [(plain, one)] and c.got() == [(plain, one)]
    two = frame(a.mac, b.mac, 1514)
    b.send(two)
    assert a.got() == [(plain, two)] and b.got() == [] and c.got() == []
    a.send(one)
    assert b.got() == [(plain, one)] and c.got() == []
    assert a.signals == [1, 0, 1] and b.signals == [0, 1, 0]
    all_of_them = frame(BROADCAST, c.mac)
    c.send(all_of_them)
    assert a.got() == b.got() == [(plain, all_of_them)]
    assert lan["lan"].known == {"02:00:00:00:00:0%d" % n: "g%d/net0" % n for n in (1, 2, 3)}
    assert a.port.sent == (2, 120) and a.port.received == (2, 1514 + 60)


@pytest.mark.parametrize("cut", [(26, 46), (72,), (12, 14, 46), (5, 7, 60), (12, 3, 57), (13, 59), (12, 30, 30)])
def test_frames_may_be_cut_anywhere(cut):
    _, a, b = pair()
    one = frame(b.mac, a.mac)
    a.send(one, cut=cut)
    assert [data for _, data in b.got()] == [one]


def test_buffers_are_merged():
    _, a, b = pair(buffers=(700,) * 8)
    one = frame(b.mac, a.mac, 1514)
    a.send(one)
    ((header, data),) = b.got()
    assert data == one and header[10] == 3
    a.send(one)
    a.send(one)  # two are left
    assert [data for _, data in b.got()] == [one] and b.port.dropped == 1
    b.rx.add(0)
    a.send(one)
    assert len(b.got()) == 1 and b.signals.count(0) == 3


def test_without_merging_a_frame_that_does_not_fit_is_lost():
    _, a, b = pair(features=ALL & ~MERGE, buffers=(200, 2000))
    a.send(frame(b.mac, a.mac, 300))
    assert b.got() == [] and b.port.dropped == 1
    a.send(frame(b.mac, a.mac, 180))
    assert len(b.got()) == 1
    b.start(ALL & ~MERGE, (2000,))
    a.send(frame(b.mac, a.mac, 300))
    assert len(b.got()) == 1


def test_what_is_no_frame():
    _, a, b = pair()
    for one in (frame(b.mac, a.mac)[:13], frame(b.mac, a.mac, 1519)):
        a.send(one)
    for header in (
        struct.pack("<BBHHHHH", 1, 0, 0, 0, 50, 9, 0), struct.pack("<BBHHHHH", 0, 1, 0, 500, 34, 16, 0),
        struct.pack("<BBHHHHH", 1, 3, 0, 500, 34, 16, 0), struct.pack("<BBHHHHH", 1, 1, 0, 0, 34, 16, 0),
        struct.pack("<BBHHHHH", 1, 0, 0, 0, 0, 16, 0),
    ):  # fmt: skip
        a.send(frame(b.mac, a.mac), header)
    assert b.got() == [] and a.port.refused == 7 and a.port.sent == (0, 0)


def packet(a, b, data, four=True, flags=0x18):
    """A TCP segment with its pseudo header's checksum, as a driver hands it over."""
    tcp = struct.pack(">HHIIBBHHH", 1000, 80, 0xFFFFFF00, 5, 0x50, flags, 4096, 0, 0)
    if four:
        addresses = b"\x0a\0\0\1\x0a\0\0\2"
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(data), 0xFFFE, 0x4000, 64, 6, 0) + addresses
        ip = ip[:10] + struct.pack(">H", ~internet(ip) & 0xFFFF) + ip[12:]
    else:
        addresses = bytes(range(32))
        ip = struct.pack(">IHBB", 6 << 28, 20 + len(data), 6, 64) + addresses
    pseudo = internet(addresses + struct.pack(">II", 20 + len(data), 6))
    tcp = tcp[:16] + struct.pack(">H", pseudo) + tcp[18:]
    return b.mac + a.mac + (b"\x08\0" if four else b"\x86\xdd") + ip + tcp + data, 14 + len(ip)


def internet(data):
    """The checksum's sum by the book."""
    data += bytes(len(data) & 1)
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def header_of(tcp, gso=0, size=0):
    return struct.pack("<BBHHHHH", 1, gso, tcp + 20 if gso else 0, size, tcp, 16, 0)


@pytest.mark.parametrize("four", [True, False])
def test_offloads_are_left_to_a_receiver_that_can(four):
    _, a, b = pair(buffers=(4096,) * 8)
    one, tcp = packet(a, b, bytes(range(256)) * 30, four)
    header = header_of(tcp, 1 if four else 4, 1400)
    a.send(one, header)
    ((said, data),) = b.got()
    assert data == one and said[:10] == header[:10] and said[10] == 2


@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("four", [True, False])
@pytest.mark.parametrize("lacks", [GUEST_CSUM | TSO4 | TSO6, TSO4 | TSO6])
def test_offloads_are_done_for_one_that_cannot(four, lacks, odd):
    lan = Lan()
    a, b = Guest(lan, 1), Guest(lan, 2, ALL & ~lacks)
    data = chance.Random(odd).randbytes(5000 + odd)
    one, tcp = packet(a, b, data, four, flags=0x19)
    a.send(one, header_of(tcp, 1 if four else 4, 1400))
    got = b.got()
    assert len(got) == 4
    back, number = b"", 0xFFFE
    for i, (header, segment) in enumerate(got):
        segment = bytearray(segment)
        if lacks & GUEST_CSUM:
            assert header == bytes(10) + b"\1\0"
        else:
            assert header[:10] == header_of(tcp)[:10]
            offload.complete(segment, tcp, 16)
        if four:
            assert internet(segment[14:34]) == 0xFFFF
            assert struct.unpack_from(">HH", segment, 16) == (len(segment) - 14, number + i & 0xFFFF)
            addresses = segment[26:34]
        else:
            assert struct.unpack_from(">H", segment, 18)[0] == len(segment) - 54
            addresses = segment[22:54]
        assert internet(addresses + struct.pack(">II", len(segment) - tcp, 6) + segment[tcp:]) == 0xFFFF
        assert struct.unpack_from(">I", segment, tcp + 4)[0] == 0xFFFFFF00 + len(back) & 0xFFFFFFFF
        assert segment[tcp + 13] == (0x19 if i == 3 else 0x10)
        back += segment[tcp + 20 :]
    assert back == data


def test_a_checksum_alone_is_filled_in():
    lan = Lan()
    a, b = Guest(lan, 1), Guest(lan, 2, BASE)
    one, tcp = packet(a, b, b"hello", True)
    a.send(one, header_of(tcp))
    ((header, data),) = b.got()
    assert header == bytes(10) + b"\1\0"
    assert internet(data[26:34] + struct.pack(">II", 25, 6) + data[tcp:]) == 0xFFFF


def test_segmentation_of_nonsense_is_dropped():
    lan = Lan()
    a, b = Guest(lan, 1), Guest(lan, 2, BASE)
    random = chance.Random(3)
    for _ in range(200):
        one, tcp = packet(a, b, bytes(100), random.choice((True, False)))
        one = bytearray(one)
        for _ in range(random.randrange(4)):
            one[random.randrange(12, len(one))] = random.randrange(256)
        one = one[: random.randrange(60, len(one))]
        a.send(bytes(one), header_of(random.choice((tcp, 16)), random.choice((1, 4)), random.choice((1, 20, 9000))))
        for _, data in b.got():
            assert len(data) <= len(one)
        b.start(BASE)


def test_a_guest_that_is_off_hears_nothing_and_is_forgotten():
    lan, a, b = pair()
    c = Guest(lan, 3)
    b.send(frame(a.mac, b.mac))
    b.port.power(False)
    assert "02:00:00:00:00:02" not in lan["lan"].known
    a.send(frame(b.mac, a.mac))
    assert b.got() == [] and len(c.got()) == 2
    lan.leave(b.port)
    a.send(frame(b.mac, a.mac))
    assert len(c.got()) == 1
    lan.leave(a.port)
    a.net.kicks[1]()
    lan.leave(c.port)
    assert lan.by_name == {}


def test_an_address_moves():
    lan, a, b = pair()
    c = Guest(lan, 3)
    a.send(frame(BROADCAST, a.mac))
    c.send(frame(BROADCAST, a.mac))
    b.got(), c.got(), a.got()
    b.send(frame(a.mac, b.mac))
    assert a.got() == [] and len(c.got()) == 1
    a.send(frame(b.mac, a.mac))
    b.got()
    b.send(frame(a.mac, b.mac))
    assert len(a.got()) == 1 and c.got() == []


def test_the_table_is_bounded_and_what_it_has_no_room_for_is_flooded():
    lan, a, b = pair()
    random = chance.Random(5)
    for _ in range(2000):
        a.send(frame(b.mac, b"\2" + random.randbytes(5)))
    assert len(lan["lan"].known) <= 256
    b.start()
    b.send(frame(a.mac, b.mac))
    assert len(a.got()) == 1


def test_while_a_handler_is_preempted_frames_wait():
    lan, a, b = pair()
    lan.scheduler.depth[0] = 1
    a.tx.chain(0, (0x8000, 72, 0))
    a.memory.write(0x8000, bytes(12) + frame(b.mac, a.mac))
    a.tx.add(0)
    a.net.kicks[1]()
    assert b.got() == [] and a.tx.back() == [] and lan.scheduler.put_off[-1] is None
    lan.scheduler.depth[0] = 0
    lan.scheduler.put_off[0]()
    assert len(b.got()) == 1 and a.tx.back() == [(0, 0)]


def test_the_same_address_twice_is_refused():
    lan = Lan()
    Guest(lan, 1)
    with pytest.raises(ValueError, match=r"mac 02:00:00:00:00:01 is g1/net0's already"):
        Guest(lan, 1)


def test_a_broken_receiver_asks_for_a_reset_and_its_sender_goes_on():
    _, a, b = pair()
    b.memory.write(RX_RING + 0x1000, struct.pack("<QIHH", DATA, 2000, 0, 0))  # a buffer that is not writable
    a.send(frame(b.mac, a.mac))
    assert b.net.status & NEEDS_RESET and b.refused == ["virtio: queue 0: buffers of a wrong kind"] and a.refused == []
    b.start()
    a.send(frame(b.mac, a.mac))
    assert len(b.got()) == 1


@pytest.mark.parametrize("seed", range(40))
def test_random_rings(seed):
    """Whatever drivers write in their rings: a third guest is heard by a fourth, and a reset mends all."""
    random = chance.Random(seed)
    lan, a, b = pair(features=random.choice((ALL, BASE, ALL | EVENT_IDX)))
    c, d = Guest(lan, 3), Guest(lan, 4)
    for _ in range(10):
        for guest in (a, b):
            base = random.choice((0, RX_RING))
            rings.nonsense(random, guest.memory, base)
            for q in guest.net.queues:
                q.size = 8
            guest.memory.write(0x8000, random.randbytes(16) + random.choice((a.mac, b.mac, BROADCAST)))
            guest.net.kicks[1]()
        for guest in (a, b):
            if guest.net.status & NEEDS_RESET:
                assert guest.refused
                guest.start()
    d.start()
    c.send(frame(d.mac, c.mac))
    assert frame(d.mac, c.mac) in [data for _, data in d.got()]
    for guest in (a, b):
        guest.start()
    a.send(frame(b.mac, a.mac))
    assert frame(b.mac, a.mac) in [data for _, data in b.got()]


def test_a_saved_interface_goes_on():
    lan, a, b = pair()
    a.send(frame(b.mac, a.mac))
    b.got()
    saved = b.net.save(), lan["lan"].save()
    b.net.reset()
    b.net.load(saved[0])
    lan["lan"].load(saved[1])
    assert lan["lan"].known == {"02:00:00:00:00:01": "g1/net0"}
    a.send(frame(b.mac, a.mac))
    assert len(b.got()) == 1


def test_a_frame_that_was_put_off_is_sent_after_a_load():
    lan, a, b = pair()
    lan.scheduler.depth[0] = 1
    a.memory.write(0x8000, bytes(12) + frame(b.mac, a.mac))
    a.tx.chain(0, (0x8000, 72, 0))
    a.tx.add(0)
    a.net.kicks[1]()
    lan.scheduler.depth[0] = 0
    saved = a.net.save()
    a.port.power(False)  # as of another guest
    a.port.power(True)
    a.net.load(saved)
    assert b.got() == []
    a.net.resume()
    assert len(b.got()) == 1 and a.tx.back() == [(0, 0)]


def test_a_policy_on_a_frame_may_save_and_load_its_sender():
    """Its buffers have been given back by then: whoever is loaded with that state would not do so."""
    _, a, b = pair()

    class Watcher:
        def sees(self, port, frame, header, out):
            if out:
                saved = a.net.save()
                assert saved["queues"][1]["filled"] == saved["queues"][1]["next"]
                a.net.load(saved)
                a.net.resume()
            return frame

    a.port.watch(Watcher())
    for _ in range(3):
        a.send(frame(b.mac, a.mac))
        assert len(b.got()) == 1
