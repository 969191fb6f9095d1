"""The uplink between a switch and a card of the machine: the quick way both ways, and the one by Python."""

import ctypes
import struct
from array import array

import pytest
import uctypes
from test_virtio_net import BROADCAST, Guest, Scheduler, frame

from vmm.devices.virtio.queue import CHAIN, NOTHING
from vmm.network.switch import Switches
from vmm.network.uplink import Uplink
from vmm.network.words import NEEDS_CSUM

FAR = b"\x52\x55\x0a\0\2\2"
PLAIN = bytes(10) + b"\1\0"


class Card:
    """What vmm/host has of a card. answer(frame): what the network sends back at once."""

    mac = b"\x52\x54\0\x12\x34\x56"
    line = 9
    can = NEEDS_CSUM

    def __init__(self, answer=lambda one: []):
        self.sent, self.waiting, self.heard, self.kept = [], [], [], None
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
        if not self.waiting:
            return 0
        self.kept = ctypes.create_string_buffer(self.waiting.pop(0))
        at = ctypes.addressof(self.kept)
        ctypes.memmove(part, struct.pack("<III", at & 0xFFFFFFFF, at >> 32, len(self.kept) - 1), 12)
        return len(self.kept) - 1

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

    nested = False

    def __init__(self):
        Scheduler.__init__(self)
        self.drivers, self.later, self.served = [], 0, []

    def poll_later(self):
        self.later += 1

    def serve(self, vm, work):
        self.served.append(vm)
        work()


class Clock:
    hz = 1000000

    def __init__(self):
        self.due = self.deadline = None

    def now(self):
        return 0

    def timer(self, due):
        self.due = due
        return self

    def arm(self, deadline):
        self.deadline = deadline

    def cancel(self):
        self.deadline = 0


class HostGuest(Guest):
    """At the host's switch."""

    def __init__(self, lan, number, priority=0, **options):
        self.clock = Clock()
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
        Switches.__init__(self, self.scheduler, None)
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
    guest.clock.due(0)
    assert len(guest.got()) == 1 and guest.clock.deadline == 30
    for deadline in (60, 120, 240, 480, 960, 1920, 3840, 4000, 4000):
        guest.clock.due(0)
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
