"""A type of BTF: members of structs, and how it prints (vmm/insight/types.py finds it by name or ID).

    >>> vm.type("struct list_head")
    struct list_head {  // 16 bytes
        0x0 struct list_head *next
        0x8 struct list_head *prev
    }

Inconsistent data ends in ValueError: references that loop, structs within structs without end, sizes beyond reason.
"""

from micropython import const

from vmm.insight.btf_kinds import (
    ARRAY,
    CONST,
    ENUM,
    ENUM64,
    FUNC_PROTO,
    INT,
    PTR,
    RESTRICT,
    STRUCT,
    TYPE_TAG,
    TYPEDEF,
    UNION,
    VOLATILE,
)  # fmt: skip

POINTER_SIZE = const(8)
_DEEPEST = const(32)  # typedefs of typedefs, structs in structs
_LARGEST = const(1 << 32)  # bytes
_SHOWN = const(512)  # lines of a repr

# Type.how: what a value of the type becomes (vmm/insight/objects.py)
UNKNOWN = const(0)
UNSIGNED = const(1)
SIGNED = const(2)
BOOL = const(3)
ENUMERATED = const(4)
POINTER = const(5)
COMPOUND = const(6)
TEXT = const(7)
ELEMENTS = const(8)
BYTES = const(9)

QUALIFIERS = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)
_COMPOUND = (STRUCT, UNION)
_WORDS = {STRUCT: "struct ", UNION: "union ", ENUM: "enum ", ENUM64: "enum "}


class Member:
    """Where a member is in its struct or union: bits from its beginning; bits == 0: not a bit field."""

    def __init__(self, name, type, offset, bits):
        self.name = name
        self.type = type
        self.offset = offset
        self.bits = bits
        self.byte = offset >> 3

    def __repr__(self):
        place = "%#x" % (self.offset >> 3)
        if self.bits:
            place += ":%d" % (self.offset & 7)
        return "%s %s%s" % (place, self.type.declare(self.name), " : %d" % self.bits if self.bits else "")


