"""The uplink between a switch and a card of the machine: the quick way both ways, and the one by Python."""

import ctypes
import struct
from array import array

import pytest
import uctypes
from test_virtio_net import BASE, BROADCAST, CSUM, GUEST_CSUM, MERGE, Guest, Scheduler, frame

from vmm.devices.virtio.queue import CHAIN, NOTHING
from vmm.network import offload
from vmm.network.switch import Switches
from vmm.network.uplink import Uplink
from vmm.network.words import HEADER, NEEDS_CSUM, TCPV4
from vmm.vtx.frame import PRIORITY

FAR = b"\x52\x55\x0a\0\2\2"
PLAIN = bytes(10) + b"\1\0"


class Card:
    """What vmm/host has of a card. answer(frame): what the network sends back at once."""

    mac = b"\x52\x54\0\x12\x34\x56"
    line = 9
    can = NEEDS_CSUM

    def __init__(self, answer=lambda one: []):
        self.sent, self.waiting, self.heard, self.kept, self.used = [], [], [], {}, []
        self.put_off = []
        self.answer = answer
        self.room = 1000

    def put(self, parts, skip, size, header):
        if len(self.put_off) == self.room:
            return NOTHING
        data, words = b"", array("I", ctypes.string_at(parts, 3 * 4 * 40))
        at = 0
        while len(data) < size + skip:
            data += ctypes.string_at(words[at] | words[at + 1] << 32, words[at + 2])
            at += 3
        self.put_off.append((ctypes.string_at(header, 12), data[skip : skip + size]))
        return CHAIN

    def take(self, part):
        self.used = []
        size = self.peek(part, 0)
        self.keep(1 if size else 0)
        return size

    def peek(self, part, ahead):
        if ahead >= len(self.waiting):
            return 0
        one = self.kept.setdefault(id(self.waiting[ahead]), ctypes.create_string_buffer(self.waiting[ahead]))
        at = ctypes.addressof(one)
        ctypes.memmove(part, struct.pack("<III", at & 0xFFFFFFFF, at >> 32, len(one) - 1), 12)
        return len(one) - 1

    def keep(self, count):
        self.used += self.waiting[:count]
        del self.waiting[:count]

    def tell(self):
        for one in self.put_off:
            self.waiting += self.answer(one[1])
        self.sent += self.put_off
        self.put_off = []
        self.heard.append("quiet")

    def listen(self):
        self.heard.append("listen")

    def answered(self):
        self.heard.append("answered")

    def has(self):
        return bool(self.waiting)

    has_frame = has


class Turns(Scheduler):
    """Guests are served between turns, too."""

    def __init__(self):
        Scheduler.__init__(self)
        self.depth = array("I", [0])
        self.drivers, self.later, self.served = [], 0, []

    def poll_later(self):
        self.later += 1

    def serve(self, vm, work):
        self.served.append(vm)
        work()


class Clock:
    hz = 1000000

    def __init__(self):
        self.callback = self.deadline = None

    def now(self):
        return 0

    def timer(self, due):
        self.callback = due
        return self

    def arm(self, deadline):
        self.deadline = deadline

    def cancel(self):
        self.deadline = 0


class HostGuest(Guest):
    """At the host's switch."""

    def __init__(self, lan, number, priority=0, **options):
        self.clock = Clock()
        self.words = array("I", [0] * (PRIORITY + 1))
        self.words[PRIORITY] = priority
        self.frame_hpa = uctypes.addressof(self.words)
        before = lan.join

        def join(_name, port):
            port.vm.priority = priority
            port.vm.vcpus = (self, self)
            before("host", port)

        lan.join = join
        Guest.__init__(self, lan, number, **options)
        lan.join = before


class Lan(Switches):
    def __init__(self, card):
        self.scheduler = Turns()
        Switches.__init__(self, self.scheduler, None, None)
        self.uplink = self._uplink = Uplink(card, self.scheduler)


def test_a_frame_goes_out_with_what_is_left_to_be_done():
    card = Card()
    lan = Lan(card)
    guest = HostGuest(lan, 1)
    header = struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 16, 1)
    one = frame(FAR, guest.mac, 700)
    guest.send(one, header, (5, 7, 100, 600))
    assert card.sent == [(header, one)] and lan.uplink.sent == (1, 700)
    assert card.heard[-2:] == ["quiet", "listen"]


def test_an_answer_that_comes_at_once_is_there_in_the_same_exit():
    card = Card(lambda one: [one[6:12] + one[:6] + one[12:]])
    lan = Lan(card)
    guest = HostGuest(lan, 1)
    one = frame(FAR, guest.mac, 90)
    guest.send(one)
    assert guest.got() == [(PLAIN, one[6:12] + one[:6] + one[12:])]
    assert lan.uplink.received == (1, 90) and lan.scheduler.served == []
    assert lan["host"].known == {"02:00:00:00:00:01": "g1/net0", "52:55:0a:00:02:02": "host network"}


