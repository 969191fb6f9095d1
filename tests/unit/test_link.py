"""Null-modem cables: two 16550s with guests around them that read and write as drivers do."""

from array import array
from random import Random
from types import SimpleNamespace

import pytest
import uctypes
from clock import Clock, Line
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.uart16550 import Uart16550
from vmm.devices.uart16550_registers import MSR_CTS, MSR_DCD, MSR_DSR
from vmm.scheduling.states import WAITS
from vmm.ties.link import Links
from vmm.vtx.frame import SIZE, SLICE_END, STATE

RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
THR, FCR = RBR, IIR
READY = 0x0B  # DTR, RTS, OUT2
ALL = MSR_CTS | MSR_DSR | MSR_DCD


class Pc:
    """The UARTs of one guest; they keep their lines."""

    def __init__(self):
        self.lines = [Line() for _ in range(4)]
        self._coms = [None] * 4

    def com(self, n):
        if self._coms[n] is None:
            self._coms[n] = Uart16550(lambda byte: True, self.lines[n])
        return self._coms[n]


class Guest:
    """What vmm/ties/link.py sees of a VM, and what its programs do with COM n."""

    def __init__(self, name, powered=True):
        self.name = name
        self.pc = Pc()
        self.clock = Clock()
        self.powered = powered
        self.preempted = 0
        self.frame = bytearray(SIZE)
        self.vcpus = [SimpleNamespace(frame_hpa=uctypes.addressof(self.frame))]

    def preempt_soon(self):
        self.preempted += 1

    def get(self, register, n=1):
        return self.pc.com(n).read(register, 1)

    def put(self, register, value, n=1):
        self.pc.com(n).write(register, 1, value)

    def open(self, fcr=0x87, n=1):
        self.put(FCR, fcr, n)
        self.put(IER, 0x05, n)
        self.put(MCR, READY, n)

    def send(self, data, n=1):
        """As far as the transmitter takes it at once; how much that was."""
        for count, byte in enumerate(data):
            if not self.get(LSR, n) & 0x20:
                return count
            self.put(THR, byte, n)
        return len(data)

    def receive(self, n=1):
        data = bytearray()
        while self.get(LSR, n) & 1:
            data.append(self.get(RBR, n))
        return bytes(data)

    def modem(self, n=1):
        return self.get(MSR, n) & 0xF0


class Scheduler:
    """Says whether a handler is interrupted, and keeps who wants to know when none is."""

    def __init__(self):
        self.depth = array("I", [0])
        self.settle = None
        self.asked = 0
        self.paid = []

    def on_behalf(self, vm, work):
        self.paid.append(vm)
        work()

    @property
    def nested(self):
        return self.depth[0] != 0

    def defer(self, settle=None):
        self.asked += 1
        if settle:
            self.settle = settle


def pair(wanted=({"uart": "com2", "to": "b:com2"},)):
    links = Links(Scheduler())
    a, b = Guest("a"), Guest("b")
    links.add("a", wanted)
    links.add("b", [])
    machines = {"a": a, "b": b}
    links.wire(machines)
    return links, machines, a, b


def test_modem_lines_are_crossed():
    _, _, a, b = pair()
    assert a.modem() == b.modem() == 0
    a.put(MCR, 1)
    assert b.modem() == MSR_DSR | MSR_DCD
    a.put(MCR, 2)
    assert b.modem() == MSR_CTS
    b.put(MCR, 3)
    assert a.modem() == ALL
    a.put(MCR, 0x1F)  # loopback: the pins are let go
    assert b.modem() == 0


def test_a_change_of_the_modem_lines_interrupts():
    _, _, a, b = pair()
    b.get(MSR)
    b.put(MCR, 8)
    b.put(IER, 8)
    a.put(MCR, 2)
    assert b.pc.lines[1].level == 1
    assert b.get(IIR) & 0x0F == 0
    assert b.get(MSR) & 0x0F == 1
    assert b.pc.lines[1].level == 0


def test_characters_arrive_and_wait_for_the_trigger_level():
    _, _, a, b = pair()
    a.open()
    b.open()  # trigger level 8
    assert a.send(b"1234567") == 7
    assert b.pc.lines[1].level == 0
    a.send(b"8")
    assert b.pc.lines[1].level == 1
    assert b.get(IIR) & 0x0F == 4
    assert b.receive() == b"12345678"
    assert b.pc.lines[1].level == 0


