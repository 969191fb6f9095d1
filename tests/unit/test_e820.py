"""vmm/memory/e820.py: the map covers the RAM and nothing twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Memory

from vmm import bda
from vmm.memory.e820 import MMIO_HOLE, RAM, e820, ram


@given(st.integers(4096, 64 << 30))
def test_ranges_ascend_and_lie_in_ram(size):
    blocks = ram(size)
    assert sum(length for _, length in blocks) == size
    end = 0
    for base, length, kind in e820(size):
        assert base >= end and length > 0
        end = base + length
        if kind == RAM:
            assert any(b <= base and end <= b + n for b, n in blocks)
            assert base % 1024 == 0


def test_sizes():
    assert e820(4096) == [(0, 4096, 1)]
    assert e820(256 << 20) == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x400, 2),
        (0xE0000, 0x20000, 2),
        (0x100000, (256 << 20) - 0x100000, 1),
    ]
    assert e820(4 << 30)[-2:] == [
        (0x100000, MMIO_HOLE - 0x100000, 1),
        (1 << 32, 1 << 30, 1),
    ]
    with pytest.raises(ValueError):
        e820(100)


def test_bda():
    memory = Memory(1 << 20)
    bda.install(memory, [0x3F8, 0, 0x3E8])
    assert memory.read(0x400, 8) == b"\xf8\x03\x00\x00\xe8\x03\x00\x00"
    assert memory.read_u16(0x40E) == 0x9FC0
    assert memory.read_u16(0x413) == 639
    assert memory.read_u16(0x410) >> 9 & 7 == 2
