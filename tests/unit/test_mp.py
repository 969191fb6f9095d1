"""vmm/acpi/mp.py: the MP table as a system finds it by scanning, and that it agrees with the MADT."""

import struct

import pytest
from support import Memory

from vmm.acpi import mp, tables

SIZES = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}


def find(memory):
    """The configuration table, by the pointer on a 16-byte boundary in F0000h-FFFFFh."""
    found = [at for at in range(0xF0000, 0x100000, 16) if memory.read(at, 4) == b"_MP_"]
    assert len(found) == 1
    pointer = memory.read(found[0], 16)
    gpa, length, revision, _, kind, features = struct.unpack_from("<IBBBBB", pointer, 4)
    assert (length, revision, kind, features) == (1, 4, 0, 0) and sum(pointer) & 0xFF == 0
    table = memory.read(gpa, memory.read_u16(gpa + 4))
    assert table[:4] == b"PCMP" and table[6] == 4 and sum(table) & 0xFF == 0
    return table


def entries(table):
    at, result = 44, []
    while at < len(table):
        result.append(table[at : at + SIZES[table[at]]])
        at += SIZES[table[at]]
    assert at == len(table) and struct.unpack_from("<H", table, 34)[0] == len(result)
    assert [entry[0] for entry in result] == sorted(entry[0] for entry in result)
    return result


@pytest.mark.parametrize("cpus", (1, 2, 16))
def test_it_says_the_same_as_the_madt(cpus):
    memory = Memory(1 << 20)
    end = mp.install(memory, cpus, 0x50654, 0x0F8BFBFF, 0xFEE00000, 0xFEC00000, 9)
    assert end <= 0xF1000  # what the loaders leave alone
    table = find(memory)
    assert struct.unpack_from("<I", table, 36)[0] == 0xFEE00000
    got = entries(table)
    madt = bytes(tables.madt(cpus))
    processors, io_apics, overrides = [], [], {}
    at = 44
    while at < len(madt):
        kind, size = madt[at], madt[at + 1]
        if kind == 0:
            processors.append(madt[at + 3])
        elif kind == 1:
            io_apics.append((madt[at + 2], *struct.unpack_from("<I", madt, at + 4)))
        elif kind == 2:
            source, gsi, flags = struct.unpack_from("<BIH", madt, at + 3)
            overrides[source] = gsi, flags
        at += size
    want = [struct.pack("<BBBBIIQ", 0, n, 0x14, 1 | (n == 0) << 1, 0x50654, 0x0F8BFBFF, 0) for n in processors]
    assert [entry for entry in got if entry[0] == 0] == want
    assert [entry[1:] for entry in got if entry[0] == 1] == [b"\0ISA   "]
    assert [(entry[1], *struct.unpack_from("<I", entry, 4)) for entry in got if entry[0] == 2] == io_apics
    lines = {}
    for entry in got:
        if entry[0] == 3 and entry[1] == 0:
            flags, bus, line, apic, pin = struct.unpack_from("<HBBBB", entry, 2)
            assert (bus, apic) == (0, cpus)
            lines[line] = pin, flags
    assert lines == {line: overrides.get(line, (line, 0)) for line in range(16) if line != 2}
    local = [entry[1:] for entry in got if entry[0] == 4]
    assert local == [b"\x03\0\0\0\0\xff\0", b"\x01\0\0\0\0\xff\x01"]  # ExtINT on LINT0, NMI on LINT1 of all
