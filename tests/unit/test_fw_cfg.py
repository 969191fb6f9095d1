"""fw_cfg: the selector, the data port, the directory, DMA and what it refuses; the debug console."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Memory

from vmm.bus import PortBus
from vmm.devices.debug_console import DebugConsole
from vmm.devices.fw_cfg import PORTS, FwCfg

SELECTOR, DATA, DMA = 0x510, 0x511, 0x514
ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
AT, TO = 0x2000, 0x8000


class Bench:
    def __init__(self):
        self.ram = Memory(1 << 16)
        self.refused = []
        self.chip = FwCfg(self.ram, self.refused.append)
        self.ports = PortBus()
        for port, count, offset, widest in PORTS:
            self.ports.claim(port, count, self.chip, offset, widest)
        self.chip.put(5, struct.pack("<H", 3))
        self.chip.put_file("etc/one", b"0123456789")
        self.chip.put_file("two", b"x")

    def item(self, key, size):
        self.ports.write(SELECTOR, 2, key)
        return bytes(self.ports.read(DATA, 1) for _ in range(size))

    def dma(self, control, length, gpa=TO, at=AT, high=0):
        self.ram.write(at, struct.pack(">IIQ", control, length, gpa))
        self.ports.write(DMA, 4, int.from_bytes(struct.pack(">I", high), "little"))
        self.ports.write(DMA + 4, 4, int.from_bytes(struct.pack(">I", at), "little"))
        return struct.unpack(">I", self.ram.read(at, 4))[0]


@pytest.fixture
def bench():
    return Bench()


def test_items_and_what_is_behind_them(bench):
    assert bench.item(0, 6) == b"QEMU\0\0"
    assert bench.item(1, 4) == b"\3\0\0\0"
    assert bench.item(5, 3) == b"\3\0\0"
    assert bench.item(0x4444, 4) == bytes(4)
    assert bench.item(5, 1) + bytes([bench.ports.read(DATA, 1)]) == b"\3\0"


def test_the_directory(bench):
    entries = bench.item(0x19, 4 + 2 * 64)
    assert entries[:4] == b"\0\0\0\2"
    found = {}
    for at in (4, 68):
        size, key, _, name = struct.unpack(">IHH56s", entries[at : at + 64])
        found[name.rstrip(b"\0").decode()] = bench.item(key, size)
    assert found == {"etc/one": b"0123456789", "two": b"x"} == dict(bench.chip.files())
    with pytest.raises(ValueError, match="no room"):
        bench.chip.put_file("n" * 56, b"")


def test_dma_reads_skips_and_pads(bench):
    assert bench.ports.read(DMA, 4) == int.from_bytes(b"QEMU", "little")
    assert bench.ports.read(DMA + 4, 4) == int.from_bytes(b" CFG", "little")
    bench.ram.write(TO, b"\xff" * 16)
    assert bench.dma(0x20 << 16 | SELECT | READ, 4) == 0
    assert bench.ram.read(TO, 5) == b"0123\xff"
    assert bench.dma(SKIP, 3) == 0 and bench.dma(READ, 8) == 0
    assert bench.ram.read(TO, 9) == b"789" + bytes(5) + b"\xff"
    assert bench.dma(SKIP, 0xFFFFFFFF) == 0 and bench.dma(READ, 2) == 0
    assert bench.ram.read(TO, 2) == bytes(2)


def test_dma_refuses_what_is_no_ram_and_writes(bench):
    select = 0x20 << 16 | SELECT
    assert bench.dma(select | WRITE, 4) == ERROR
    assert bench.dma(select | READ, 4, gpa=0xFFFE) == ERROR
    assert bench.dma(select | READ, 0xFFFFFFFF) == ERROR
    assert bench.dma(select | READ, 4, gpa=1 << 63) == ERROR
    before = bytes(bench.ram.data)
    assert bench.dma(select | READ, 4, high=1) == select | READ  # nobody has looked at it
    assert bench.refused == ["fw_cfg transfer outside RAM"] * 3 + ["fw_cfg structure outside RAM"]
    assert bytes(bench.ram.data[TO:]) == before[TO:]
    assert bench.item(0x20, 3) == b"012"


@given(st.lists(st.tuples(st.integers(0, 11), st.sampled_from((1, 2, 4)), st.integers(0, 0xFFFFFFFF)), max_size=30))
def test_random_accesses_change_nothing_but_ram(accesses):
    bench = Bench()
    for offset, size, value in accesses:
        bench.chip.write(offset, size, value & (1 << 8 * size) - 1)
        assert 0 <= bench.chip.read(offset, size) < 1 << 8 * size
    assert len(bench.ram.data) == 1 << 16
    assert bench.item(0x20, 10) == b"0123456789"


def test_state_is_data(bench):
    bench.item(0x20, 3)
    saved = bench.chip.save()
    bench.item(0, 1)
    bench.chip.load(saved)
    assert bytes(bench.ports.read(DATA, 1) for _ in range(3)) == b"345"


def test_the_debug_console_keeps_the_last_lines():
    console = DebugConsole()
    assert console.read(0, 1) == 0xE9
    for n in range(1000):
        for c in b"line %d\r\n\x01" % n:
            console.write(0, 1, c)
    assert len(console.lines) == 160 and console.lines[-1] == ".line 999" and console.text.endswith("\n.")
    for _ in range(1000):
        console.write(0, 1, 65)
    assert max(map(len, console.lines)) == 160
