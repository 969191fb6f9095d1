"""BTF, the types of a Linux kernel in its own memory, read where they lie.

Nothing is copied: of all types one mark for 32 of them is kept, and a name is found by a walk over the types. What the
guest says is hostile: every record, name and reference is checked against the section's bounds in the step that reads
it. ValueError says what is wrong. Limits: 64-bit kernels, little-endian; the section is contiguous in guest-physical
memory, as the kernel's image is. Source: the kernel's Documentation/bpf/btf.rst.
"""

import struct
from array import array

import micropython
from micropython import const

from vmm.vtx.x86 import PAGE

INT = const(1)
PTR = const(2)
ARRAY = const(3)
STRUCT = const(4)
UNION = const(5)
ENUM = const(6)
FWD = const(7)
TYPEDEF = const(8)
VOLATILE = const(9)
CONST = const(10)
RESTRICT = const(11)
FUNC = const(12)
FUNC_PROTO = const(13)
VAR = const(14)
DATASEC = const(15)
FLOAT = const(16)
DECL_TAG = const(17)
TYPE_TAG = const(18)
ENUM64 = const(19)
_KINDS = const(20)

_MAGIC = const(0xEB9F)
_HEADER = const(24)
_RECORD = const(12)
_STRIDE = const(32)  # types for one mark
_LARGEST = const(1 << 26)  # bytes of a section
_NAME = const(256)  # bytes of a name

# Bytes after a record, by kind; then bytes for each of its vlen parts, by kind.
_SHAPE = b"\0\4\0\x0c\0\0\0\0\0\0\0\0\0\0\4\0\0\4\0\0" + b"\0\0\0\0\x0c\x0c\x08\0\0\0\0\0\0\x08\0\x0c\0\0\0\x0c"


