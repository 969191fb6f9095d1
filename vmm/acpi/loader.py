"""ACPI tables for firmware that places them itself: two files, and the commands to link them.

Pointers in the files are offsets into the file of tables, to which firmware adds its address; checksums are computed
last. Source: QEMU, hw/acpi/bios-linker-loader.c; SeaBIOS, src/fw/romfile_loader.c.
"""

import struct

from micropython import const

from vmm.acpi import tables

RSDP_FILE = "etc/acpi/rsdp"
TABLES_FILE = "etc/acpi/tables"
LOADER_FILE = "etc/table-loader"

_ALLOCATE = const(1)
_ADD_POINTER = const(2)
_ADD_CHECKSUM = const(3)
_HIGH = const(1)
_F_SEGMENT = const(2)
_ENTRY = const(128)

_CHECKSUM = const(9)  # of a table's header
_FADT_POINTERS = ((36, 4), (40, 4), (140, 8))  # FIRMWARE_CTRL, DSDT, X_DSDT
_RSDP_POINTERS = ((16, 4), (24, 8))
_RSDP_SUMS = ((8, 20), (32, 36))


def _entry(command, body):
    return struct.pack("<I", command) + body + bytes(_ENTRY - 4 - len(body))


def _pointer(file, offset, size):
    return _entry(_ADD_POINTER, struct.pack("<56s56sIB", file.encode(), TABLES_FILE.encode(), offset, size))


def _sum(file, offset, start, length):
    return _entry(_ADD_CHECKSUM, struct.pack("<56sIII", file.encode(), offset, start, length))


def files(aml, **machine):
    """{name: bytes} of the files for fw_cfg. aml, machine: as for tables.lay_out()."""
    placed = tables.lay_out(0, aml, **machine)
    size = placed[-1][0] + len(placed[-1][1])
    image = bytearray(size)
    for at, table in placed:
        image[at : at + len(table)] = table
    rsdt, xsdt = placed[-2][0], placed[-1][0]
    script = [
        _entry(_ALLOCATE, struct.pack("<56sIB", RSDP_FILE.encode(), 16, _F_SEGMENT)),
        _entry(_ALLOCATE, struct.pack("<56sIB", TABLES_FILE.encode(), 64, _HIGH)),
    ]
    for at, table in placed:
        signature = bytes(table[:4])
        pointers = ()
        if signature == b"FACP":
            pointers = _FADT_POINTERS
        elif signature == b"RSDT":
            pointers = [(offset, 4) for offset in range(36, len(table), 4)]
        elif signature == b"XSDT":
            pointers = [(offset, 8) for offset in range(36, len(table), 8)]
        for offset, width in pointers:
            script.append(_pointer(TABLES_FILE, at + offset, width))
        if pointers:
            image[at + _CHECKSUM] = 0
            script.append(_sum(TABLES_FILE, at + _CHECKSUM, at, len(table)))
    rsdp = tables.rsdp(rsdt, xsdt)
    for offset, width in _RSDP_POINTERS:
        script.append(_pointer(RSDP_FILE, offset, width))
    for offset, length in _RSDP_SUMS:
        rsdp[offset] = 0
        script.append(_sum(RSDP_FILE, offset, 0, length))
    return {RSDP_FILE: bytes(rsdp), TABLES_FILE: bytes(image), LOADER_FILE: b"".join(script)}
