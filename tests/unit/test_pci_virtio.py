"""virtio's structures behind a PCI function: INTx, MSI-X, the window in configuration space."""

import random

import pytest
import rings
from pci_bench import SLOT, Bench, capabilities, plain

from vmm.devices.virtio.rng import Rng
from vmm.pci.board import ECAM, MEMORY
from vmm.pci.virtio import VirtioPci


def test_virtio_shows_its_structures():
    b = Bench()
    b.virtio()
    assert b.get(SLOT, 0) == 0x10441AF4 and b.get(SLOT, 8, 1) == 1
    found = capabilities(b)
    assert set(found) == {1, 2, 3, 4, 5, -0x11}
    assert all(b.get(SLOT, found[kind] + 4, 1) == 4 for kind in (1, 2, 3, 4))
    assert b.get(SLOT, 0x20) == MEMORY
    assert b.memory.read(MEMORY + 0x12, 2) == 1  # num_queues


def start(b, vectors):
    """A driver's way to DRIVER_OK; the driver's side of the queue."""
    base = MEMORY
    memory = b.memory
    memory.write(base + 0x14, 1, 0)
    assert memory.read(base + 0x14, 1) == 0
    memory.write(base + 0x14, 1, 3)
    for page in (0, 1):
        memory.write(base, 4, page)
        memory.write(base + 8, 4, page)
        memory.write(base + 12, 4, memory.read(base + 4, 4) if page else 0)
    memory.write(base + 0x14, 1, 11)
    assert memory.read(base + 0x14, 1) == 11
    memory.write(base + 0x16, 2, 0)
    driver = rings.Driver(b.ram, b.function.device.queues[0])
    memory.write(base + 0x18, 2, 8)
    if vectors:
        memory.write(base + 0x1A, 2, 1)
        assert memory.read(base + 0x1A, 2) == 1
    for i, gpa in enumerate((driver.desc, driver.avail, driver.used)):
        memory.write(base + 0x20 + 8 * i, 4, gpa)
        memory.write(base + 0x24 + 8 * i, 4, 0)
    memory.write(base + 0x1C, 2, 1)
    assert memory.read(base + 0x1C, 2) == 1
    memory.write(base + 0x14, 1, 15)
    return driver


def ask(b, driver):
    driver.chain(0, (rings.DATA, 64, 1))
    driver.add(0)
    b.memory.write(MEMORY + 0x3000, 2, 0)
    return driver.back()


def test_virtio_with_intx():
    b = Bench()
    b.virtio()
    driver = start(b, vectors=False)
    line = b.get(SLOT, 0x3C, 1)
    assert ask(b, driver) == [(0, 64)] and b.levels[line] == 1
    assert b.memory.read(MEMORY + 0x1000, 1) == 1 and b.levels[line] == 0
    assert b.memory.read(MEMORY + 0x1000, 1) == 0
    assert b.ram.read(rings.DATA, 64) != bytes(64)


def test_virtio_with_messages():
    b = Bench()
    b.virtio()
    at = capabilities(b)[-0x11]
    driver = start(b, vectors=True)
    b.put(SLOT, at + 2, 0x8000, 2)
    table = MEMORY + 0x4000
    for word, value in enumerate((0xFEE03004, 0, 0x41, 1)):
        b.memory.write(table + 16 + 4 * word, 4, value)
    ask(b, driver)
    assert b.sent == [] and b.memory.read(table + 0x800, 4) == 2  # masked: it waits
    b.memory.write(table + 28, 4, 0)
    assert b.sent == [(0x841, 3)] and b.memory.read(table + 0x800, 4) == 0
    ask(b, driver)
    assert len(b.sent) == 2
    b.put(SLOT, at + 2, 0xC000, 2)  # all are masked
    ask(b, driver)
    assert len(b.sent) == 2
    b.put(SLOT, at + 2, 0x8000, 2)
    assert len(b.sent) == 3
    b.memory.write(table + 16, 4, 0xFED00000)  # no local APIC's address
    ask(b, driver)
    assert len(b.sent) == 3
    b.memory.write(MEMORY + 0x1A, 2, 5)
    assert b.memory.read(MEMORY + 0x1A, 2) == 0xFFFF  # no such message


