"""A Linux kernel's file on the host: what the running kernel has of it unchanged, by its place in guest memory.

Kallsyms, BTF and ORC are some 9 MB, and a kernel of the same BUILD-ID has them as its file does: none of them has
addresses that KASLR changes. Where memory is read over a serial line they need not be sent.
"""

import io
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from pcanel.errors import InputError
from pcanel.guest import vmlinux
from pcanel.ram.guest import GuestMemory

_MAP = 0xFFFFFFFF80000000  # gva of what lies at phys_base
_SECTIONS = (".BTF", ".orc_unwind_ip", ".orc_unwind", ".orc_header")
_GNU, _BUILD_ID = "GNU", "NT_GNU_BUILD_ID"
_INDEX = 512  # bytes of kallsyms_token_index
_MOST = 1 << 20  # symbols
_ELF = b"\x7fELF"


class KernelImage:
    """A vmlinux, or the one inside a bzImage. build_id: in hexadecimal, "" where it has none."""

    def __init__(self, path: Path):
        """InputError: it is no kernel."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        try:
            self._data = data if data.startswith(_ELF) else vmlinux.unpack(vmlinux.payload(data))
            elf = ELFFile(io.BytesIO(self._data))
            self._loads = [
                (load["p_vaddr"], load["p_filesz"], load["p_offset"]) for load in elf.iter_segments("PT_LOAD")
            ]
            self._sections = [
                (section["sh_addr"], section["sh_size"])
                for section in map(elf.get_section_by_name, _SECTIONS)
                if section is not None and section["sh_addr"]
            ]
            self.build_id = next(
                (
                    note["n_desc"]
                    for section in elf.iter_sections("SHT_NOTE")
                    for note in section.iter_notes()
                    if note["n_name"] == _GNU and note["n_type"] == _BUILD_ID
                ),
                "",
            )
        except (ELFError, InputError) as error:
            raise InputError(f"{path}: {error}") from error

    def _at(self, gva: int, size: int) -> bytes:
        """The file's bytes at a link-time address; LookupError."""
        for start, length, offset in self._loads:
            if start <= gva and gva + size <= start + length:
                return self._data[offset + gva - start : offset + gva - start + size]
        raise LookupError(f"the kernel's file has nothing at {gva:#x}")

    def parts(self, told: "Told") -> list[tuple[int, bytes]]:
        """[(gpa, bytes), ...] of what lies in guest memory as it does here, ascending."""
        ranges = list(self._sections)
        ranges += self._kallsyms(told)
        found = []
        for gva, size in ranges:
            try:
                found.append((told.gpa(gva), self._at(gva, size)))
            except LookupError:
                continue
        return sorted(found)

    def _kallsyms(self, told: "Told") -> Iterator[tuple[int, int]]:
        """Names up to tokens, and offsets; not relative_base, which KASLR changes."""
        try:
            count = int.from_bytes(self._at(told.symbol("kallsyms_num_syms"), 4), "little")
            names, index = told.symbol("kallsyms_names"), told.symbol("kallsyms_token_index")
            offsets = told.symbol("kallsyms_offsets")
        except LookupError:
            return  # before Linux 6.0
        if 0 < count <= _MOST and names < index:
            yield names, index + _INDEX - names
            yield offsets, 4 * count


class Told:
    """The kernel's place as VMCOREINFO has it. LookupError where it does not."""

    def __init__(self, vmcoreinfo: str):
        self._text = vmcoreinfo
        self.build_id = self._find("BUILD-ID")
        self._moved = int(self._find("KERNELOFFSET"), 16)
        self._phys_base = int(self._find(r"NUMBER\(phys_base\)"))

    def _find(self, key: str) -> str:
        match = re.search(rf"^{key}=(\S+)$", self._text, re.MULTILINE)
        if not match:
            raise LookupError(f"VMCOREINFO has no {key}")
        return match[1]

    def symbol(self, name: str) -> int:
        """A symbol's address in the file."""
        return int(self._find(rf"SYMBOL\({name}\)"), 16) - self._moved

    def gpa(self, gva: int) -> int:
        """Where an address of the file lies in guest memory."""
        return gva + self._moved - _MAP + self._phys_base


class Overlaid:
    """A guest's memory of which some parts are known already."""

    def __init__(self, memory: GuestMemory, parts: list[tuple[int, bytes]]):
        """parts: (gpa, bytes), ascending."""
        self._memory = memory
        self._parts = parts
        self.segments = memory.segments

    @classmethod
    def of(cls, memory: GuestMemory, vmcoreinfo: str, files: Sequence[Path]) -> Self:
        """With what the first of the files that are of the running kernel has; nothing where none is."""
        return cls(memory, known(vmcoreinfo, files))

    def read(self, gpa: int, size: int) -> bytes:
        pieces = []
        end = gpa + size
        for start, data in self._parts:
            if start >= end:
                break
            if start + len(data) > gpa:
                if gpa < start:
                    pieces.append(self._memory.read(gpa, start - gpa))
                    gpa = start
                piece = data[gpa - start : end - start]
                pieces.append(piece)
                gpa += len(piece)
        if gpa < end:
            pieces.append(self._memory.read(gpa, end - gpa))
        return b"".join(pieces)


def known(vmcoreinfo: str, files: Sequence[Path]) -> list[tuple[int, bytes]]:
    """KernelImage.parts() of the first file that has the running kernel's BUILD-ID; [] where none has it."""
    try:
        told = Told(vmcoreinfo)
    except (LookupError, ValueError):
        return []
    for file in files:
        try:
            image = KernelImage(file)
            if image.build_id == told.build_id:
                return image.parts(told)
        except (InputError, struct.error):
            continue
    return []
