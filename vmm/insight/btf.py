"""BTF, the types of a Linux kernel in its own memory, read where they lie.

Nothing is copied: the positions of every 32nd type are kept, and an index of names by hash (btf_names.py). The guest's
data is hostile: every record, name and reference is checked against the section's bounds in the step that reads
it. ValueError says what is wrong. Limits: 64-bit kernels, little-endian; the section is contiguous in guest-physical
memory, as the kernel's image is. Source: the kernel's Documentation/bpf/btf.rst.
"""

import struct
from array import array

from micropython import const

from vmm.insight import btf_walk
from vmm.insight.btf_kinds import MAGIC
from vmm.insight.btf_walk import RECORD, STRIDE
from vmm.vtx.x86 import PAGE

_HEADER = const(24)
_LARGEST = const(1 << 26)  # bytes of a section
_NAME = const(256)  # bytes of a name

# Bytes after a record, by kind; then bytes for each of its vlen parts, by kind.
_SHAPE = b"\0\4\0\x0c\0\0\0\0\0\0\0\0\0\0\4\0\0\4\0\0" + b"\0\0\0\0\x0c\x0c\x08\0\0\0\0\0\0\x08\0\x0c\0\0\0\x0c"


class Btf:
    """One section. memory: vmm.memory.guest.GuestMemory; translate(gva): the gpa, or ValueError; base: the kernel's Btf
    for that of a module. first: the first type's ID."""

    def __init__(self, memory, translate, gva, size, base=None):
        if not _HEADER <= size <= _LARGEST:
            raise ValueError("BTF of %d bytes" % size)
        gpa = translate(gva)
        for page in range(PAGE - (gva & (PAGE - 1)), size, PAGE):
            if translate(gva + page) != gpa + page:
                raise ValueError("BTF at %#x is not contiguous in physical memory" % gva)
        self._memory = memory
        self._kernel = base
        self.first = base.first + base.count if base else 1
        self._since = base._since + base._string_length if base else 0  # offset of the first string
        self._gpa = gpa
        self._size = size
        magic, version, _, header, types, self._length, strings, self._string_length = struct.unpack(
            "<HBBIIIII", memory.read(gpa, _HEADER)
        )
        if magic != MAGIC or version != 1 or header < _HEADER:
            raise ValueError("no BTF at %#x: it begins with %#06x, version %d" % (gva, magic, version))
        self._types = header + types
        self._strings = header + strings
        if self._types + self._length > size or self._strings + self._string_length > size:
            raise ValueError("BTF at %#x: its parts lie outside its %d bytes" % (gva, size))
        marks = array("I", bytearray(4 * (self._length // (RECORD * STRIDE) + 1)))
        count = btf_walk.scan(self._base() + self._types, self._length, _SHAPE, marks)
        if count < 0:
            raise ValueError("BTF at %#x: the type at offset %#x is broken" % (gva, -1 - count))
        self._marks = marks[: count // STRIDE + 1]
        self._names = None
        self.count = count

    def _base(self):
        """Host-physical address. ValueError once the guest has no memory any more."""
        return self._memory.hpa(self._gpa, self._size)

    def find(self, kind, name):
        """Return the offsets of the types of a kind that have this name: at most eight."""
        from vmm.insight import btf_names

        wanted = name.encode()
        if not wanted:
            return []
        found = []
        if self._kernel or not btf_names.indexed(kind):
            self._find(found, 0, self._length, kind, wanted)
            return found
        if self._names is None:
            base = self._base()
            self._names = btf_names.Names(
                base + self._types, self._length, base + self._strings, self._string_length, _SHAPE, self._marks,
                self.count,
            )  # fmt: skip
        for mark in self._names.marks(wanted):
            if mark >= len(self._marks):
                raise ValueError("BTF has changed since it was read")
            end = self._marks[mark + 1] if mark + 1 < len(self._marks) else self._length
            self._find(found, self._marks[mark], end, kind, wanted)
        return sorted(found)

    def _find(self, found, first, end, kind, wanted):
        """Add the offsets of the types from `first` on, before `end`, that have a kind and a name."""
        base = self._base() + self._types
        for strings, length, since in self._texts():
            at = first
            while at >= 0 and len(found) < 8:
                at = btf_walk.find(
                    base, end, strings, length, since, _SHAPE, at, kind, wanted, len(wanted)
                )  # fmt: skip
                if at >= 0:
                    found.append(at)
                    at = btf_walk.following(base, self._length, _SHAPE, at, 1)

    def _texts(self):
        """[(host-physical address, bytes, offset of the first)] of the strings: of its own, and the kernel's."""
        own = [(self._base() + self._strings, self._string_length, self._since)]
        return own + self._kernel._texts() if self._kernel else own

    def offset(self, number):
        """The offset of a type by its ID, not 0 (void)."""
        index = number - self.first
        if not 0 <= index < self.count:
            raise ValueError("BTF: no type has ID %d" % number)
        mark = self._marks[index // STRIDE]
        at = btf_walk.following(self._base() + self._types, self._length, _SHAPE, mark, index % STRIDE)
        if at < 0:
            raise ValueError("BTF: the types before ID %d are broken" % number)
        return at

    def record(self, at):
        """Return (name, kind, vlen, kind_flag, size or type ID) of the type at an offset."""
        if not 0 <= at <= self._length - RECORD:
            raise ValueError("BTF: no type at offset %#x" % at)
        name, info, size = struct.unpack("<III", self._memory.read(self._gpa + self._types + at, RECORD))
        return self.text(name), info >> 24 & 31, info & 0xFFFF, info >> 31, size

    def words(self, at, index, count):
        """Return `count` u32s after the type's record, from number `index` on."""
        at += RECORD + 4 * index
        if at + 4 * count > self._length:
            raise ValueError("BTF: the type before offset %#x is cut off" % at)
        return struct.unpack("<" + "I" * count, self._memory.read(self._gpa + self._types + at, 4 * count))

    def part(self, at, vlen, size, column, value, name=None):
        """The number of the part, of `size` bytes, whose u32 in a column is `value`; or that has the name `name`.

        -1 where there is none.
        """
        base = self._base()
        if at + RECORD + vlen * size > self._length:
            raise ValueError("BTF: the type at offset %#x is cut off" % at)
        first = base + self._types + at + RECORD
        if name is None:
            return btf_walk.with_value(first, vlen, size, column, value)
        wanted = name.encode()
        for strings, length, since in self._texts():
            number = btf_walk.named(first, vlen, size, strings, length, since, wanted, len(wanted))
            if number >= 0:
                return number
        return -1

    def nameless(self, at, vlen, size):
        """Yield the numbers of the parts without a name."""
        number = 0
        while number < vlen:
            base = self._base()
            if at + RECORD + vlen * size > self._length:
                raise ValueError("BTF: the type at offset %#x is cut off" % at)
            step = btf_walk.with_value(base + self._types + at + RECORD + number * size, vlen - number, size, 0, 0)
            if step < 0:
                return
            yield number + step
            number += step + 1

    def text(self, offset):
        """The string at an offset; bytes that are no ASCII are escaped as in a repr."""
        if not offset:
            return ""
        if offset < self._since:
            return self._kernel.text(offset)
        offset -= self._since
        if offset >= self._string_length:
            raise ValueError("BTF: a name at offset %#x, beyond the strings" % offset)
        size = min(self._string_length - offset, _NAME)
        data = self._memory.read(self._gpa + self._strings + offset, size)
        end = data.find(b"\0")
        if end < 0:
            raise ValueError("BTF: the name at offset %#x has no end" % offset)
        name = data[:end]
        if any([not 32 <= byte < 127 for byte in name]):
            return repr(name)[2:-1]
        return name.decode()
