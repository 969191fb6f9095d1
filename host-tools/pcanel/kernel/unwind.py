"""ORC, the kernel's own tables of stack frames, as DWARF's call frame information, which debuggers read.

Source: Linux, arch/x86/kernel/unwind_orc.c; DWARF Debugging Information Format 5, "Call Frame Information"; System V
ABI, "DWARF Register Number Mapping"; struct pt_regs.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from pcanel.vmm_import import importable

with importable():
    from vmm.insight.linux import orc

_ENTRY = struct.Struct("<hhH")
_ROWS = 128  # of an FDE: a debugger reads it from its start
_ADVANCE = {1: (0x02, "<B"), 2: (0x03, "<H"), 4: (0x04, "<I")}  # DW_CFA_advance_loc1, 2, 4
_OFFSET, _OFFSET_SF, _UNDEFINED, _SAME, _EXPRESSION = 0x80, 0x11, 0x07, 0x08, 0x10
_DEF_CFA, _DEF_CFA_EXPRESSION = 0x0C, 0x0F
_BREG0, _DEREF = 0x70, 0x06
_WORD = 8  # data alignment factor: -8
_NUMBERS = {"rdx": 1, "rdi": 5, "bp": 6, "sp": 7, "r10": 10, "r13": 13, "rax": 0}
_RBP, _RSP, _RA = 6, 7, 16
# struct pt_regs: DWARF's numbers by the order of the words
_PT_REGS = (15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5, None, _RA, None, None, _RSP)
_INTERRUPT = (_RA, None, None, _RSP)  # what an interrupt pushes


class Row(NamedTuple):
    """How the caller of the code from `at` on is found. Fields as those of vmm.insight.linux.orc.Orc.find()."""

    at: int
    sp: str
    sp_offset: int
    bp: str
    bp_offset: int
    kind: int
    exact: bool

    @property
    def signal(self) -> bool:
        """Whether the caller may lie on another stack, above or below: where registers were saved, and where the kernel
        has changed to the stack of its interrupts, which has the old stack pointer on top. A debugger takes any other
        such step for a corrupt stack."""
        return self.exact or self.sp == "sp_indirect"


def rows(
    base: int, places: bytes, entries: bytes, header: bytes | None, thunks: Sequence[tuple[int, int]] = ()
) -> Iterator[Row]:
    """base: the address of `places`, which are orc_unwind_ip; entries: orc_unwind; header: as orc.layout() takes it.

    thunks: [(start, end), ...], code of which ORC knows no caller: it is on top of the stack."""
    release, registers = orc.layout(header)
    decoded: dict[tuple, tuple] = {}
    offsets = struct.unpack(f"<{len(places) // 4}i", places)
    for at, offset, entry in zip(range(base, 1 << 64, 4), offsets, _ENTRY.iter_unpack(entries), strict=False):
        rest = decoded.get(entry)
        if rest is None:
            sp_offset, bp_offset, flags = entry
            sp, bp, kind, exact = orc.decode(flags, release, registers) or ("", "", orc.UNDEFINED, False)
            rest = decoded[entry] = (sp, sp_offset, bp, bp_offset, kind, exact)
        place = at + offset
        if rest[4] in (orc.END, orc.UNDEFINED) and any(start <= place < end for start, end in thunks):
            yield Row(place, "sp", 8, "", 0, orc.CALL, False)
        else:
            yield Row(place, *rest)


def debug_frame(tables: Iterable[Iterable[Row]]) -> bytes:
    """The section .debug_frame of several tables."""
    out = bytearray()
    infos = {}
    for signal in (False, True):
        infos[signal] = len(out)
        more = b"zS\0" if signal else b"z\0"  # S: a signal's frame
        _record(out, 0xFFFFFFFF, b"\x01" + more + b"\x01\x78\x10\x00" + _cfa("sp", 8) + _stored(_RA, -8))
    for table in tables:
        for piece, end in _pieces(table):
            first = piece[0]
            data = struct.pack("<QQ", first.at, end - first.at) + b"\0" + _instructions(piece)
            _record(out, infos[first.signal], data)
    return bytes(out)


def _pieces(table: Iterable[Row]) -> Iterator[tuple[list[Row], int]]:
    """(neighbours of one kind, where they end)."""
    piece: list[Row] = []
    for row in table:
        if piece:
            first = piece[0]
            if row.at <= piece[-1].at:
                continue  # of a table that is none
            if len(piece) == _ROWS or (row.kind, row.signal) != (first.kind, first.signal):
                yield piece, row.at
                piece = []
        piece.append(row)
    if piece:
        yield piece, piece[-1].at + 1


def _record(out: bytearray, identity: int, data: bytes) -> None:
    """A CIE or an FDE."""
    data = struct.pack("<I", identity) + data
    data += bytes(-(len(data) + 4) % 8)  # DW_CFA_nop
    out += struct.pack("<I", len(data)) + data


def _instructions(piece: list[Row]) -> bytes:
    kind = piece[0].kind
    out = [_beginning(kind)]
    cfa = bp = None
    at = piece[0].at
    for row in piece:
        new_cfa = _cfa(row.sp, row.sp_offset)
        new_bp = _frame_pointer(row.bp, row.bp_offset) if kind == orc.CALL else b""
        if new_cfa == cfa and new_bp == bp:
            continue
        if row.at > at:
            out.append(_advance(row.at - at))
            at = row.at
        if new_cfa != cfa:
            out.append(new_cfa)
            cfa = new_cfa
        if new_bp != bp:
            out.append(new_bp)
            bp = new_bp
    return b"".join(out)


def _beginning(kind: int) -> bytes:
    """Rules of the whole piece: registers in a pt_regs, or in what an interrupt pushes, at the CFA."""
    if kind == orc.CALL:
        return b""
    words = _PT_REGS if kind == orc.REGS else _INTERRUPT if kind == orc.PARTIAL else None
    if words is None:
        return bytes((_UNDEFINED, _RA))
    return b"".join([_stored(number, _WORD * i) for i, number in enumerate(words) if number is not None])


@cache
def _cfa(register: str, offset: int) -> bytes:
    if register not in ("sp", "bp"):
        if register.endswith("_indirect"):
            inner, outer = (offset, 0) if register.startswith("bp") else (0, offset)
            block = bytes((_BREG0 + _NUMBERS[register[:2]],)) + _signed(inner) + bytes((_DEREF,))
            block += bytes((0x23,)) + _unsigned(outer) if outer > 0 else b""  # DW_OP_plus_uconst
        else:
            block = bytes((_BREG0 + _NUMBERS.get(register, _RSP),)) + _signed(0)
        return bytes((_DEF_CFA_EXPRESSION,)) + _unsigned(len(block)) + block
    number = _NUMBERS[register]
    if offset >= 0:
        return bytes((_DEF_CFA, number)) + _unsigned(offset)
    block = bytes((_BREG0 + number,)) + _signed(offset)
    return bytes((_DEF_CFA_EXPRESSION,)) + _unsigned(len(block)) + block


@cache
def _frame_pointer(register: str, offset: int) -> bytes:
    """The caller's RBP."""
    if register == "prev_sp" and offset % _WORD == 0:
        return _stored(_RBP, offset)
    if register == "bp":
        block = bytes((_BREG0 + _RBP,)) + _signed(offset)
        return bytes((_EXPRESSION, _RBP)) + _unsigned(len(block)) + block
    return bytes((_SAME, _RBP))


def _stored(number: int, offset: int) -> bytes:
    """A register lies so many bytes from the CFA."""
    if offset < 0:
        return bytes((_OFFSET | number,)) + _unsigned(-offset // _WORD)
    return bytes((_OFFSET_SF, number)) + _signed(-offset // _WORD)


def _advance(delta: int) -> bytes:
    if delta < 0x40:
        return bytes((0x40 | delta,))
    size = 1 if delta < 1 << 8 else 2 if delta < 1 << 16 else 4
    code, form = _ADVANCE[size]
    return bytes((code,)) + struct.pack(form, delta)


def _unsigned(value: int) -> bytes:
    """ULEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> bytes:
    """SLEB128."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)