def test_frames_come_after_an_interrupt_and_the_first_guest_pays():
    card = Card()
    lan = Lan(card)
    a, b = HostGuest(lan, 1), HostGuest(lan, 2, priority=3)
    for guest in (a, b):
        guest.send(frame(FAR, guest.mac))  # the switch learns who is where
    assert b.got() and a.got()
    frames = [frame(a.mac, FAR, 1000), frame(b.mac, FAR, 80), frame(BROADCAST, FAR, 60)]
    card.waiting += frames
    (look,) = lan.scheduler.drivers
    look(4)
    assert lan.scheduler.later == 1 and a.got() == b.got() == []
    look(0)
    assert lan.scheduler.served == [b.port.vm]
    assert [one for _, one in a.got()] == [frames[0], frames[2]]
    assert [one for _, one in b.got()] == [frames[1], frames[2]]
    assert card.heard[-2:] == ["answered", "listen"]


def test_many_frames_come_in_passes_and_others_have_the_cpu_between():
    card = Card()
    lan = Lan(card)
    guest = HostGuest(lan, 1, buffers=(128,) * 8)
    card.waiting += [frame(guest.mac, FAR, 60)] * 500
    lan.scheduler.drivers[0](0)
    assert 0 < len(card.waiting) < 500 and lan.scheduler.later == 1
    for _ in range(10):
        lan.scheduler.drivers[0](0)
    assert not card.waiting and guest.port.dropped == 492 and len(guest.got()) == 8


def test_watched_ports_and_receivers_that_lack_a_feature_go_by_python():
    class Watcher:
        def sees(self, port, data, header, out):
            seen.append((out, bytes(data)))
            return data

    seen = []
    card = Card(lambda one: [one[6:12] + one[:6] + one[12:]] * 2)
    lan = Lan(card)
    guest = HostGuest(lan, 1)
    guest.port.watch(Watcher())
    one = frame(FAR, guest.mac, 90)
    guest.send(one)
    back = one[6:12] + one[:6] + one[12:]
    assert seen == [(True, one), (False, back), (False, back)] and guest.got() == [(PLAIN, back)] * 2
    assert card.sent == [(PLAIN[:10] + b"\1\0", one)] and lan.uplink.received == (2, 180)
    card.can = lan.uplink.words[2] = 0  # a card that fills no checksum in
    guest.port.unwatch(guest.port.watchers[0])
    guest.send(one, struct.pack("<BBHHHHH", 1, 0, 0, 0, 14, 10, 1))
    header, out = card.sent[-1]
    assert header == PLAIN and out != one and len(out) == 90


def test_a_full_card_drops():
    card = Card()
    lan = Lan(card)
    guest = HostGuest(lan, 1)
    card.room = 0
    guest.send(frame(FAR, guest.mac))
    assert lan.uplink.dropped == 1 and lan.uplink.sent == (0, 0)


def test_a_timer_finds_what_no_interrupt_has_announced():
    card = Card()
    lan = Lan(card)
    guest = HostGuest(lan, 1)
    assert guest.clock.deadline == 100000
    card.waiting.append(frame(guest.mac, FAR))
    guest.clock.callback(0)
    assert len(guest.got()) == 1 and guest.clock.deadline == 30
    for deadline in (60, 120, 240, 480, 960, 1920, 3840, 4000, 4000):
        guest.clock.callback(0)
        assert guest.clock.deadline == deadline
    guest.port.power(False)
    assert guest.clock.deadline == 0


@pytest.mark.parametrize("line", [9, 3])
def test_a_line_that_cannot_be_had_is_done_without(line, monkeypatch):
    def refuse(number, _kind):
        if number == 3:
            raise ValueError("no such interrupt line")

    monkeypatch.setattr("vmm.network.uplink.cpu.line", refuse)
    card = Card()
    card.line = line
    lan = Lan(card)
    assert lan.uplink.card.line == (9 if line == 9 else None) and uctypes.addressof(lan.uplink.words)


# -- frames that are merged


def stream(guest, **fields):
    """The frames of a stretch of TCP's data to a guest, the long one that they are cut from, and its header.

    size: bytes of data, most: of a frame, head: of TCP's header, number: of the first segment.
    """
    size, most = fields.get("size", 8000), fields.get("most", 1460)
    options = bytes(range(1, fields.get("head", 20) - 19))
    flags = 0x10 | fields.get("push", 8)
    sequence = fields.get("number", 0xFFFFF000)
    tcp = struct.pack(">HHIIBBHHH", 80, 5000, sequence, 7, (20 + len(options)) << 2, flags, 1024, 0, 0) + options
    addresses = bytes((10, 0, 2, 2, 10, 0, 2, 15))
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp) + size, 0xFFFE, 0x4000, 64, 6, 0) + addresses
    long = bytearray(guest.mac + FAR + b"\x08\0" + ip + tcp + bytes(i * 7 & 0xFF for i in range(size)))
    data = len(long) - size
    long[24:26] = struct.pack("<H", ~cpu_sum(long[14:34]) & 0xFFFF)
    pseudo = addresses + struct.pack(">HH", 6, len(long) - 34)
    long[50:52] = struct.pack("<H", cpu_sum(pseudo))
    header = struct.pack("<BBHHHHH", 1, TCPV4, data, most, 34, 16, 1)
    return [bytes(one) for one, _ in offload.finish(bytearray(long), header, 0)], bytes(long), header


