"""The console by virtio: output with and without room, input into buffers of every cut, rings of nonsense."""

import random as chance
from array import array

import pytest
import rings
from rings import DATA, Driver

from vmm.console import RING
from vmm.console import Console as Line
from vmm.devices.virtio.console import Console
from vmm.devices.virtio.device import DRIVER_OK, FEATURES_OK, INDIRECT_DESC, NEEDS_RESET, VERSION_1

RX, TX = 0, 1


class Host:
    """What a line leads to: takes `room` characters."""

    def __init__(self, typed=b"", room=1 << 20):
        self.typed, self.room, self.heard = bytearray(typed), room, bytearray()

    def any(self):
        return len(self.typed)

    def readchar(self):
        return self.typed.pop(0) if self.typed else -1

    def writechar(self, byte):
        if len(self.heard) == self.room:
            return False
        self.heard.append(byte)
        return True


class Bench:
    def __init__(self, host=None):
        self.memory = rings.memory()
        self.refused, self.signals = [], []
        self.line = Line(host, lambda: None, bytearray(RING))
        self.device = self.line.uart = Console(self.memory, self.refused.append, self.line.tx)
        self.device.signal = self.signals.append
        self.device.changed = lambda: None
        self.start()

    def start(self):
        device = self.device
        device.write_status(0)
        device.write_status(3)
        device.accept(0, INDIRECT_DESC | device.own_features)
        device.accept(1, VERSION_1 >> 32)
        device.write_status(FEATURES_OK | 3)
        self.drivers = [Driver(self.memory, queue, at=0x4000 * n) for n, queue in enumerate(device.queues)]
        for n in (RX, TX):
            device.enable(n)
        device.write_status(DRIVER_OK)

    def print(self, *pieces):
        at, parts = DATA, []
        for piece in pieces:
            self.memory.write(at, piece)
            parts.append((at, len(piece), False))
            at += len(piece)
        self.drivers[TX].chain(0, *parts)
        self.drivers[TX].add(0)
        self.device.notify(TX)

    def room(self, *sizes, first=0):
        """Input buffers in one chain."""
        at, parts = DATA + 0x8000 + 0x100 * first, []
        for size in sizes:
            parts.append((at, size, True))
            at += size
        self.drivers[RX].chain(first, *parts)
        self.drivers[RX].add(first)
        self.device.notify(RX)
        return parts[0][0]


def test_output_is_kept_and_shown():
    bench = Bench()
    bench.print(b"hello ", b"world\n")
    assert bench.line.tail() == "hello world\n" and bench.line.written == 12
    assert bench.drivers[TX].back() == [(0, 0)] and bench.signals == [TX]


def test_output_waits_for_room():
    host = Host(room=3)
    bench = Bench(host)
    bench.print(b"12345")
    assert host.heard == b"123" and bench.device.pending() == 2 and bench.line.ready()
    bench.print(b"world")
    assert host.heard == b"123"
    host.room = 7
    bench.line.poll()
    assert host.heard == b"12345wo"
    host.room = 99
    bench.line.poll()
    assert host.heard == b"12345world" and bench.device.pending() == 0
    assert bench.drivers[TX].back() == [(0, 0), (0, 0)]


@pytest.mark.parametrize("sizes", [((16,), (16,)), ((1, 1, 1), (2, 60)), ((4,), (1,), (1,), (40,))])
def test_what_is_typed_fills_buffers(sizes):
    host = Host(b"abcdefgh")
    bench = Bench(host)
    bench.line.poll()
    assert host.typed == b"abcdefgh", "without buffers nothing is taken"
    step = 8 // len(sizes)
    places = [bench.room(*chain, first=step * n) for n, chain in enumerate(sizes)]
    bench.line.poll()
    back = bench.drivers[RX].back()
    data = b"".join(bench.memory.read(places[head // step], size) for head, size in back)
    assert data == b"abcdefgh" and not host.typed and bench.signals[-1] == RX


def test_a_character_before_there_are_queues():
    bench = Bench()
    bench.device.write_status(0)
    bench.device.configure(8, b"X\0\0\0")
    assert bench.line.tail() == "X" and len(bench.device.config()) == 12


@pytest.mark.parametrize("n, writable", [(TX, True), (RX, False)])
def test_a_buffer_of_the_wrong_direction_stops_the_device(n, writable):
    bench = Bench(Host(b"x"))
    bench.drivers[n].chain(0, (DATA, 8, writable))
    bench.drivers[n].add(0)
    bench.device.notify(n)
    bench.line.poll()
    assert bench.device.status & NEEDS_RESET and "wrong kind" in bench.refused[0]
    bench.start()
    bench.print(b"again")
    assert bench.line.tail() == "again"


def test_a_buffer_that_is_too_long_is_cut_and_counted():
    bench = Bench()
    bench.print(bytes(range(65, 91)) * 200)
    assert bench.line.written == 4096 and bench.refused == ["virtio-console: more than 4096 characters at once"]


@pytest.mark.parametrize("seed", range(150))
def test_nonsense_in_the_rings(seed):
    random = chance.Random(seed)
    bench = Bench(Host(b"typed" * 100))
    for _ in range(10):
        rings.nonsense(random, bench.memory, 0)
        rings.nonsense(random, bench.memory, 0x4000)
        bench.device.notify(random.randrange(3))
        bench.line.poll()
        if bench.device.status & NEEDS_RESET:
            bench.start()
    assert bench.line.written < 10 * 64 * 4096 + 1


@pytest.mark.parametrize("room", [0, 2, 5, 9])
def test_a_loaded_console_goes_on_as_the_saved_one(room):
    host = Host(room=room)
    one = Bench(host)
    one.print(b"hello")
    one.print(b"more")
    state = one.device.save()
    other = Bench(Host())
    other.memory.write(0, one.memory.read(0, rings.SIZE))
    other.device.load(state)
    other.line.poll()
    assert bytes(host.heard) + bytes(other.line.host.heard) == b"hellomore"
    assert array("H", other.memory.read(other.drivers[TX].used + 2, 2))[0] == 2
