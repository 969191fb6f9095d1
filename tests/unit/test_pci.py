"""PCI: configuration mechanism 1, ECAM, BARs, INTx, MSI."""

import pytest
from pci_bench import SLOT, Bench, Registers, plain

from vmm.pci.board import ECAM


def test_the_bus_is_scanned():
    b = Bench()
    found = {at: b.get(at, 0) for at in range(256) if b.get(at, 0) != 0xFFFFFFFF}
    assert found == {0x00: 0x12378086, 0x08: 0x70008086, 0x0B: 0x71138086}
    assert b.get(0x08, 0x0E, 1) == 0x80  # more functions
    b.ports.write(0xCF8, 4, 0x80010000)  # bus 1
    assert b.ports.read(0xCFC, 4) == 0xFFFFFFFF
    b.ports.write(0xCF8, 4, 0)  # not enabled
    assert b.ports.read(0xCFC, 4) == 0xFFFFFFFF
    b.ports.write(0xCF8, 4, 0xFFFFFFFF)
    assert b.ports.read(0xCF8, 4) == 0x80FFFFFC
    b.ports.write(0xCF8, 1, 0x12)
    assert b.ports.read(0xCF8, 4) == 0x80FFFFFC  # only a dword is the register


def test_bars_tell_their_size_and_move():
    b = Bench()
    io, memory = Registers(), Registers()
    b.board.add(plain(("io", 32, io), ("memory", 0x2000, memory)))
    for n, size, kind in ((0, 0xFFFFFFE1, 1), (1, 0xFFFFE000, 0)):
        b.put(SLOT, 0x10 + 4 * n, 0xFFFFFFFF)
        assert b.get(SLOT, 0x10 + 4 * n) == size
        b.put(SLOT, 0x10 + 4 * n, kind)
    assert b.get(SLOT, 0x18) == 0
    b.put(SLOT, 0x10, 0xC100)
    b.put(SLOT, 0x14, 0xE0004000)
    assert b.ports.read(0xC101, 1) == 0xFF and b.memory.find(0xE0004000) is None
    b.put(SLOT, 4, 3, 2)
    assert b.ports.read(0xC101, 1) == 0x41 and b.memory.read(0xE0005008, 4) == 0x1048
    b.put(SLOT, 0x14, 0xE0100000)
    b.memory.write(0xE0101004, 2, 7)
    assert b.memory.find(0xE0004000) is None and memory.seen == [(0x1004, 2, 7)]
    b.put(SLOT, 4, 1, 2)
    assert b.memory.find(0xE0100000) is None and b.ports.read(0xC101, 1) == 0x41
    b.board.reset()
    assert b.ports.read(0xC101, 1) == 0xFF and b.get(SLOT, 0x10) == 1


def test_a_bar_over_another_is_refused_and_counted():
    b = Bench()
    first, second = Registers(), Registers()
    b.board.add(plain(("memory", 0x1000, first)))
    b.board.add(plain(("memory", 0x1000, second)))
    for slot in (SLOT, SLOT + 8):
        b.put(slot, 0x10, 0xE0000000)
        b.put(slot, 4, 2, 2)
    assert b.memory.find(0xE0000000)[1] is first
    b.put(SLOT + 8, 4, 0, 2)
    b.put(SLOT + 8, 4, 2, 2)
    assert b.refused == 2 * ["BAR at an address that is taken"]
    assert b.said == [
        "a BAR of PCI device 00:03.0 is at an address that is taken: gpa 0xe0000000+0x1000 overlaps 0xe0000000"
    ]
    b.put(SLOT + 8, 0x10, 0xE0002000)
    assert b.memory.find(0xE0002000)[1] is second


def test_slots():
    b = Bench()
    b.board.add(plain(), 5)
    with pytest.raises(ValueError, match="there is a PCI device at 00:05.0 already"):
        b.board.add(plain(), 5)
    with pytest.raises(ValueError, match="numbers below 32"):
        b.board.add(plain(), 32)
    for _ in range(29):
        b.board.add(plain())
    with pytest.raises(ValueError, match="all 32 places of the PCI bus are taken"):
        b.board.add(plain())


def test_addresses_without_room():
    b = Bench()
    b.board.add(plain(("memory", 1 << 28, Registers())))
    b.board.add(plain(("memory", 1 << 28, Registers())))
    with pytest.raises(ValueError, match="no room for the BARs of PCI device 00:03.0"):
        b.board.assign()


def test_the_lines_of_intx():
    b = Bench()
    for slot in range(2, 6):
        function = plain()
        b.board.add(function, slot)
        function.interrupt(1)
        line = b.get(slot << 3, 0x3C, 1)
        assert line == (10, 10, 11, 11)[slot - 1 & 3] and b.levels[line] == 1
        assert b.get(slot << 3, 6, 2) & 8
        b.put(slot << 3, 4, 0x400, 2)  # INTx disable
        assert b.levels[line] == 0 and b.get(slot << 3, 6, 2) & 8
        b.put(slot << 3, 4, 0, 2)
        assert b.levels[line] == 1
        function.interrupt(0)
        assert b.levels[line] == 0


