"""Core files: what is in them, holes, and files that cannot be written; memory of a process; BTF for drgn."""

import ctypes
import os
import struct

import pytest
from elftools.elf.elffile import ELFFile
from pcanel import vmcore
from pcanel.errors import InputError, PcanelError
from pcanel.kernel.image import Overlaid, known
from pcanel.ram import bochs
from pcanel.ram.guest import Cached, Facts, GuestMemory
from pcanel.ram.map import Blocks, Flat, Ram, from_data, to_data

_SEGMENTS = [(0, 0x3000, 0x10000), (1 << 32, 0x1000, 0x40000)]


class Fake:
    """Memory whose every second page is zeros."""

    def __init__(self):
        self.reads = 0

    def read(self, hpa, size):
        self.reads += 1
        return b"".join([bytes([hpa + at >> 12 & 1]) * 0x1000 for at in range(0, size, 0x1000)])[:size]


def _facts(**more):
    vcpu = {"state": "halted", "cr3": 0, "registers": list(range(27))}
    given = {"vcpus": [vcpu, vcpu], "vmcoreinfo": "OSRELEASE=6.1\n", "why": "", "page_offset": 1 << 63, **more}
    return Facts("x", "paused", 1, _SEGMENTS, **given)


def test_a_core_file_has_memory_registers_and_vmcoreinfo(tmp_path):
    path = tmp_path / "core"
    done = []
    vmcore.write(path, _facts(), GuestMemory(Fake(), _SEGMENTS), lambda *at: done.append(at))
    with path.open("rb") as file:
        elf = ELFFile(file)
        note, *loads = elf.iter_segments()
        notes = [(each["n_name"], each["n_descsz"]) for each in note.iter_notes()]
        assert notes == [("CORE", 336), ("CORE", 336), ("VMCOREINFO", 14)]
        assert [(load["p_paddr"], load["p_vaddr"]) for load in loads] == [(0, 1 << 63), (1 << 32, 1 << 63 | 1 << 32)]
        assert loads[0].data() == bytes(0x1000) + b"\1" * 0x1000 + bytes(0x1000) and loads[1].data() == bytes(0x1000)
    assert done[-1] == (0x4000, 0x4000) and os.listdir(tmp_path) == ["core"]


def test_another_system_has_no_vmcoreinfo():
    data, pieces = vmcore.header(_facts(vmcoreinfo="", page_offset=0))
    assert b"VMCOREINFO" not in data and [size for _, _, size in pieces] == [0x3000, 0x1000]


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    memory = GuestMemory(Fake(), _SEGMENTS)
    with pytest.raises(InputError, match="is no file"):
        vmcore.write(tmp_path, _facts(), memory, print)
    with pytest.raises(PcanelError, match="No such file"):
        vmcore.write(tmp_path / "no/core", _facts(), memory, print)
    with pytest.raises(ValueError, match="outside the guest's memory"):
        vmcore.write(tmp_path / "core", _facts(), GuestMemory(Fake(), [(0, 0x1000, 0)]), lambda *_: None)
    assert os.listdir(tmp_path) == []


def test_pages_are_read_once_until_the_guest_has_run():
    fake = Fake()
    memory = Cached(GuestMemory(fake, _SEGMENTS))
    assert memory.read(0xFFC, 8) == bytes(4) + b"\1" * 4 and memory.read(0x1000, 1) == b"\1" and fake.reads == 1
    memory.forget()
    memory.read(0, 1)
    assert fake.reads == 2
    assert memory.read(0, 0x3000) == bytes(0x1000) + b"\1" * 0x1000 + bytes(0x1000) and fake.reads == 3


def test_blocks_between_known_ones_are_read_together():
    fake = Fake()
    memory = Cached(GuestMemory(fake, _SEGMENTS), 256)
    memory.read(0x1200, 4)
    assert memory.read(0x10FE, 0x300) == b"\1" * 0x300 and fake.reads == 3
    with pytest.raises(ValueError, match="outside the guest's memory"):
        memory.read(0x2FFE, 4)


def test_what_is_known_is_not_read():
    fake = Fake()
    memory = Overlaid(GuestMemory(fake, _SEGMENTS), [(0x800, b"a" * 0x10), (0x1000, b"b" * 0x1000)])
    assert memory.read(0x800, 0x10) == b"a" * 0x10 and memory.read(0x1FFF, 1) == b"b" and fake.reads == 0
    assert memory.read(0x7FF, 0x12) == b"\0" + b"a" * 0x10 + b"\0" and fake.reads == 2
    assert memory.read(0xFFF, 0x1002) == b"\0" + b"b" * 0x1000 + b"\0" and fake.reads == 4
    assert memory.read(0x2000, 4) == bytes(4) and fake.reads == 5


def test_a_kernels_file_of_another_build_is_not_used(tmp_path):
    (tmp_path / "x").write_bytes(b"no kernel")
    told = "\n".join(("BUILD-ID=00", "KERNELOFFSET=0", "NUMBER(phys_base)=0", ""))
    assert known(told, [tmp_path / "x", tmp_path / "none"]) == [] == known("OSRELEASE=5.10\n", [])


def test_memory_of_a_process_by_blocks_as_bochs_has_them():
    """Our own process plays Bochs: its variable, its table of blocks, and a block that was never used."""
    block, size = 1 << 17, 1 << 19
    store = ctypes.create_string_buffer(size + (1 << 20))
    actual = ctypes.addressof(store)
    vector = (actual + 0xFFF) & ~0xFFF
    table = (ctypes.c_uint64 * 4)(vector + block, 0, vector, 0)
    ctypes.memset(vector, 0x5A, block)
    pointers = struct.pack("<4Q", actual, vector, ctypes.addressof(table), vector + size)
    for words in (struct.pack("<Q", block) + pointers, pointers):  # 3.0, 2.7
        assert bochs._check(words + bytes(16), size) == Blocks(size, block, ctypes.addressof(table))
    assert bochs._check(bytes(48), size) is None
    place = from_data(to_data(Blocks(size, block, ctypes.addressof(table))))
    with Ram.of_process(os.getpid(), place) as ram:
        assert ram.read(2 * block - 4, 8) == bytes(4) + b"\x5a" * 4
        ram.write(2 * block, b"abc")
        assert ram.read(2 * block, 4) == b"abc\x5a"
        with pytest.raises(ValueError, match="never used"):
            ram.write(block, b"x")
        with pytest.raises(ValueError, match="outside the machine's memory"):
            ram.read(size - 1, 2)


def test_memory_of_a_process_by_ranges():
    store = ctypes.create_string_buffer(b"0123456789")
    place = from_data(to_data(Flat(((0, 4, ctypes.addressof(store)), (0x100, 4, ctypes.addressof(store) + 4)))))
    with Ram.of_process(os.getpid(), place) as ram:
        assert ram.read(1, 3) == b"123" and ram.read(0x100, 4) == b"4567"
        with pytest.raises(ValueError, match="outside"):
            ram.read(2, 4)
