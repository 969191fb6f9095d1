"""The flash of UEFI firmware: its commands, and how what they change comes to the disk of the variables."""

import ctypes
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.flash import BLOCK, Flash
from vmm.disks import SECTOR
from vmm.host import FLUSH, WRITE
from vmm.memory import ept
from vmm.variables import Variables

SIZE = 4 * BLOCK
END = 0x100000000 - 0x37C000
READ_ARRAY, READ_STATUS, CLEAR, IDENTITY, PROGRAM, ERASE, CONFIRM = 0xFF, 0x70, 0x50, 0x90, 0x10, 0x20, 0xD0


class Bench:
    def __init__(self, content=bytes(SIZE)):
        self.data = bytearray(content)
        self.direct, self.changes, self.refused = [], [], []
        self.ends = 0
        self.chip = Flash(self.data, self.direct.append, self.changed, self.ended, self.refused.append)

    def changed(self, at, size):
        self.changes.append((at, size))

    def ended(self):
        self.ends += 1


def program(chip, at, data):
    """As OVMF does it."""
    for n, value in enumerate(data, at):
        chip.write(n, 1, PROGRAM)
        chip.write(n, 1, value)
    chip.write(at + len(data) - 1, 1, READ_ARRAY)


def erase(chip, at):
    for command in (ERASE, CONFIRM, READ_ARRAY):
        chip.write(at, 1, command)


def test_it_is_found_to_be_flash():
    """How OVMF tells flash from ROM and RAM."""
    b = Bench()
    b.data[:4] = b"_FVH"
    b.chip.write(0, 1, CLEAR)
    assert b.chip.read(0, 1) == 0
    b.chip.write(0, 1, READ_STATUS)
    assert b.chip.read(0, 1) == 0
    b.chip.write(0, 1, READ_ARRAY)
    assert b.direct == [False] and b.ends == 1
    assert b.chip.read(0, 4) == int.from_bytes(b"_FVH", "little")
    assert b.direct == [False, True] and b.changes == [] and b.refused == []


@given(st.lists(st.tuples(st.booleans(), st.integers(0, SIZE - 64), st.binary(min_size=1, max_size=64)), max_size=12))
def test_contents(steps):
    b = Bench()
    model = bytearray(SIZE)
    for erases, at, data in steps:
        if erases:
            erase(b.chip, at)
            at &= ~(BLOCK - 1)
            data = b"\xff" * BLOCK
        else:
            program(b.chip, at, data)
        model[at : at + len(data)] = data
        assert {n for start, size in b.changes for n in range(start, start + size)} == set(range(at, at + len(data)))
        b.changes.clear()
    assert b.data == model and b.refused == []
    assert all(b.chip.read(at, 4) == int.from_bytes(model[at : at + 4], "little") for at in range(0, SIZE, 1020))


def test_status_and_identity():
    b = Bench()
    b.chip.write(5, 1, PROGRAM)
    b.chip.write(5, 1, 1)
    assert b.chip.read(5, 1) == 0x80 and b.chip.read(8, 4) == 0x80808080
    b.chip.write(5, 1, ERASE)
    b.chip.write(5, 1, READ_ARRAY)  # no confirmation
    assert b.chip.read(5, 1) == 0xB0
    b.chip.write(5, 1, CLEAR)
    assert b.chip.read(5, 1) == 0
    b.chip.write(0, 1, IDENTITY)
    assert (b.chip.read(0, 1), b.chip.read(1, 1)) == (0x89, 0x17)
    b.chip.write(0, 1, 0x33)
    assert b.refused == ["command to the firmware's flash"]
    assert b.direct == [False] and b.ends == 0


@given(st.lists(st.tuples(st.integers(0, SIZE - 8), st.sampled_from((1, 2, 4, 8)), st.integers(0)), max_size=40))
def test_no_command_breaks_it(writes):
    b, other = Bench(), Bench()
    for at, size, value in writes:
        b.chip.write(at, size, value & (1 << 8 * size) - 1)
    assert len(b.data) == SIZE
    other.data[:] = b.data
    other.chip.load(b.chip.save())
    for at, size, value in writes:
        assert other.chip.read(at, size) == b.chip.read(at, size)
        other.chip.write(at, size, value & 0xFF)
        b.chip.write(at, size, value & 0xFF)
    assert other.data == b.data and other.chip.save() == b.chip.save()


