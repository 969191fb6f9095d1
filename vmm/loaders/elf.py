"""ELF32 and ELF64 x86 executables: header, program headers, loading of PT_LOAD.

Limits: little-endian, machines EM_386 and EM_X86_64, ET_EXEC and ET_DYN loaded at
their own addresses; no relocation, no sections. Source: System V ABI, "ELF Header".
"""

import struct

from micropython import const

from vmm.loaders.state import LoadError

MAGIC = b"\x7fELF"
EM_386 = const(3)
EM_X86_64 = const(62)
PT_LOAD = const(1)
_PT_NOTE = const(4)
_ET_EXEC = const(2)
_ET_DYN = const(3)
_MAX_SEGMENTS = const(64)

# From e_type to e_phnum.
_EHDR64 = "<HHIQQQIHHH"
_EHDR32 = "<HHIIIIIHHH"


class Segment:
    """One PT_LOAD program header."""

    def __init__(self, offset, vaddr, paddr, filesz, memsz):
        self.offset = offset
        self.vaddr = vaddr
        self.paddr = paddr
        self.filesz = filesz
        self.memsz = memsz


class Elf:
    """A checked ELF file in `blob`; `name` is for errors.

    bits      32 or 64
    entry     e_entry as it stands
    segments  PT_LOAD headers whose memory size is not zero, file ranges checked
    notes     (offset, bytes) of each PT_NOTE that lies within the file
    """

    def __init__(self, name, blob):
        self.name = name
        self.blob = blob
        if len(blob) < 52 or bytes(blob[:4]) != MAGIC:
            raise self._error("no ELF header", 0)
        if blob[4] not in (1, 2) or blob[5] != 1:
            raise self._error("neither ELF32 nor ELF64 little-endian", 4)
        self.bits = 32 * blob[4]
        if self.bits == 64 and len(blob) < 64:
            raise self._error("header cut off", 52)
        header = struct.unpack_from(_EHDR64 if self.bits == 64 else _EHDR32, blob, 16)
        kind, self.machine, _, self.entry, phoff, _, _, _, phentsize, phnum = header
        if kind not in (_ET_EXEC, _ET_DYN):
            raise self._error("type %d is no executable" % kind, 16)
        if self.machine not in (EM_386, EM_X86_64):
            raise self._error("machine %d is no x86" % self.machine, 18)
        self.notes = []
        self.segments = self._program_headers(phoff, phentsize, phnum)

    def _error(self, text, offset):
        return LoadError("%s: ELF: %s, at offset 0x%x" % (self.name, text, offset))

    def _program_headers(self, phoff, phentsize, phnum):
        least = 56 if self.bits == 64 else 32
        if phentsize < least or not 0 < phnum <= _MAX_SEGMENTS:
            raise self._error("%d program headers of size %d" % (phnum, phentsize), phoff)
        if phoff + phnum * phentsize > len(self.blob):
            raise self._error("program headers cut off", phoff)
        segments = []
        for index in range(phnum):
            at = phoff + index * phentsize
            if self.bits == 64:
                kind, _, offset, vaddr, paddr, filesz, memsz = struct.unpack_from("<IIQQQQQ", self.blob, at)
            else:
                kind, offset, vaddr, paddr, filesz, memsz = struct.unpack_from("<IIIIII", self.blob, at)
            if kind == _PT_NOTE and offset + filesz <= len(self.blob):
                self.notes.append((offset, filesz))
            if kind != PT_LOAD or memsz == 0:
                continue
            if filesz > memsz:
                raise self._error("segment %d: file size exceeds memory size" % index, at)
            if offset + filesz > len(self.blob):
                raise self._error("segment %d cut off" % index, offset)
            segments.append(Segment(offset, vaddr, paddr, filesz, memsz))
        if not segments:
            raise self._error("nothing to load", phoff)
        return segments

    def load(self, space):
        """Copies every segment to its physical address in `space` (a Space)."""
        for segment in self.segments:
            data = self.blob[segment.offset : segment.offset + segment.filesz]
            what = "segment at offset 0x%x" % segment.offset
            space.put(segment.paddr, data, segment.memsz, what)

    def end(self):
        """The first physical address behind all segments."""
        return max([s.paddr + s.memsz for s in self.segments])

    def entry_gpa(self):
        """The entry point's physical address; LoadError where no segment holds it."""
        for segment in self.segments:
            if 0 <= self.entry - segment.paddr < segment.memsz:
                return self.entry
        for segment in self.segments:
            if 0 <= self.entry - segment.vaddr < segment.memsz:
                return self.entry - segment.vaddr + segment.paddr
        raise self._error("entry 0x%x lies in no segment" % self.entry, 24)
