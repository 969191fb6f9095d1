"""ORC, the kernel's own unwind tables: how to find the caller, for each address of its text.

    orc_unwind_ip  i32 each, relative to its own address, ascending: where an entry begins to hold
    orc_unwind     6 bytes each: i16 sp_offset, i16 bp_offset, u16 flags (registers, kind of frame)

Numbers of registers and kinds differ by release; __start_orc_header, a hash of the layout, distinguishes them (6.3 on).
decode() brings them into one form. Modules have tables of their own. Source: Linux, arch/x86/include/asm/orc_types.h,
and arch/x86/kernel/unwind_orc.c.
"""

import struct

from micropython import const

from vmm.vtx.x86 import MASK64

_SIZE = const(6)  # bytes of an entry
_MOST = const(1 << 22)  # entries of a table

# Kinds of frames
UNDEFINED = const(0)  # the caller cannot be found
END = const(1)
CALL = const(2)
REGS = const(3)  # a struct pt_regs
PARTIAL = const(4)  # the part of it that an interrupt pushes

# Registers of (sp|bp)_reg by number
_REGISTERS = ("", "prev_sp", "rdx", "rdi", "bp", "sp", "r10", "r13", "bp_indirect", "sp_indirect")
_REGISTERS_7_1 = ("", "rax", "rdx", "sp", "bp", "rdi", "r10", "r13", "prev_sp", "sp_indirect", "bp_indirect")
_HEADER_6_3 = b"\xdb\x84\xae"
_HEADER_7_1 = bytes.fromhex("137c36ad")
_KINDS_OLD = (CALL, REGS, PARTIAL, UNDEFINED)  # type 0 to 3, before 6.4


def layout(header):
    """(release of the layout, names of registers). header: the bytes at __start_orc_header, None before Linux 6.3."""
    if header is None:
        return 0, _REGISTERS
    release = 1 if header[:3] == _HEADER_6_3 else 2
    return release, _REGISTERS_7_1 if header[:4] == _HEADER_7_1 else _REGISTERS


def decode(flags, release, registers):
    """(sp_reg, bp_reg, kind, exact) of an entry's flags, as Orc.find() returns them; None for invalid flags."""
    sp = flags & 15
    bp = flags >> 4 & 15
    if sp >= len(registers) or bp >= len(registers):
        return None
    if release < 2:
        kind = _KINDS_OLD[flags >> 8 & 3]
        exact = kind in (REGS, PARTIAL) if release == 0 else bool(flags >> 10 & 1)
        if flags >> (10 + release) & 1 or not sp:
            kind = END if flags >> (10 + release) & 1 else UNDEFINED
    else:
        kind = flags >> 8 & 7
        exact = bool(flags >> 11 & 1)
    return registers[sp], registers[bp], kind, exact


class Orc:
    """The tables of one kernel. ValueError: it has none (it was built with frame pointers)."""

    def __init__(self, kernel):
        self._space = kernel.space
        ips, end, entries = [
            kernel.find(name) for name in ("__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind")
        ]
        if ips is None or end is None or entries is None or not 0 < end - ips <= 4 * _MOST:
            raise ValueError("the guest's kernel has no ORC tables")
        self._table = (ips, entries, (end - ips) >> 2)
        header = kernel.find("__start_orc_header")
        self._release, self._registers = layout(None if header is None else self._space.read(header, 4))
        self._least = self._place(self._table, 0)
        self._most = max(kernel.find("_etext") or 0, kernel.find("_einittext") or 0)
        self._modules = kernel.module_orc

    def _place(self, table, number):
        gva = table[0] + 4 * number
        offset = self._space.number(gva, 4)
        return gva + (offset - (1 << 32) if offset >> 31 else offset) & MASK64

    def find(self, gva):
        """(sp_reg, sp_offset, bp_reg, bp_offset, kind, exact) for the instruction at an address, or None.

        Registers are names, "" none. exact: the caller's address is that of an instruction that was interrupted, not
        one behind a CALL. ValueError where the tables cannot be read.
        """
        table = self._table
        if not self._least <= gva < self._most:
            table = self._modules(gva)
            if table is None:
                return None
        low, high = 0, min(table[2], _MOST)
        while low < high:
            middle = (low + high) >> 1
            if self._place(table, middle) <= gva:
                low = middle + 1
            else:
                high = middle
        return self._entry(table[1] + _SIZE * (low - 1)) if low else None

    def _entry(self, gva):
        sp_offset, bp_offset, flags = struct.unpack("<hhH", self._space.read(gva, _SIZE))
        found = decode(flags, self._release, self._registers)
        if found is None:
            return None
        sp, bp, kind, exact = found
        return sp, sp_offset, bp, bp_offset, kind, exact
