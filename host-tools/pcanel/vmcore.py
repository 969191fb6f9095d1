"""A guest as a core file: ELF64 with its memory, its vCPUs' registers and Linux's VMCOREINFO.

drgn, drgn-crash, readelf and, with the kernel's debug package, crash open it. Pages of zeros are holes in the file.
Format: System V ABI, "Program Header" and "Note Section"; struct elf_prstatus of Linux (include/linux/elfcore.h).
"""

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from pcanel.errors import InputError, PcanelError
from pcanel.ram.guest import Facts, GuestMemory
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx.x86 import PAGE

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_NHDR = struct.Struct("<III")
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
_ET_CORE, _EM_X86_64 = 4, 62
_PT_LOAD, _PT_NOTE = 1, 4
_RWX = 7
_NT_PRSTATUS = 1
_PRSTATUS = 336  # bytes
_PID, _REGISTERS = 32, 112  # offsets in it
_PIECE = 1 << 20


def header(facts: Facts, with_memory: bool = True) -> tuple[bytes, list[tuple[int, int, int]]]:
    """The file up to its memory, in whole pages, and where that goes: (offset in the file, gpa, size).

    with_memory: else it has none.
    """
    segments = facts.segments if with_memory else []
    notes = b"".join(_status(number, vcpu["registers"]) for number, vcpu in enumerate(facts.vcpus))
    if facts.vmcoreinfo:
        notes += _note(b"VMCOREINFO", 0, facts.vmcoreinfo.encode())
    count = 1 + len(segments)
    start = _EHDR.size + count * _PHDR.size
    end = -(-(start + len(notes)) // PAGE) * PAGE
    words = [_EHDR.pack(_IDENT, _ET_CORE, _EM_X86_64, 1, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, count, 0, 0, 0)]
    words.append(_PHDR.pack(_PT_NOTE, 0, start, 0, 0, len(notes), len(notes), 4))
    pieces, at = [], end
    for gpa, size, _ in segments:
        gva = (facts.page_offset + gpa) & (1 << 64) - 1
        words.append(_PHDR.pack(_PT_LOAD, _RWX, at, gva, gpa, size, size, PAGE))
        pieces.append((at, gpa, size))
        at += size
    data = b"".join(words) + notes
    return data + bytes(end - len(data)), pieces


def _status(number: int, registers: list[int]) -> bytes:
    """NT_PRSTATUS of a vCPU: readers know it by its number + 1 in the place of a process's PID."""
    status = bytearray(_PRSTATUS)
    struct.pack_into("<I", status, _PID, number + 1)
    struct.pack_into("<27Q", status, _REGISTERS, *registers)
    return _note(b"CORE", _NT_PRSTATUS, bytes(status))


def _note(name: bytes, kind: int, data: bytes) -> bytes:
    name += b"\0"
    return _NHDR.pack(len(name), len(data), kind) + _padded(name) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def write(path: Path, facts: Facts, memory: GuestMemory, progress: Callable[[int, int], None]) -> int:
    """Writes the core file and returns how many bytes of it are no holes.

    progress(done, all): bytes, as it goes. The file appears when it is whole; InputError, PcanelError and OSError
    leave none.
    """
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path}: is no file")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            written = _write(file, facts, memory, progress)
        part.replace(path)
    except OSError as error:
        raise PcanelError(f"{path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return written


def summary(path: Path, facts: Facts, written: int, seconds: float) -> str:
    """One line about a core file that was written."""
    release = facts.vmcoreinfo.partition("OSRELEASE=")[2].split("\n", 1)[0]
    kind = f"Linux {release}" if facts.vmcoreinfo else f"no VMCOREINFO ({facts.why})"
    return f"{path}: {facts.size >> 20} MiB, {written >> 20} MiB of it not zero, {seconds:.1f} s; {kind}"


def _write(file, facts: Facts, memory: GuestMemory, progress: Callable[[int, int], None]) -> int:
    head, pieces = header(facts)
    file.write(head)
    written, done = len(head), 0
    for start, gpa, size in pieces:
        for at in range(0, size, _PIECE):
            data = memory.read(gpa + at, min(_PIECE, size - at))
            written += _write_pages(file, start + at, data)
            done += len(data)
            progress(done, facts.size)
    file.truncate(pieces[-1][0] + pieces[-1][2] if pieces else len(head))
    file.flush()
    os.fsync(file.fileno())  # a full disk may say so only now
    return written


def _write_pages(file, start: int, data: bytes) -> int:
    """Writes the runs of pages that are not all zeros."""
    written = at = 0
    while at < len(data):
        end = at
        while end < len(data) and data.count(0, end, end + PAGE) != min(PAGE, len(data) - end):
            end += PAGE
        if end > at:
            file.seek(start + at)
            written += file.write(data[at:end])
        at = end + PAGE
    return written
