"""The MP table, for systems that do not read processors and interrupt lines from ACPI.

It describes the same as the MADT. Source: MultiProcessor Specification 1.4, chapter 4, "MP Configuration Table".
"""

import struct

from micropython import const

from vmm.acpi.tables import ACTIVE_HIGH_LEVEL, checksum

POINTER = const(0xF0000)  # in the range that systems scan for it
_TABLE = const(0xF0010)
_SPECIFICATION = const(4)  # 1.4

_PROCESSOR = const(0)
_BUS = const(1)
_IO_APIC = const(2)
_IO_INTERRUPT = const(3)
_LOCAL_INTERRUPT = const(4)
_ENABLED = const(1)
_BOOT = const(2)

# Interrupt types
_INT = const(0)
_NMI = const(1)
_EXTINT = const(3)

_APIC_VERSION = const(0x14)
_IO_APIC_VERSION = const(0x20)
_ISA = const(0)  # the bus's ID
_ALL = const(0xFF)


def entries(cpus, signature, features, local_apic, io_apic, sci):
    """(bytes, count) of the base table's entries; sci: the level-triggered line of ACPI."""
    out = []
    for cpu in range(cpus):
        flags = _ENABLED | (0 if cpu else _BOOT)
        out.append(struct.pack("<BBBBIIII", _PROCESSOR, cpu, _APIC_VERSION, flags, signature, features, 0, 0))
    out.append(struct.pack("<BB6s", _BUS, _ISA, b"ISA   "))
    out.append(struct.pack("<BBBBI", _IO_APIC, cpus, _IO_APIC_VERSION, _ENABLED, io_apic))
    out.append(struct.pack("<BBHBBBB", _IO_INTERRUPT, _EXTINT, 0, _ISA, 0, cpus, 0))
    for line in range(16):
        if line != 2:  # the 8259s' cascade, whose pin is the 8254's
            flags = ACTIVE_HIGH_LEVEL if line == sci else 0
            out.append(struct.pack("<BBHBBBB", _IO_INTERRUPT, _INT, flags, _ISA, line, cpus, line or 2))
    out.append(struct.pack("<BBHBBBB", _LOCAL_INTERRUPT, _EXTINT, 0, _ISA, 0, _ALL, 0))
    out.append(struct.pack("<BBHBBBB", _LOCAL_INTERRUPT, _NMI, 0, _ISA, 0, _ALL, 1))
    return b"".join(out), len(out)


def install(memory, cpus, signature, features, local_apic, io_apic, sci):
    """Write pointer and table into `memory`. Returns the gpa behind them.

    cpus: processors, with APIC IDs from 0, the first of which boots; the I/O APIC has ID `cpus`.
    signature, features: EAX and EDX of CPUID leaf 1. local_apic, io_apic: gpas. sci: interrupt line.
    """
    body, count = entries(cpus, signature, features, local_apic, io_apic, sci)
    table = bytearray(44)
    struct.pack_into(
        "<4sHBB8s12sIHHII", table, 0, b"PCMP", 44 + len(body), _SPECIFICATION, 0, b"PCANEL  ", b"PCANELPY    ",
        0, 0, count, local_apic, 0,
    )  # fmt: skip
    table.extend(body)
    checksum(table, 7, len(table))
    memory.write(_TABLE, table)
    pointer = bytearray(16)
    struct.pack_into("<4sIBB", pointer, 0, b"_MP_", _TABLE, 1, _SPECIFICATION)
    checksum(pointer, 10, len(pointer))
    memory.write(POINTER, pointer)
    return _TABLE + len(table)
