"""Symbols of an ELF file: addresses by name, names by address, sizes."""

import bisect
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from pcanel.errors import InputError


@dataclass(frozen=True)
class Symbol:
    name: str
    address: int
    size: int


class Symbols:
    """The functions and objects of an ELF file's symbol table."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            if table is None:
                raise InputError(f"{path}: has no symbol table")
            found = [
                Symbol(entry.name, entry["st_value"], entry["st_size"])
                for entry in table.iter_symbols()
                if entry.name and entry["st_shndx"] != "SHN_UNDEF" and entry["st_info"]["type"] != "STT_FILE"
            ]
        self._by_name = {symbol.name: symbol for symbol in found}
        self.all = sorted(found, key=lambda symbol: symbol.address)
        self._addresses = [symbol.address for symbol in self.all]

    def __getitem__(self, name: str) -> int:
        """The address of a symbol. Raises KeyError."""
        return self._by_name[name].address

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def at(self, address: int) -> str:
        """'name+0x12' for an address, or its number where nothing is known below it."""
        index = bisect.bisect_right(self._addresses, address) - 1
        if index < 0:
            return f"{address:#x}"
        symbol = self.all[index]
        offset = address - symbol.address
        return f"{symbol.name}+{offset:#x}" if offset else symbol.name


def sections(path: Path) -> list[tuple[str, int]]:
    """The sections that take memory, with their sizes in bytes, in the file's order."""
    flag_alloc = 2
    with path.open("rb") as file:
        return [
            (section.name, section["sh_size"])
            for section in ELFFile(file).iter_sections()
            if section["sh_flags"] & flag_alloc and section["sh_size"]
        ]
