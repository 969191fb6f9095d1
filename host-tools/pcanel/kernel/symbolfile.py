"""A running Linux as an ELF for gdb: its own names (kallsyms, its modules' too) and, by its ORC, its stack frames.

Addresses are those of the running kernel. There are no types and no lines: those are in the kernel's debug package.
Format: System V ABI, "Sections", "Symbol Table".
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import drgn
from drgn.helpers.linux.module import for_each_module

from pcanel.kernel import unwind

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
_ET_EXEC, _EM_X86_64 = 2, 62
_PROGBITS, _SYMTAB, _STRTAB, _NOBITS = 1, 2, 3, 8
_WRITE, _ALLOC, _EXECUTE = 1, 2, 4
_ABS = 0xFFF1
_OBJECT, _FUNC = 1, 2
_KERNEL = 1 << 63  # what lies below is an offset: per-CPU variables
_GAP = 1 << 20  # bytes without a symbol between two sections
_MOST = 1 << 22  # entries of an ORC table


def write(prog: drgn.Program, path: Path) -> int:
    """Returns how many names there are. prog: of a Linux whose symbols are found by address."""
    symbols = sorted(prog.symbols(), key=lambda symbol: symbol.address)
    names = bytearray(b"\0")
    entries = [_SYM.pack(0, 0, 0, 0, 0, 0)]
    sections: list[tuple[int, int, int]] = []  # (flags, first address, end)
    for symbol in symbols:
        code = symbol.kind == drgn.SymbolKind.FUNC
        kind = _FUNC if code else _OBJECT
        if symbol.address < _KERNEL:
            place = _ABS
        else:
            if symbol.kind == drgn.SymbolKind.UNKNOWN and sections:
                code = bool(sections[-1][0] & _EXECUTE)
                kind = _FUNC if code else 0
            _extend(sections, _ALLOC | (_EXECUTE if code else _WRITE), symbol.address, symbol.size)
            place = len(sections)
        binding = 1 if symbol.binding == drgn.SymbolBinding.GLOBAL else 0
        entries.append(_SYM.pack(len(names), binding << 4 | kind, 0, place, symbol.address, symbol.size))
        names += symbol.name.encode() + b"\0"
    thunks = [(symbol.address, symbol.address + symbol.size) for symbol in symbols if "thunk" in symbol.name]
    frames = unwind.debug_frame(_tables(prog, thunks))
    _store(path, sections, b"".join(entries), bytes(names), frames)
    return len(symbols)


def _extend(sections: list[tuple[int, int, int]], flags: int, address: int, size: int) -> None:
    """The last section reaches over a symbol, or a new one begins."""
    if sections:
        before, start, end = sections[-1]
        if before == flags and address < end + _GAP:
            sections[-1] = before, start, max(end, address + max(size, 1))
            return
        sections[-1] = before, start, min(end, address)
    sections.append((flags, address, address + max(size, 1)))


def _tables(prog: drgn.Program, thunks: list[tuple[int, int]]) -> Iterator[Iterator[unwind.Row]]:
    """ORC tables: the kernel's, and each module's."""
    try:
        places, end, entries = [
            prog.symbol(name).address
            for name in ("__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind")
        ]
    except LookupError:
        return  # built with frame pointers, which gdb follows
    try:
        header = prog.read(prog.symbol("__start_orc_header").address, 4)
    except LookupError:
        header = None
    tables = [(places, entries, (end - places) // 4)]
    try:
        for module in for_each_module(prog):
            arch = module.arch
            tables.append((arch.orc_unwind_ip.value_(), arch.orc_unwind.value_(), arch.num_orcs.value_()))
    except (LookupError, AttributeError, drgn.FaultError):
        pass  # a kernel without modules, or without types
    for places, entries, count in tables:
        if 0 < count <= _MOST:
            try:
                yield unwind.rows(places, prog.read(places, 4 * count), prog.read(entries, 6 * count), header, thunks)
            except drgn.FaultError:
                continue  # a module that is being loaded


def _store(path: Path, sections: list[tuple[int, int, int]], symbols: bytes, names: bytes, frames: bytes) -> None:
    strings = bytearray(b"\0")
    headers = [_SHDR.pack(*[0] * 10)]
    data = bytearray(bytes(_EHDR.size))

    def add(name: str, kind: int, flags: int, address: int, size: int, link: int = 0, info: int = 0, each: int = 0):
        headers.append(_SHDR.pack(len(strings), kind, flags, address, len(data), size, link, info, 8, each))
        strings.extend(name.encode() + b"\0")

    for number, (flags, start, end) in enumerate(sections):
        name = ".text" if flags & _EXECUTE else ".data"
        add(f"{name}.{number}" if number else name, _NOBITS, flags, start, end - start)
    add(".debug_frame", _PROGBITS, 0, 0, len(frames))
    data += frames
    data += bytes(-len(data) % 8)
    add(".symtab", _SYMTAB, 0, 0, len(symbols), len(headers) + 1, len(symbols) // _SYM.size, _SYM.size)
    data += symbols
    add(".strtab", _STRTAB, 0, 0, len(names))
    data += names
    add(".shstrtab", _STRTAB, 0, 0, len(strings) + len(".shstrtab") + 1)
    data += strings
    data += bytes(-len(data) % 8)
    count = len(headers)
    data[: _EHDR.size] = _EHDR.pack(
        _IDENT, _ET_EXEC, _EM_X86_64, 1, 0, 0, len(data), 0, _EHDR.size, 0, 0, _SHDR.size, count, count - 1
    )
    path.write_bytes(bytes(data) + b"".join(headers))