def test_few_characters_are_announced_after_a_while():
    _, _, a, b = pair()
    b.open()
    a.send(b"ab")
    b.clock.advance(b.clock.hz // 20000)
    assert b.pc.lines[1].level == 0
    b.clock.advance(b.clock.hz // 20000)
    assert b.pc.lines[1].level == 1
    assert b.get(IIR) & 0x0F == 0x0C
    assert b.receive() == b"ab"


def test_a_sender_waits_for_one_that_does_not_read_and_goes_on():
    _, _, a, b = pair()
    a.open()
    b.open()
    data = bytes(range(100))
    sent = a.send(data)
    assert sent == 17  # the far FIFO, and one that makes THRE fall
    assert b.receive() == data[:16]
    b.clock.advance(b.clock.hz // 1000)
    assert not b.get(LSR) & 1  # the rest: its program can do what its interrupt handler has left for later
    b.clock.advance(b.clock.hz // 1000)
    assert b.receive() == data[16:17]
    assert a.get(LSR) & 0x60 == 0x60
    assert b.pc.com(1).overruns == 0


@given(st.integers(0, 1 << 32))
def test_nothing_is_lost_or_doubled_both_ways(seed):
    random = Random(seed)
    _, _, a, b = pair()
    want = {guest: bytes(random.randrange(256) for _ in range(300)) for guest in (a, b)}
    sent, got = {a: 0, b: 0}, {a: b"", b: b""}
    for guest in (a, b):
        guest.open(random.choice((0x00, 0x01, 0x41, 0x81, 0xC1)))
    for _ in range(4000):
        guest = random.choice((a, b))
        what = random.randrange(3)
        if what == 0:
            burst = random.randrange(17)
            sent[guest] += guest.send(want[guest][sent[guest] : sent[guest] + burst])
        elif what == 1:
            got[guest] += guest.receive()
        elif guest.get(LSR) & 1:
            got[guest] += bytes([guest.get(RBR)])
    for _ in range(100):
        for guest in (a, b):
            sent[guest] += guest.send(want[guest][sent[guest] :])
            got[guest] += guest.receive()
    assert (got[a], got[b]) == (want[b], want[a])


def test_a_reset_of_the_receiver_lets_the_sender_go_on():
    _, _, a, b = pair()
    b.open()
    a.send(bytes(17))
    assert not a.get(LSR) & 0x20
    b.pc.com(1).reset()
    assert a.modem() == 0
    b.open()
    assert a.modem() == ALL
    assert a.get(LSR) & 0x60 == 0x60
    assert a.send(b"x") == 1


def test_a_far_end_without_power_is_an_unplugged_cable():
    links, machines, a, b = pair()
    b.open()
    a.send(bytes(17))
    [end] = links.ends("b")
    end.power(False)
    assert a.modem() == 0
    assert a.get(LSR) & 0x60 == 0x60
    assert a.send(b"gone") == 4
    assert links.ends("a")[0].lost == 5
    end.power(True)
    assert a.modem() == ALL  # its chip was not reset here; VM.start() does that


def test_destroyed_and_made_again():
    links, machines, a, b = pair()
    b.open()
    links.remove("b")
    del machines["b"]
    assert a.modem() == 0
    assert a.send(b"nobody") == 6
    b = machines["b"] = Guest("b")
    links.add("b", [])
    links.wire(machines)
    b.open()
    assert a.modem() == ALL
    a.send(b"again")
    assert b.receive() == b"again"


def test_the_cable_goes_with_the_last_guest_that_names_it():
    links, machines, a, b = pair()
    links.add("b", [{"uart": "com2", "to": "a:com2"}])  # b's file names it too
    links.remove("a")
    assert len(links.cables) == 1
    links.remove("b")
    assert links.cables == []


def test_removed_cables_leave_the_other_guest_an_idle_port():
    links, machines, a, b = pair()
    a.open()
    links.remove("a")
    assert links.cables == []
    assert b.modem() == 0
    assert b.send(b"into the air") == 12
    for _ in range(40):  # no timer of the clock is used up by it
        machines["a"] = Guest("a")
        links.add("a", [{"uart": "com2", "to": "b:com2"}])
        links.wire(machines)
        links.remove("a")
    assert len(b.clock.timers) == 2


def test_a_break_arrives_as_one():
    _, _, a, b = pair()
    b.open()
    a.put(LCR, 0x43)
    assert b.get(LSR) & 0x11 == 0x11
    assert b.get(RBR) == 0
    a.put(LCR, 0x03)
    assert not b.get(LSR) & 1


def test_the_far_guest_is_to_run_soon_when_there_is_something_for_it():
    _, _, a, b = pair()
    b.open()
    a.send(b"x")
    assert not b.preempted  # it runs
    b.receive()
    assert a.preempted
    frame = memoryview(b.frame).cast("I")
    turn = memoryview(a.frame).cast("I")
    frame[STATE] = WAITS
    for turn[SLICE_END] in (0, 1000, 1000, 0, 1000):
        a.send(b"x")
        b.receive()
    assert b.preempted == 4  # once a turn


def test_what_is_sent_while_a_handler_is_interrupted_waits():
    links, _, a, b = pair()
    b.open()
    scheduler = links.ends("a")[0].scheduler
    asked = scheduler.asked
    scheduler.depth[0] = 1
    a.send(b"x")
    a.put(MCR, 2)
    assert not b.get(LSR) & 1 and not b.modem() and not b.preempted
    assert scheduler.asked > asked
    scheduler.depth[0] = 0
    scheduler.settle()
    assert b.receive() == b"x"
    assert b.modem() == MSR_CTS
    assert b.preempted


def test_two_uarts_of_one_guest_may_be_linked():
    links = Links(Scheduler())
    a = Guest("a")
    links.add("a", [{"uart": "com2", "to": "a:com3"}])
    links.wire({"a": a})
    a.open(n=2)
    a.send(b"self")
    assert a.receive(2) == b"self"


@pytest.mark.parametrize(
    "name, wanted, word",
    [
        ("c", [{"uart": "com2", "to": "b:com2"}], "has a link already"),
        ("c", [{"uart": "com2", "to": "d:com2"}, {"uart": "com2", "to": "d:com3"}], "has a link already"),
        ("c", [{"uart": "com2", "to": "c:com2"}], "to itself"),
        ("c", [{"uart": "com5", "to": "d:com2"}], "com5"),
        ("c", [{"uart": "com1", "to": "d"}], "such as"),
    ],
)
def test_refused(name, wanted, word):
    links, _, _, _ = pair()
    with pytest.raises(ValueError, match=word):
        links.add(name, wanted)
    assert len(links.cables) == 1


def test_a_refused_description_leaves_the_cables_as_they_were():
    """Its first entry is the other guest's cable, its second is impossible."""
    links, machines, a, b = pair()
    with pytest.raises(ValueError, match="com3 to a:com2: one of them has a link already"):
        links.add("b", [{"uart": "com2", "to": "a:com2"}, {"uart": "com3", "to": "a:com2"}])
    assert [owners for owners, _, _ in links.cables] == [["a"]]
    links.remove("a")
    assert links.cables == []