def test_the_line_is_low_while_messages_are_on():
    """A driver that turns them on, with what firmware has left behind it not looked at, leaves others their line."""
    b = Bench()
    function = b.virtio()
    at = capabilities(b)[-0x11]
    driver = start(b, vectors=False)
    line = b.get(SLOT, 0x3C, 1)
    ask(b, driver)
    assert b.levels[line] == 1
    b.put(SLOT, at + 2, 0x8000, 2)
    assert b.levels[line] == 0
    function.load(function.save())
    assert b.levels[line] == 0
    b.put(SLOT, at + 2, 0, 2)
    assert b.levels[line] == 1
    function.load(function.save())
    assert b.levels[line] == 1
    assert b.memory.read(MEMORY + 0x1000, 1) == 1 and b.levels[line] == 0


def test_virtio_by_configuration_space():
    """Where a BAR cannot be reached: the window of the fifth structure."""
    b = Bench()
    b.virtio()
    at = capabilities(b)[5]
    b.put(SLOT, at + 4, 4, 1)
    b.put(SLOT, at + 8, 0x12)
    b.put(SLOT, at + 12, 2)
    assert b.get(SLOT, at + 16, 2) == 1
    b.put(SLOT, at + 8, 0x14)
    b.put(SLOT, at + 12, 1)
    b.put(SLOT, at + 16, 3, 1)
    assert b.function.device.status == 3
    b.put(SLOT, at + 12, 3)
    assert b.get(SLOT, at + 16, 1) == 3  # no access of three bytes: what was there


def test_saved_and_loaded():
    b = Bench()
    b.virtio()
    driver = start(b, vectors=False)
    ask(b, driver)
    saved = b.board.host.save()
    other = Bench()
    other.ram = b.ram
    other.function = VirtioPci(Rng(other.ram, other.refused.append), other.deliver)
    other.board.add(other.function)
    other.board.host.load(saved)
    assert other.board.host.save() == saved
    driver.queue = other.function.device.queues[0]
    line = other.get(SLOT, 0x3C, 1)
    assert other.levels[line] == 1
    other.memory.read(MEMORY + 0x1000, 1)
    assert ask(other, driver) == [(0, 64)] and other.levels[line] == 1


def test_the_state_of_another_board_is_refused():
    b = Bench()
    b.virtio()
    saved = b.board.host.save()
    other = Bench()
    other.board.host.write(0, 4, 0x80000800)
    with pytest.raises(ValueError, match="of other PCI devices"):
        other.board.host.load(saved)
    assert other.board.host.address == 0x80000800


def test_random_accesses_to_configuration_space_and_registers():
    chance = random.Random(3)
    b = Bench()
    b.virtio()
    function = plain()
    function.express()
    function.messages(4)
    function.extended(3, 1, bytes(8))
    b.board.add(function)
    for _ in range(3000):
        size = chance.choice((1, 2, 4))
        offset = chance.randrange(0, 256) & -size
        address = chance.choice((SLOT, SLOT + 8, 0, 8, 11))
        if chance.random() < 0.5:
            b.get(address, offset, size)
        else:
            b.put(address, offset, chance.getrandbits(8 * size), size)
        function.interrupt(chance.randrange(2))
        at = ECAM + chance.randrange(1 << 17)
        size = chance.choice((1, 2, 4, 8))
        if chance.random() < 0.5:
            assert 0 <= b.memory.read(at, size) < 1 << 8 * size
        else:
            b.memory.write(at, size, chance.getrandbits(8 * size))
        size = min(size, 4)
        b.put(SLOT, 0x20, MEMORY)
        b.put(SLOT, 4, 2, 2)
        at = MEMORY + (chance.choice((0, 0x1000, 0x2000, 0x3000, 0x4000, 0x4800)) + chance.randrange(64) & -size)
        if chance.random() < 0.5:
            assert 0 <= b.memory.read(at, size) < 1 << 8 * size
        else:
            b.memory.write(at, size, chance.getrandbits(8 * size))