class Drive:
    """Keeps requests until they are carried out."""

    def __init__(self, content, works=True):
        self.content = bytearray(content)
        self.requests = []
        self.flushed = None
        self.works = works

    def submit(self, request):
        self.requests.append(request)

    def step(self):
        request = self.requests.pop(0)
        if request.kind == WRITE and self.works:
            low, high, size = request.words
            at = request.sector * SECTOR
            self.content[at : at + size] = ctypes.string_at(low | high << 32, size)
        if request.kind == FLUSH:
            self.flushed = bytes(self.content)
        request.done(self.works)

    def finish(self, vm):
        while self.requests:
            self.step()


class Bus:
    def claim(self, gpa, size, device):
        self.claimed = gpa, size, device


class Map:
    def __init__(self):
        self.rights = None

    def map(self, gpa, hpa, size, rights):
        self.rights = rights


class Guest:
    """What Variables uses of vmm.vm.VM."""

    def __init__(self):
        self.mmio_bus, self.ept, self.monitor = Bus(), Map(), self
        self.drives, self.given = self, []
        self.said, self.refused, self.buffers = [], [], {}
        self.count_refused = self.refused.append

    def take(self, size):
        buffer = ctypes.create_string_buffer(size)
        self.buffers[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def give(self, *what):
        if len(what) == 2:
            self.given.append(what)
        else:
            del self.buffers[what[0]]

    def flush(self):
        pass

    def log(self, text):
        self.said.append(text)


def variables(content, works=True, drive=True):
    guest = Guest()
    drive = Drive(content, works) if drive else None
    return guest, drive, Variables(guest, bytearray(content), END, drive)


CONTENT = random.Random(5).randbytes(SIZE)


def test_where_it_lies_and_when_the_cpu_reads_it():
    guest, _, store = variables(CONTENT)
    assert guest.mmio_bus.claimed == (END - SIZE, SIZE, store.flash)
    assert guest.ept.rights == ept.R | ept.X
    store.flash.write(0, 1, PROGRAM)
    assert guest.ept.rights == 0
    store.flash.reset()
    assert guest.ept.rights == 0
    assert store.flash.read(100, 2) == int.from_bytes(CONTENT[100:102], "little")
    assert guest.ept.rights == ept.R | ept.X


def test_changes_reach_the_disk_in_their_order():
    """Whenever the disk is looked at, it has the first so many of the guest's steps."""
    guest, drive, store = variables(CONTENT)
    chance = random.Random(1)
    model = bytearray(CONTENT)
    past = [bytes(model)]
    for _ in range(20):
        at = chance.randrange(SIZE - 8)
        data = chance.randbytes(8)
        program(store.flash, at, data)
        model[at : at + 8] = data
        past.append(bytes(model))
    seen = 0
    while drive.requests:
        assert not store.kept or drive.requests[0].kind == FLUSH
        drive.step()
        seen = past.index(bytes(drive.content), seen)
    assert seen == 20 and drive.flushed == model and store.kept
    assert len(guest.buffers) == 1  # the chip's


def test_a_flood_is_bounded_and_arrives():
    guest, drive, store = variables(CONTENT)
    for n in range(300):
        program(store.flash, n * 37, b"%d" % n)
    assert len(drive.requests) <= 32
    at, data = guest.mmio_bus.claimed[0], bytes(store._data)
    assert at == END - SIZE
    store.close()
    assert drive.flushed == data and guest.given == [(drive, guest)]
    assert store.kept and store.failures == 0


def test_a_disk_that_fails_is_told_once():
    guest, drive, store = variables(CONTENT, works=False)
    program(store.flash, 0, b"a")
    program(store.flash, BLOCK, b"b")
    drive.finish(guest)
    assert store.failures == 3 and guest.said == ["its variables could not be written to their file"]


def test_without_a_disk_it_forgets():
    _, _, store = variables(CONTENT, drive=False)
    program(store.flash, 100, b"abc")
    erase(store.flash, BLOCK)
    saved = store.save()
    assert sorted(saved["blocks"]) == [0, BLOCK]
    now = bytes(store._data)
    store.flash.reset()
    assert bytes(store._data) == now
    store.forget()
    assert bytes(store._data) == CONTENT
    store.load(saved)
    assert bytes(store._data) == now and store.save() == saved


@pytest.mark.parametrize("size", [0, 100, BLOCK + 512])
def test_contents_of_no_flash(size):
    with pytest.raises(ValueError, match=f"{size} bytes are no variable store"):
        Variables(Guest(), bytearray(size), END, None)
