"""Types by name, members of structs, and how a type prints: over one BTF section (vmm/insight/btf.py).

    >>> vm.type("struct list_head")
    struct list_head {  // 16 bytes
        0x0 struct list_head *next
        0x8 struct list_head *prev
    }

A guest's lies end in ValueError: references that loop, structs within structs without end, sizes beyond reason.
"""

from micropython import const

from vmm.insight.btf import (
    ARRAY,
    CONST,
    DATASEC,
    ENUM,
    ENUM64,
    FLOAT,
    FUNC,
    FUNC_PROTO,
    FWD,
    INT,
    PTR,
    RESTRICT,
    STRUCT,
    TYPE_TAG,
    TYPEDEF,
    UNION,
    VAR,
    VOLATILE,
)  # fmt: skip

POINTER_SIZE = const(8)
_SIGNED = const(1 << 24)  # in the word of an INT
_BOOL = const(4 << 24)
_DEEPEST = const(32)  # typedefs of typedefs, structs in structs
_KEPT = const(512)  # Types at once
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

_QUALIFIERS = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)
_COMPOUND = (STRUCT, UNION)
_PREFIXES = {"struct": (STRUCT,), "union": (UNION,), "enum": (ENUM, ENUM64)}
_WORDS = {STRUCT: "struct ", UNION: "union ", ENUM: "enum ", ENUM64: "enum "}


def _integer(name):
    """The compiler's name of an integer type, whose words come in any order in C; other names as they are."""
    words = name.split()
    if not words or any([word not in ("unsigned", "signed", "long", "short", "int", "char") for word in words]):
        return name
    sign = "unsigned " if "unsigned" in words else ""
    if "char" in words:
        return ("signed " if "signed" in words else sign) + "char"
    return "short " * words.count("short") + "long " * words.count("long") + sign + "int"


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
    """A type. kind: of btf.py, 0 is void; name: without "struct"; size: bytes; target: of a pointer, array, typedef,
    const, volatile or restrict; length: of an array."""

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
        self.found = {}  # members by name, as far as they have been asked for
        self.how = UNKNOWN
        self.width = 0  # size, once `how` is known
        self.pointee = None  # of a pointer: target, once `how` is known
        self.signed = self.bool = False
        self.bits = 0  # of an INT that is a bit field of the old kind
        self.shift = 0

    @property
    def target(self):
        if isinstance(self._target, int):
            self._target = self._types.by_id(self._target)
        return self._target

    @property
    def plain(self):
        """The type itself, behind typedefs and qualifiers."""
        plain = self
        for _ in range(_DEEPEST):
            if plain.kind not in _QUALIFIERS:
                return plain
            plain = plain.target
        raise ValueError("BTF: the type %s leads through %d others" % (self.name, _DEEPEST))

    @property
    def size(self):
        """Bytes; 0 of what has none."""
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
        """Return Member number `index` as it stands."""
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
        """As in C, with the name of what is declared."""
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


class Types:
    """The types of one BTF section by name and by ID."""

    def __init__(self, section):
        self.btf = section
        self._named = {}
        self._kept = {}  # offset: Type
        self._numbers = {}  # ID: Type
        self.void = Type(self, 0, "void", 1)

    def by_id(self, number):
        """Return the Type."""
        if not number:
            return self.void
        type = self._numbers.get(number)
        if type is None:
            type = self._at(self.btf.offset(number))
            self._numbers[number] = type
        return type

    def _at(self, at):
        type = self._kept.get(at)
        if type is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
                self._numbers.clear()
                self._named.clear()
            type = self._kept[at] = self._make(at)
        return type

    def _make(self, at):
        name, kind, parts, flag, size = self.btf.record(at)
        if kind in (STRUCT, UNION, ENUM, ENUM64, FLOAT, DATASEC):
            type = Type(self, kind, name, size, None, 0, at)
            type.signed = bool(flag)
        elif kind == INT:
            word = self.btf.words(at, 0, 1)[0]
            type = Type(self, kind, name, size)
            type.signed = bool(word & _SIGNED)
            type.bool = bool(word & _BOOL)
            if word & 0xFF != 8 * size:
                type.bits = word & 0xFF
                type.shift = word >> 16 & 0xFF
        elif kind == ARRAY:
            target, _, length = self.btf.words(at, 0, 3)
            type = Type(self, kind, name, 0, target, length)
        elif kind == FWD:
            type = Type(self, kind, ("union " if flag else "struct ") + name)
        elif kind in (PTR, FUNC, FUNC_PROTO, VAR) or kind in _QUALIFIERS:
            type = Type(self, kind, name, POINTER_SIZE if kind == PTR else 0, size)
        else:
            raise ValueError("BTF: a type of kind %d is used as one of data" % kind)
        type._parts = parts
        type._flag = flag
        return type

    def pointer(self, target):
        """A pointer to a Type."""
        return Type(self, PTR, "", POINTER_SIZE, target)

    def type(self, name, which=None):
        """Return a Type: "struct file", "union sigval", "enum pid_type", "pid_t", "char *", "int [4]".

        which: where several have the name, which one. ValueError: none has the name, or several and which is None.
        """
        name = name.strip()
        if name.endswith("*"):
            return self.pointer(self.type(name[:-1], which))
        if name.endswith("]"):
            inner, _, length = name[:-1].rpartition("[")
            return Type(self, ARRAY, "", 0, self.type(inner, which), int(length))
        if name == "void":
            return self.void
        found = self._named.get((name, which))
        if found is None:
            found = self._at(self._one(name, which))
            self._named[(name, which)] = found
        return found

    def has(self, name):
        """Whether there is a type of this name, or several."""
        try:
            self.type(name, 0)
        except ValueError:
            return False
        return True

    def _one(self, name, which):
        prefix, _, rest = name.partition(" ")
        kinds = _PREFIXES.get(prefix)
        if kinds is None:
            kinds, rest = (TYPEDEF, INT, FLOAT), _integer(name)
        rest = rest.strip()
        if not rest:
            raise ValueError("a type's name is missing: %r" % name)
        found = []
        for kind in kinds:
            found += self.btf.find(kind, rest)
            if found and kind in (TYPEDEF, INT):
                break
        if not found:
            raise ValueError("the guest's BTF has no type %s" % name)
        if which is None and len(found) > 1:
            sizes = ", ".join(["%d: %d bytes" % (i, self.btf.record(at)[4]) for i, at in enumerate(found)])
            raise ValueError("%d types are called %s (%s): say which=" % (len(found), name, sizes))
        if not 0 <= (which or 0) < len(found):
            raise ValueError("%d types are called %s: which= counts from 0" % (len(found), name))
        return found[which or 0]
