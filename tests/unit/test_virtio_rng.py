"""The entropy device: buffers of every cut, a queue of another size after a reset, rings of nonsense."""

import random as chance

import pytest
import rings
from rings import DATA, Driver

from vmm.devices.virtio.device import DRIVER_OK, EVENT_IDX, FEATURES_OK, INDIRECT_DESC, NEEDS_RESET, VERSION_1
from vmm.devices.virtio.rng import Rng


class Bench:
    def __init__(self):
        self.memory = rings.memory()
        self.refused, self.signals = [], []
        self.device = Rng(self.memory, self.refused.append)
        self.device.signal = self.signals.append
        self.device.changed = lambda: None
        self.start()

    def start(self, size=8, features=INDIRECT_DESC):
        self.memory.write(rings.AVAIL, bytes(0x1000))
        self.memory.write(rings.USED, bytes(0x1000))
        device = self.device
        device.write_status(0)
        device.write_status(3)
        device.accept(0, features)
        device.accept(1, VERSION_1 >> 32)
        device.write_status(FEATURES_OK | 3)
        self.driver = Driver(self.memory, device.queues[0], size)
        device.enable(0)
        device.write_status(DRIVER_OK)


@pytest.mark.parametrize("sizes", [(1,), (64,), (3, 5, 7), (255, 2), (256, 100), (1000,)])
def test_buffers_are_filled_up_to_256_bytes(sizes):
    bench = Bench()
    parts, at = [], DATA
    for size in sizes:
        parts.append((at, size, True))
        at += size + 16
    bench.driver.chain(0, *parts)
    bench.driver.add(0)
    bench.device.notify(0)
    assert bench.driver.back() == [(0, min(sum(sizes), 256))] and bench.signals == [0]
    left = 256
    for at, size, _ in parts:
        filled, left = min(size, left), left - min(size, left)
        assert bench.memory.read(at + filled, 16) == bytes(16), "nothing behind a buffer"
        assert filled < 16 or any(bench.memory.read(at, filled))


def test_what_is_to_be_read_is_not_written():
    bench = Bench()
    bench.driver.chain(0, (DATA, 64, False))
    bench.driver.add(0)
    bench.device.notify(0)
    assert bench.driver.back() == [(0, 0)] and bench.memory.read(DATA, 64) == bytes(64)


def test_a_queue_of_another_size_after_a_reset():
    bench = Bench()
    for size in (8, 2, 64, 1, 16):
        bench.start(size, INDIRECT_DESC | EVENT_IDX)
        for n in range(3 * size):
            bench.driver.chain(n % size, (DATA, 8, True))
            bench.driver.add(n % size)
            bench.device.notify(0)
            assert bench.driver.back() == [(n % size, 8)]


@pytest.mark.parametrize("seed", range(150))
def test_nonsense_in_the_rings(seed):
    random = chance.Random(seed)
    bench = Bench()
    for _ in range(10):
        rings.nonsense(random, bench.memory)
        bench.device.notify(random.randrange(2))
        if bench.device.status & NEEDS_RESET:
            bench.start()
    assert all(why.startswith("virtio: queue 0: ") for why in bench.refused)
