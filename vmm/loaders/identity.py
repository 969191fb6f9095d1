"""Page tables for a guest that starts in 64-bit mode: 0-4 GiB to itself, 2 MiB pages."""

import struct

from micropython import const

from vmm.vtx.x86 import PAGE

TABLES = const(0x9000)  # where loaders put them
TABLES_SIZE = const(0x6000)  # PML4, page-directory-pointer table, four page directories
_P_RW = const(0x03)
_P_RW_PS = const(0x83)


def identity_map(memory, gpa):
    """Writes TABLES_SIZE bytes of tables at `gpa`, which is then the value for CR3."""
    table = bytearray(PAGE)
    struct.pack_into("<Q", table, 0, gpa + PAGE | _P_RW)
    memory.write(gpa, table)
    for index in range(4):
        struct.pack_into("<Q", table, 8 * index, gpa + (2 + index) * PAGE | _P_RW)
    memory.write(gpa + PAGE, table)
    for index in range(4):
        for entry in range(512):
            struct.pack_into("<Q", table, 8 * entry, index << 30 | entry << 21 | _P_RW_PS)
        memory.write(gpa + (2 + index) * PAGE, table)