def test_configuration_space_in_memory():
    b = Bench()
    b.board.add(plain(("memory", 0x1000, Registers())))
    space = ECAM + (SLOT << 12)
    assert b.memory.read(ECAM, 4) == 0x12378086 and b.memory.read(space, 4) == 0x56781234
    assert b.memory.read(space + 2, 2) == 0x5678 and b.memory.read(space, 8) == 0x56781234
    assert b.memory.read(ECAM + (3 << 15), 4) == 0xFFFFFFFF  # nobody
    b.memory.write(space + 0x10, 4, 0xE0004000)
    b.memory.write(space + 4, 2, 2)
    assert b.memory.find(0xE0004000) is not None and b.get(SLOT, 0x10) == 0xE0004000
    # Only a device of PCI Express has more than 256 bytes.
    assert b.memory.read(space + 0x100, 4) == b.memory.read(space + 0xFFC, 4) == 0xFFFFFFFF
    b.memory.write(space + 0x100, 4, 0)
    # Across the end of the space of a function: the parts go where they belong.
    assert b.memory.read(space + 0xFE, 4) == 0xFFFF0000
    b.memory.write(space + 0xFF, 8, 0)


def test_a_device_of_pci_express():
    b = Bench()
    function = plain()
    function.express()
    first = function.extended(3, 1, b"PCANELPY")
    second = function.extended(0x0B, 1, bytes(8), b"\0\0\0\0\xff")
    b.board.add(function)
    space = ECAM + (SLOT << 12)
    assert (first, second) == (0x100, 0x10C)
    assert b.memory.read(space + 0x100, 4) == 0x10C10003 and b.memory.read(space + 0x10C, 4) == 0x0001000B
    assert b.memory.read(space + 0x104, 8) == int.from_bytes(b"PCANELPY", "little")
    b.memory.write(space + 0x114, 4, 0xFFFFFFFF)
    assert b.memory.read(space + 0x114, 4) == 0xFF
    assert b.memory.read(space + 0xFFC, 4) == 0
    assert b.get(SLOT, 0x34, 1) == 0x40 and b.get(SLOT, 0x40, 1) == 0x10
    assert b.get(SLOT, 0x42, 2) == 0x92  # version 2, an endpoint of the root complex
    saved = b.board.host.save()
    b.board.reset()
    assert b.memory.read(space + 0x114, 4) == 0
    b.board.host.load(saved)
    assert b.memory.read(space + 0x114, 4) == 0xFF
    with pytest.raises(ValueError, match="no room for an extended capability of 4000 bytes"):
        function.extended(1, 1, bytes(4000))


def with_messages(count):
    b = Bench()
    function = plain()
    function.messages(count)
    b.board.add(function)
    return b, function, b.get(SLOT, 0x34, 1)


def test_messages_without_a_table():
    b, function, at = with_messages(4)
    line = b.get(SLOT, 0x3C, 1)
    assert b.get(SLOT, at, 1) == 5 and b.get(SLOT, at + 2, 2) == 0x0184  # 64 bits, masks, four messages
    function.interrupt(1)
    assert b.levels[line] == 1 and not b.sent  # the guest has not enabled them
    b.put(SLOT, at + 4, 0xFEE03004)
    b.put(SLOT, at + 12, 0x4041, 2)
    b.put(SLOT, at + 2, 0x0001, 2)
    assert b.levels[line] == 0 and not b.sent
    function.interrupt(1)  # it is up already
    function.interrupt(0)
    function.interrupt(1)
    assert b.sent == [(0x4841, 3)] and b.levels[line] == 0
    function.msi.send(3)  # one message is allotted
    assert b.sent.pop() == (0x4841, 3)
    b.put(SLOT, at + 2, 0x0021, 2)
    function.msi.send(3)
    assert b.sent.pop() == (0x4843, 3)
    b.put(SLOT, at + 16, 0xFFFFFFFF)
    assert b.get(SLOT, at + 16) == 0xF
    function.msi.send(2)
    function.msi.send(2)
    assert b.sent == [(0x4841, 3)] and b.get(SLOT, at + 20) == 4
    saved = b.board.host.save()
    b.put(SLOT, at + 16, 0xB)
    assert b.sent.pop() == (0x4842, 3) and b.get(SLOT, at + 20) == 0
    b.board.host.load(saved)
    assert b.get(SLOT, at + 20) == 4
    b.put(SLOT, at + 16, 0)
    assert b.sent.pop() == (0x4842, 3)
    b.put(SLOT, at + 4, 0xFED00000)  # no local APIC's address
    function.msi.send(0)
    assert b.sent == [(0x4841, 3)]
    b.put(SLOT, at + 2, 0, 2)
    assert b.levels[line] == 1


@pytest.mark.parametrize("count", (0, 3, 64))
def test_numbers_of_messages_that_there_are_not(count):
    with pytest.raises(ValueError, match="MSI with %d messages" % count):
        plain().messages(count)


def test_bars_that_have_changed_places_are_loaded():
    b = Bench()
    for n in (2, 3):
        b.board.host.add(plain(("memory", 0x1000, Registers())), n)
    one, other = b.board.host.functions[2 << 3], b.board.host.functions[3 << 3]

    def place(first, second):
        for function, at in ((one, first), (other, second)):
            b.put(function.address, 4, 0, 2)
            b.put(function.address, 0x10, at)
        for function in (one, other):
            b.put(function.address, 4, 2, 2)

    place(0xE0000000, 0xE0001000)
    saved = b.board.host.save()
    place(0xE0001000, 0xE0000000)
    b.board.host.load(saved)
    assert (one.bars[0].at, other.bars[0].at) == (0xE0000000, 0xE0001000) and b.refused == []
    assert b.memory.find(0xE0000000)[1] is one.bars[0].pieces[0][2]
