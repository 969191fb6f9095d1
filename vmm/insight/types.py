"""Types by name and by ID, over one BTF section (vmm/insight/btf.py), the kernel's or a module's.

A module's section goes on where the kernel's ends: smaller IDs, and strings, are the kernel's.
"""

from micropython import const

from vmm.insight.btf_kinds import (
    ARRAY,
    DATASEC,
    ENUM,
    ENUM64,
    FLOAT,
    FUNC,
    FUNC_PROTO,
    FWD,
    INT,
    PTR,
    STRUCT,
    TYPEDEF,
    UNION,
    VAR,
)  # fmt: skip
from vmm.insight.type import POINTER_SIZE, QUALIFIERS, Type

_SIGNED = const(1 << 24)  # in the word of an INT
_BOOL = const(4 << 24)
_KEPT = const(512)  # Types at once
_NAMES = const(512)

_PREFIXES = {"struct": (STRUCT,), "union": (UNION,), "enum": (ENUM, ENUM64)}


def _integer(name):
    """The compiler's name of an integer type, whose words come in any order in C; other names as they are."""
    words = name.split()
    if not words or any([word not in ("unsigned", "signed", "long", "short", "int", "char") for word in words]):
        return name
    sign = "unsigned " if "unsigned" in words else ""
    if "char" in words:
        return ("signed " if "signed" in words else sign) + "char"
    return "short " * words.count("short") + "long " * words.count("long") + sign + "int"


class Types:
    """The types of one BTF section by name and by ID. parent: the Types of the kernel, for a module's."""

    def __init__(self, section, parent=None):
        self.btf = section
        self.parent = parent
        self.more = None  # a function that returns the Types of the modules
        self._offsets = {}  # (name, which): offset, so that a name is looked for once
        self._kept = {}  # offset: Type
        self._numbers = {}  # ID: Type
        self.void = parent.void if parent else Type(self, 0, "void", 1)

    def by_id(self, number):
        """Return the Type."""
        if not number:
            return self.void
        if number < self.btf.first:
            return self.parent.by_id(number)
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
        elif kind in (PTR, FUNC, FUNC_PROTO, VAR) or kind in QUALIFIERS:
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
        at = self._offsets.get((name, which))
        if at is not None:
            return self._at(at)
        found = self._named(name)
        if found:
            return self._at(self._one(name, which, found))
        for types in self.more() if self.more else [self.parent] if self.parent else []:
            if types is self.parent or types._named(name):
                return types.type(name, which)
        raise ValueError("the guest's BTF has no type %s" % name)

    def has(self, name):
        """Whether there is a type of this name, or several."""
        try:
            self.type(name, 0)
        except ValueError:
            return False
        return True

    def _named(self, name):
        """The offsets of the types of a name."""
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
        return found

    def _one(self, name, which, found):
        """The offset that `which` selects among several."""
        if which is None and len(found) > 1:
            sizes = ", ".join(["%d: %d bytes" % (i, self.btf.record(at)[4]) for i, at in enumerate(found)])
            raise ValueError("%d types are called %s (%s): say which=" % (len(found), name, sizes))
        if not 0 <= (which or 0) < len(found):
            raise ValueError("%d types are called %s: which= counts from 0" % (len(found), name))
        if len(self._offsets) >= _NAMES:
            self._offsets.clear()
        self._offsets[(name, which)] = found[which or 0]
        return found[which or 0]