class Type:
    """A type. kind: of btf_kinds.py, 0 is void; name: without "struct"; size: bytes; target: of a pointer, array,
    typedef, const, volatile or restrict; length: of an array."""

    def __init__(self, types, kind, name, size=0, target=None, length=0, at=-1):
        self._types = types
        self.kind = kind
        self.name = name
        self._size = size
        self._target = target  # a Type, or an ID
        self.length = length
        self._at = at
        self._parts = 0  # vlen
        self._flag = 0  # kind_flag
        self.found = {}  # members by name, as far as they have been looked up
        self.how = UNKNOWN
        self.width = 0  # size, once `how` is known
        self.pointee = None  # of a pointer: target, once `how` is known
        self.signed = self.bool = False
        self.bits = 0  # of an INT that is a bit field of the old kind
        self.shift = 0

    @property
    def target(self):
        """The Type that a pointer points to, of an array's elements, or behind a typedef or qualifier."""
        if isinstance(self._target, int):
            self._target = self._types.by_id(self._target)
        return self._target

    @property
    def plain(self):
        """The type itself, behind typedefs and qualifiers."""
        plain = self
        for _ in range(_DEEPEST):
            if plain.kind not in QUALIFIERS:
                return plain
            plain = plain.target
        raise ValueError("BTF: the type %s leads through %d others" % (self.name, _DEEPEST))

    @property
    def size(self):
        """Bytes; 0 for a type without a size."""
        total = 1
        plain = self.plain
        for _ in range(_DEEPEST):
            if plain.kind != ARRAY:
                total *= plain._size
                if total > _LARGEST:
                    break
                return total
            total *= plain.length
            plain = plain.target.plain
        raise ValueError("BTF: %s is too large" % self.declare())

    def prepare(self):
        """Set `how`, `width` and `pointee`; returns how."""
        plain = self.plain
        kind = plain.kind
        self.width = self.size
        if kind in _COMPOUND:
            how = COMPOUND
        elif kind == PTR:
            how = POINTER
            self.pointee = plain.target
            if self.pointee.plain.kind in _COMPOUND:
                self.pointee.prepare()
        elif kind == ARRAY:
            how = TEXT if plain.length and plain._of_characters() else ELEMENTS
        elif kind in (ENUM, ENUM64) and self.width in (1, 2, 4, 8):
            how = ENUMERATED
        elif kind == INT and 0 < self.width <= 8:
            how = BOOL if plain.bool else SIGNED if plain.signed else UNSIGNED
        else:
            how = BYTES
        self.how = how
        return how

    def _of_characters(self):
        target = self.target.plain
        return target.kind == INT and target._size == 1 and target.name.endswith("char")

    # -- structs and unions

    def _part(self, index):
        """Return Member number `index`, also one without a name."""
        name, target, offset = self._types.btf.words(self._at, 3 * index, 3)
        bits = 0
        if self._flag:
            bits = offset >> 24
            offset &= 0xFFFFFF
        type = self._types.by_id(target)
        if not self._flag and type.kind == INT and type.bits:
            bits = type.bits
            offset += type.shift
        return Member(self._types.btf.text(name), type, offset, bits)

    def members(self):
        """Yield each Member; those without a name are structs or unions whose members count as this one's."""
        plain = self.plain
        if plain.kind not in _COMPOUND:
            raise ValueError("%s has no members" % self.declare())
        for index in range(plain._parts):
            yield plain._part(index)

    def member(self, name):
        """Return the Member, of those within members without a name too. AttributeError where there is none."""
        plain = self.plain
        found = self.found.get(name)
        if found is None:
            found = plain._search(name, 0)
            if found is None:
                raise AttributeError("%s has no member %s" % (self.declare(), name))
            self.found[name] = found  # there are no more than it has members
        return found

    def offset(self, name):
        """Bytes from the beginning to a member; "a.b" is b in a. ValueError for a bit field."""
        at = 0
        type = self
        for part in name.split("."):
            member = type.member(part)
            if member.bits:
                raise ValueError("%s.%s is a bit field" % (type.declare(), part))
            at += member.offset >> 3
            type = member.type
        return at

    def has(self, name):
        """Whether member(name) is there."""
        try:
            self.member(name)
        except AttributeError:
            return False
        return True

    def _search(self, name, depth):
        if self.kind not in _COMPOUND or not name:
            return None
        if depth > _DEEPEST:
            raise ValueError("BTF: %s has %d structs in structs" % (self.declare(), _DEEPEST))
        section = self._types.btf
        index = section.part(self._at, self._parts, 12, 0, 0, name)
        if index >= 0:
            return self._part(index)
        for index in section.nameless(self._at, self._parts, 12):
            inner = self._part(index)
            found = inner.type.plain._search(name, depth + 1)
            if found is not None:
                return Member(name, found.type, inner.offset + found.offset, found.bits)
        return None

    # -- enums

    def enumerator(self, value):
        """The name of a value, or None."""
        step = 12 if self.kind == ENUM64 else 8
        section = self._types.btf
        index = section.part(self._at, self._parts, step, 1, value)
        if index < 0:
            return None
        words = section.words(self._at, step // 4 * index, step // 4)
        if step == 12 and words[2] != value >> 32 & 0xFFFFFFFF:
            return None
        return section.text(words[0])

    def value(self, name):
        """The value of an enumerator. ValueError where there is none."""
        step = 12 if self.kind == ENUM64 else 8
        section = self._types.btf
        index = section.part(self._at, self._parts, step, 0, 0, name)
        if index < 0:
            raise ValueError("%s has no enumerator %s" % (self.declare(), name))
        words = section.words(self._at, step // 4 * index, step // 4)
        value = words[1] | (words[2] << 32 if step == 12 else 0)
        bits = 64 if step == 12 else 32
        if self.signed and value >> (bits - 1):
            value -= 1 << bits
        return value

    # -- as text

    def declare(self, name=""):
        """The C declaration of something of this type; name: its name."""
        type = self
        for _ in range(_DEEPEST):
            if type.kind == PTR:
                target = type.target
                if target.plain.kind in (FUNC_PROTO, ARRAY):
                    name = "(*%s)" % name
                else:
                    name = "*" + name
                type = target
            elif type.kind == ARRAY:
                name += "[%d]" % type.length
                type = type.target
            elif type.kind == FUNC_PROTO:
                name += "()"
                type = type.target
            elif type.kind in (CONST, VOLATILE, RESTRICT, TYPE_TAG):
                type = type.target
            else:
                break
        word = "void" if not type.kind else _WORDS.get(type.kind, "") + (type.name or "<no name>")
        return "%s %s" % (word, name) if name else word

    def __repr__(self):
        plain = self.plain
        if plain.kind in _COMPOUND:
            lines = ["%s {  // %d bytes" % (self.declare(), plain.size)]
            lines += plain._lines(0, 1)
            if len(lines) > _SHOWN:
                lines[_SHOWN:] = ["    ..."]
            return "\n".join(lines) + "\n}"
        if plain.kind in (ENUM, ENUM64):
            step = 3 if plain.kind == ENUM64 else 2
            section = self._types.btf
            names = [section.text(section.words(plain._at, step * i, 1)[0]) for i in range(min(plain._parts, _SHOWN))]
            return "%s {%s}" % (self.declare(), ", ".join(["%s = %d" % (name, plain.value(name)) for name in names]))
        return "%s  // %d bytes" % (self.declare(), self.size)

    def _lines(self, base, depth):
        lines = []
        for member in self.members():
            member.offset += base
            inner = member.type.plain
            if not member.name and inner.kind in _COMPOUND and depth < 8:
                lines.append("    " * depth + _WORDS[inner.kind] + "{")
                lines += inner._lines(member.offset, depth + 1)
                lines.append("    " * depth + "}")
            else:
                lines.append("    " * depth + repr(member))
            if len(lines) > _SHOWN:
                break
        return lines
