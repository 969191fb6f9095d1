"""The guest-physical memory map of a PC: the blocks of RAM, and the map that E820h returns.

RAM starts at 0 and has one hole, 0xC0000000-0xFFFFFFFF, for memory-mapped
devices; the rest continues at 4 GiB. The ranges follow the
Address Range Descriptor of ACPI, "System Address Map Interfaces".
"""

from micropython import const

from vmm.vtx.x86 import PAGE

RAM = const(1)
RESERVED = const(2)

EBDA = const(0x9FC00)  # 1 KiB below 640 KiB
VGA = const(0xA0000)
OPTION_ROMS = const(0xC0000)
BIOS = const(0xE0000)  # 128 KiB: ACPI and MP tables
TABLES_END = const(0xF1000)
ONE_MIB = const(0x100000)
MMIO_HOLE = const(0xC0000000)
FOUR_GIB = const(0x100000000)


def ram(size):
    """Guest-physical blocks [(gpa, bytes), ...] that back `size` bytes of RAM."""
    if size <= MMIO_HOLE:
        return [(0, size)]
    return [(0, MMIO_HOLE), (FOUR_GIB, size - MMIO_HOLE)]


def e820(size):
    """The map [(gpa, bytes, type), ...] of a guest with `size` bytes of RAM, ascending.

    The size is rounded down to a multiple of 4 KiB. ValueError below 4 KiB.
    """
    size &= ~(PAGE - 1)
    if size < PAGE:
        raise ValueError("guest memory below 4 KiB")
    if size <= EBDA:
        return [(0, size, RAM)]
    table = [(0, EBDA, RAM), (EBDA, VGA - EBDA, RESERVED)]
    if size > BIOS:
        table.append((BIOS, min(size, ONE_MIB) - BIOS, RESERVED))
    for base, length in ram(size):
        if base + length > ONE_MIB:
            start = max(base, ONE_MIB)
            table.append((start, base + length - start, RAM))
    return table