class Btf:
    """One section. memory: vmm.memory.guest.GuestMemory; translate(gva): the gpa, or ValueError."""

    def __init__(self, memory, translate, gva, size):
        if not _HEADER <= size <= _LARGEST:
            raise ValueError("BTF of %d bytes" % size)
        gpa = translate(gva)
        for page in range(PAGE - (gva & (PAGE - 1)), size, PAGE):
            if translate(gva + page) != gpa + page:
                raise ValueError("BTF at %#x is not contiguous in physical memory" % gva)
        self._memory = memory
        self._gpa = gpa
        self._size = size
        magic, version, _, header, types, self._length, strings, self._string_length = struct.unpack(
            "<HBBIIIII", memory.read(gpa, _HEADER)
        )
        if magic != _MAGIC or version != 1 or header < _HEADER:
            raise ValueError("no BTF at %#x: it begins with %#06x, version %d" % (gva, magic, version))
        self._types = header + types
        self._strings = header + strings
        if self._types + self._length > size or self._strings + self._string_length > size:
            raise ValueError("BTF at %#x: its parts lie outside its %d bytes" % (gva, size))
        base = self._base() + self._types
        self._marks = array("I", [0])
        count = _scan(base, self._length, _SHAPE, self._marks, 1)
        if count > 0:
            self._marks = array("I", bytes(4 * (count // _STRIDE + 1)))
            count = _scan(base, self._length, _SHAPE, self._marks, len(self._marks))
        if count < 0:
            raise ValueError("BTF at %#x: the type at offset %#x is broken" % (gva, -1 - count))
        self.count = count

    def _base(self):
        """Host-physical address. ValueError once the guest has no memory any more."""
        return self._memory.hpa(self._gpa, self._size)

    def find(self, kind, name):
        """Return the offsets of the types of a kind that have this name: at most eight."""
        found = []
        base = self._base()
        wanted = name.encode()
        at = 0
        while at >= 0 and len(found) < 8:
            at = _find(
                base + self._types, self._length, base + self._strings, self._string_length,
                _SHAPE, at, kind, wanted, len(wanted),
            )  # fmt: skip
            if at >= 0:
                found.append(at)
                at = _next(base + self._types, self._length, _SHAPE, at, 1)
        return found

    def offset(self, number):
        """The offset of a type by its ID, not 0 (void)."""
        if not 0 < number <= self.count:
            raise ValueError("BTF: no type has ID %d" % number)
        mark = self._marks[(number - 1) // _STRIDE]
        at = _next(self._base() + self._types, self._length, _SHAPE, mark, (number - 1) % _STRIDE)
        if at < 0:
            raise ValueError("BTF: the types before ID %d are broken" % number)
        return at

    def record(self, at):
        """Return (name, kind, vlen, kind_flag, size or type ID) of the type at an offset."""
        if not 0 <= at <= self._length - _RECORD:
            raise ValueError("BTF: no type at offset %#x" % at)
        name, info, size = struct.unpack("<III", self._memory.read(self._gpa + self._types + at, _RECORD))
        return self.text(name), info >> 24 & 31, info & 0xFFFF, info >> 31, size

    def words(self, at, index, count):
        """Return `count` u32s after the type's record, from number `index` on."""
        at += _RECORD + 4 * index
        if at + 4 * count > self._length:
            raise ValueError("BTF: the type before offset %#x is cut off" % at)
        return struct.unpack("<" + "I" * count, self._memory.read(self._gpa + self._types + at, 4 * count))

    def part(self, at, vlen, size, column, value, name=None):
        """The number of the part, of `size` bytes, whose u32 in a column is `value`; with `name` that is called so.

        -1 where there is none.
        """
        base = self._base()
        if at + _RECORD + vlen * size > self._length:
            raise ValueError("BTF: the type at offset %#x is cut off" % at)
        first = base + self._types + at + _RECORD
        if name is None:
            return _with_value(first, vlen, size, column, value)
        wanted = name.encode()
        return _named(first, vlen, size, base + self._strings, self._string_length, wanted, len(wanted))

    def nameless(self, at, vlen, size):
        """Yield the numbers of the parts without a name."""
        number = 0
        while number < vlen:
            base = self._base()
            if at + _RECORD + vlen * size > self._length:
                raise ValueError("BTF: the type at offset %#x is cut off" % at)
            step = _with_value(base + self._types + at + _RECORD + number * size, vlen - number, size, 0, 0)
            if step < 0:
                return
            yield number + step
            number += step + 1

    def text(self, offset):
        """The string at an offset; bytes that are no ASCII as they would be in a repr."""
        if not offset:
            return ""
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


@micropython.viper
def _scan(types: int, length: int, shape: ptr8, marks: ptr32, room: int) -> int:
    """Count the types, and mark the offset of each 32nd, at most `room` of them; ~offset of the first broken type."""
    at = 0
    count = 0
    while at < length:
        if at + _RECORD > length:
            return -1 - at
        if count & (_STRIDE - 1) == 0:
            mark = count // _STRIDE
            if mark < room:
                marks[mark] = at
        info = int(ptr32(types + at)[1])
        kind = info >> 24 & 31
        if kind == 0 or kind >= _KINDS:
            return -1 - at
        size = _RECORD + int(shape[kind]) + int(shape[_KINDS + kind]) * (info & 0xFFFF)
        if at + size > length:
            return -1 - at
        at += size
        count += 1
    return count


@micropython.viper
def _next(types: int, length: int, shape: ptr8, at: int, steps: int) -> int:
    """The offset of the type so many types after the one at `at`; -1 at the end, or where one is broken."""
    while True:
        if at + _RECORD > length:
            return -1
        if steps == 0:
            return at
        info = int(ptr32(types + at)[1])
        kind = info >> 24 & 31
        if kind == 0 or kind >= _KINDS:
            return -1
        at += _RECORD + int(shape[kind]) + int(shape[_KINDS + kind]) * (info & 0xFFFF)
        steps -= 1


@micropython.viper
def _find(
    types: int, length: int, strings: int, string_length: int,
    shape: ptr8, at: int, wanted: int, name: ptr8, size: int,
) -> int:  # fmt: skip
    """The offset of the next type from `at` on with a kind and name; -1: none."""
    first = int(name[0])
    while at + _RECORD <= length:
        record = ptr32(types + at)
        info = int(record[1])
        kind = info >> 24 & 31
        if kind == 0 or kind >= _KINDS:
            return -1
        if kind == wanted:
            offset = int(record[0])
            if offset + size < string_length:
                text = ptr8(strings + offset)
                if int(text[0]) == first and int(text[size]) == 0:
                    i = 1
                    while i < size and text[i] == name[i]:
                        i += 1
                    if i >= size:
                        return at
        at += _RECORD + int(shape[kind]) + int(shape[_KINDS + kind]) * (info & 0xFFFF)
    return -1


@micropython.viper
def _named(part: int, count: int, step: int, strings: int, string_length: int, name: ptr8, size: int) -> int:
    """The number of the part, of `step` bytes, that has this name; -1: none."""
    number = 0
    while number < count:
        offset = int(ptr32(part)[0])
        if offset + size < string_length:
            text = ptr8(strings + offset)
            if int(text[size]) == 0:
                i = 0
                while i < size and text[i] == name[i]:
                    i += 1
                if i >= size:
                    return number
        part += step
        number += 1
    return -1


@micropython.viper
def _with_value(part: int, count: int, step: int, column: int, value: int) -> int:
    number = 0
    value &= 0xFFFFFFFF
    while number < count:
        if int(ptr32(part)[column]) == value:
            return number
        part += step
        number += 1
    return -1
