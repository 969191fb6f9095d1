"""Layouts of a guest's structs, written nearly as in C: for views of systems without type information.

    TASK = Layout('''
        ptr next, previous;
        u32 sp, state;
        u8 priority;
        char name[12];
    ''', word=4)
    TASK.read(space, gva).name

Types: u8 u16 u32 u64, s8 s16 s32 s64, ptr, char; TYPE[n] is a tuple of numbers, char[n] the text up to its NUL, u8[n]
bytes. A member lies at its natural alignment, at most `align` bytes; `name @ 0x40` says where it lies instead. A
gap between members: `u8 rest[24];`.
"""

import struct

_FORMATS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "s8": "b", "s16": "h", "s32": "i", "s64": "q", "char": "B"}
_MOST = 0x10000  # bytes of a struct


class Member:
    """name; offset in bytes; format: of one item, for struct; count: items, None for a single one; kind: its type."""

    def __init__(self, name, offset, kind, form, count):
        self.name = name
        self.offset = offset
        self.kind = kind
        self.format = form
        self.count = count

    def value(self, data):
        """Its value in `data`, the bytes of the struct: a number, a tuple, a text or bytes."""
        at = self.offset
        if self.count is None:
            return struct.unpack_from(self.format, data, at)[0]
        if self.kind == "char":
            text = bytes(data[at : at + self.count]).split(b"\0")[0]
            return "".join([chr(byte) if 32 <= byte < 127 else "?" for byte in text])
        if self.kind == "u8":
            return bytes(data[at : at + self.count])
        return struct.unpack_from("<%d%s" % (self.count, self.format[1]), data, at)


class Record:
    """A struct that has been read: its members by name; gva_: its address."""

    def __init__(self, gva, values):
        self.gva_ = gva
        self.values_ = values

    def __getattr__(self, name):
        try:
            return self.values_[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self):
        rows = [(value, name) for name, value in self.values_.items() if not isinstance(value, (bytes, tuple))]
        return "%#x: %s" % (self.gva_, ", ".join(sorted(["%s=%r" % (name, value) for value, name in rows])))


class Layout:
    """text: see above. word: bytes of a pointer, 4 or 8. align: the largest alignment of a member; by default the
    word, as in the ABI of i386, or 8. ValueError names what is invalid. size: bytes; members: in order."""

    def __init__(self, text, word=8, align=None):
        self.word = word
        self.members = []
        self.size = 0
        formats = dict(_FORMATS)
        formats["ptr"] = "I" if word == 4 else "Q"
        for line in text.split(";"):
            words = line.split(None, 1)
            if not words:
                continue
            if words[0] not in formats or len(words) < 2:
                raise ValueError("%r: a type (%s) and names" % (line.strip(), " ".join(sorted(formats))))
            for name in words[1].split(","):
                self._add(name.strip(), words[0], formats[words[0]], align or word)
        least = max([min(struct.calcsize(m.format), align or word) for m in self.members] or [1])
        self.size = -(-self.size // least) * least

    def _add(self, text, kind, form, align):
        name, at, place = text.partition("@")
        name, bracket, count = name.strip().partition("[")
        try:
            items = int(count.rstrip().rstrip("]"), 0) if bracket else None
            offset = int(place, 0) if at else None
        except ValueError:
            raise ValueError("%r: name, name[count], or name @ offset" % text) from None
        if not name or not all([c.isalpha() or c.isdigit() or c == "_" for c in name]):
            raise ValueError("%r: no name of a member" % text)
        size = struct.calcsize(form)
        if offset is None:
            step = min(size, align)
            offset = -(-self.size // step) * step
        self.members.append(Member(name, offset, kind, "<" + form, items))
        self.size = max(self.size, offset + size * (1 if items is None else items))
        if self.size > _MOST:
            raise ValueError("%r: a struct of more than %d bytes" % (text, _MOST))

    def offset(self, name):
        """Where a member lies in the struct. KeyError: there is none."""
        for member in self.members:
            if member.name == name:
                return member.offset
        raise KeyError(name)

    def read(self, space, gva):
        """The Record of a struct in an address space (vmm.memory.look.Space). ValueError where it is not mapped."""
        data = space.read(gva, self.size)
        return Record(gva, {member.name: member.value(data) for member in self.members})
