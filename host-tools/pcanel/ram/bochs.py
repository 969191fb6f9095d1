"""Finds the machine's memory in a Bochs process, 2.7 or 3.0, which says nothing of it and has no symbols.

Its object for memory is a variable of the program: len and allocated (both the size of the memory, 64 bits), in 3.0
the size of a block, then actual_vector, vector (the next page boundary), blocks, rom (behind the memory in the vector).
The array `blocks` has a pointer for each block (Bochs, memory/memory-bochs.h, memory/misc_mem.cc).
"""

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from pcanel.errors import EngineError
from pcanel.ram.map import Blocks
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx.x86 import PAGE

_BLOCK = 128 << 10  # of 2.7, which has no variable for it
_LARGEST = 256 << 20  # bytes of a mapping that may have the variable: the program's own are smaller
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.. \S+ \S+ \S+\s*(.*)")


def find(pid: int, descriptor: int, size: int) -> Blocks:
    """The map of a machine of `size` bytes. descriptor: of /proc/PID/mem. EngineError where it is not there."""
    needle = struct.pack("<QQ", size, size)
    for start, end in _mappings(pid):
        data = os.pread(descriptor, end - start, start)
        at = data.find(needle)
        while at >= 0:
            found = _check(data[at + len(needle) : at + len(needle) + 48], size)
            if found and at & 7 == 0:
                return found
            at = data.find(needle, at + 8)
    raise EngineError("the machine's memory is not where Bochs 2.7 and 3.0 have it")


def _mappings(pid: int) -> Iterator[tuple[int, int]]:
    """Writable ones, the program's own first."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    matches = [match for match in map(_MAPPING.match, lines) if match]
    program = os.path.realpath(f"/proc/{pid}/exe")
    for match in sorted(matches, key=lambda match: match[3] != program):
        start, end = int(match[1], 16), int(match[2], 16)
        if end - start <= _LARGEST and not match[3].startswith("[v"):
            yield start, end


def _check(words: bytes, size: int) -> Blocks | None:
    """The map, where these words behind the two sizes are those of Bochs's object. 3.0 has a block's size first."""
    if len(words) < 48:
        return None
    block = struct.unpack_from("<I", words)[0]
    is_power = block >= PAGE and block & (block - 1) == 0
    for at, length in ((8, block if is_power else 0), (0, _BLOCK)):
        actual, vector, blocks, rom = struct.unpack_from("<4Q", words, at)
        if length and vector and vector == (actual + PAGE - 1) & ~(PAGE - 1) and rom == vector + size and blocks:
            return Blocks(size, length, blocks)
    return None
