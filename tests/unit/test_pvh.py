"""vmm/loaders/pvh.py: the note, the start information, refusals."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Memory

from vmm.loaders import LoadError, load
from vmm.memory.e820 import e820

MIB = 1 << 20
SIZE = 16 * MIB
MAP = e820(SIZE)
CODE = b"\xfa\xf4" * 8


def note(kind, data, owner=b"Xen\0"):
    return struct.pack("<III", len(owner), len(data), kind) + owner + data + bytes(-len(data) % 4)


NOTES = note(5, b"xen-3.0") + note(18, b"\xff" * 8, b"GNU\0") + note(18, struct.pack("<Q", 0x100004))


def kernel(notes=NOTES, bits=64):
    """An ELF file with one segment at 1 MiB and its notes behind."""
    at = 0x200
    if bits == 64:
        head = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
        head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        head += struct.pack("<IIQQQQQQ", 1, 5, at, 0xFFFFFFFF80100000, 0x100000, len(CODE), 0x3000, 4096)
        head += struct.pack("<IIQQQQQQ", 4, 4, at + len(CODE), 0, 0, len(notes), len(notes), 4)
    else:
        head = b"\x7fELF" + bytes((1, 1, 1)) + bytes(9)
        head += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
        head += struct.pack("<IIIIIIII", 1, at, 0x100000, 0x100000, len(CODE), 0x3000, 5, 4096)
        head += struct.pack("<IIIIIIII", 4, at + len(CODE), 0, 0, len(notes), len(notes), 4, 4)
    return head.ljust(at, b"\0") + CODE + notes


def boot(memory, blobs, **config):
    return load(memory, {"protocol": "pvh", "kernel": "k", **config}, blobs, MAP, 0xE0000)


@pytest.mark.parametrize("bits", (32, 64))
def test_start_information(memory, bits):
    state = boot(memory, {"k": kernel(bits=bits), "i": b"I" * 5000}, cmdline="a b", initrd="i")
    assert (state.mode, state.rip, state.cr0 >> 31) == ("protected", 0x100004, 0)
    assert memory.read(0x100000, len(CODE)) == CODE
    fields = struct.unpack("<IIIIQQQQII", memory.read(state.gprs["rbx"], 56))
    magic, version, _, count, modules, cmdline, rsdp, ranges, entries, _ = fields
    assert (magic, version, count, rsdp) == (0x336EC578, 1, 1, 0xE0000)
    gpa, size = struct.unpack("<QQ", memory.read(modules, 16))
    assert gpa % 4096 == 0 and memory.read(gpa, size) == b"I" * 5000
    assert memory.read(cmdline, 4) == b"a b\0"
    assert [struct.unpack("<QQI", memory.read(ranges + 24 * n, 20)) for n in range(entries)] == MAP


def test_without_modules(memory):
    state = boot(memory, {"k": kernel()})
    assert struct.unpack("<IIIIQ", memory.read(state.gprs["rbx"], 24))[3:] == (0, 0)


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        (b"", "no note XEN_ELFNOTE_PHYS32_ENTRY"),
        (note(18, b"\0\0\x10\0", b"GNU\0"), "no note"),
        (note(18, b"\0\0"), "no note"),
        (NOTES[:-4], "no note"),
        (struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 18), "no note"),
        (note(18, struct.pack("<I", 0x900000)), "lies in no segment"),
    ],
)
def test_refusals(memory, notes, words):
    with pytest.raises(LoadError, match=words):
        boot(memory, {"k": kernel(notes)})


def test_what_is_missing(memory):
    with pytest.raises(LoadError, match="for the kernel"):
        boot(memory, {})
    with pytest.raises(LoadError, match="for the initrd"):
        boot(memory, {"k": kernel()}, initrd="i")


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 0x2FF), st.integers(0, 255)), max_size=6), st.integers(0, 0x300))
def test_fuzz(edits, cut):
    blob = bytearray(kernel())
    for at, value in edits:
        if at < len(blob):
            blob[at] = value
    try:
        boot(Memory(SIZE), {"k": bytes(blob[: len(blob) - cut])})
    except LoadError as error:
        assert "\n" not in str(error)