def cpu_sum(data):
    total = sum(memoryview(bytes(data)).cast("H"))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def arrived(frames, guest, lan, card):
    """What a guest gets for frames that the card has at once: [(header, frame), ...]."""
    guest.send(frame(FAR, guest.mac))  # the switch learns who is where
    card.waiting += frames
    while card.waiting:
        lan.scheduler.drivers[0](0)
    return guest.got()


def receiver(**options):
    card = Card()
    lan = Lan(card)
    return card, lan, HostGuest(lan, 1, buffers=(6000,) * 8, **options)


@pytest.mark.parametrize("fields", [{}, {"head": 32}, {"size": 2920}, {"size": 1461, "push": 0}, {"most": 536}])
def test_the_frames_of_a_stream_become_the_long_one_that_they_are_cut_from(fields):
    card, lan, guest = receiver()
    frames, long, header = stream(guest, **fields)
    assert len(frames) > 1
    ((got, one),) = arrived(frames, guest, lan, card)
    assert one == long and got[:10] == header[:10]
    assert lan.uplink.received == (1, len(long)) and lan.uplink.words[HEADER] == 0


def changed(data, *places):
    """A frame with other bytes, and right checksums; places: (offset, value)."""
    out = bytearray(data)
    for at, value in places:
        out[at] = value
    out[24:26] = out[50:52] = bytes(2)
    out[24:26] = struct.pack("<H", ~cpu_sum(out[14:34]) & 0xFFFF)
    segment = bytes(out[34:]) + bytes(len(out) & 1)
    pseudo = bytes(out[26:34]) + struct.pack(">HH", 6, len(out) - 34)
    out[50:52] = struct.pack("<H", ~cpu_sum(pseudo + segment) & 0xFFFF)
    return bytes(out)


@pytest.mark.parametrize(
    "place",
    [
        (6, 0x54), (15, 2), (22, 63), (29, 9), (33, 16), (34, 1), (37, 9), (41, 1), (45, 9), (47, 0x11), (47, 0x30),
        (47, 0x12), (47, 0x14), (47, 0x50), (48, 9), (20, 0x20), (21, 1), (18, 9), (13, 6), (54, 9),
    ],
)  # fmt: skip
def test_what_differs_stays_a_frame_of_its_own(place):
    """Another sender, service, life, address, port, number, acknowledgement, flag, window, fragment, identity, type, or
    option: the frames before it are merged, and those behind it among themselves."""
    card, lan, guest = receiver()
    frames, _, _ = stream(guest, size=4 * 1460, head=32)
    frames[2] = changed(frames[2], place)
    got = arrived(frames, guest, lan, card)
    assert [len(one) for _, one in got] == [66 + 2920, 66 + 1460, 66 + 1460]
    assert got[1] == (PLAIN, frames[2]) and got[2] == (PLAIN, frames[3])


def test_a_frame_with_a_wrong_checksum_stays_alone():
    for at in (24, 50, 700):
        for which in (0, 1):
            card, lan, guest = receiver()
            frames, _, _ = stream(guest, size=2 * 1460)
            frames[which] = frames[which][:at] + bytes((frames[which][at] ^ 1,)) + frames[which][at + 1 :]
            assert [one for _, one in arrived(frames, guest, lan, card)] == frames


def test_nothing_is_merged_for_a_driver_that_takes_no_long_frames():
    card, lan, guest = receiver(features=BASE | CSUM | GUEST_CSUM | MERGE)
    frames, _, _ = stream(guest)
    assert arrived(frames, guest, lan, card) == [(PLAIN, one) for one in frames]


def test_a_stream_longer_than_a_frame_can_be_becomes_several():
    card, lan, guest = receiver()
    guest.net.write_status(0)
    guest.start(buffers=(24000,) * 5)
    one = stream(guest, size=2 * 1460)[0][0]
    frames = []
    for n in range(60):
        identity, number = struct.pack(">H", n), struct.pack(">I", n * 1460)
        places = [*enumerate(identity, 18), *enumerate(number, 38), (54, n)]
        frames.append(changed(one, *places))
    got = arrived(frames, guest, lan, card)
    assert [len(long) for _, long in got] == [54 + 44 * 1460, 54 + 16 * 1460]
    assert b"".join(long[54:] for _, long in got) == b"".join(short[54:] for short in frames)
