"""Typed objects in a guest's memory: structs whose members are attributes.

    >>> task = vm.object("struct task_struct", 0xffff888003d48000)
    >>> task.comm, task.pid, task.mm.pgd

Attributes other than members end in "_", so that no member hides them: type_, gva_, value_, container_(). A member's
value follows from its type: numbers and bools are Python's, an array of char is a str up to its NUL (bytes where it is
no text), an enum has a name, a pointer to a struct is followed by ".". Members are read on access. ValueError says
which address cannot be read; a list that does not end is cut off with ValueError.
"""

from micropython import const

from vmm.insight.btf_kinds import ARRAY, STRUCT, UNION
from vmm.insight.type import (
    BOOL,
    BYTES,
    COMPOUND,
    ELEMENTS,
    ENUMERATED,
    POINTER,
    POINTER_SIZE,
    SIGNED,
    TEXT,
    UNSIGNED,
)  # fmt: skip
from vmm.vtx.x86 import MASK64

_LISTED = const(65536)  # entries of a list
_STRING = const(4096)  # bytes
_LINES = const(400)  # of a repr
_NESTED = const(64)  # structs without a name in one
_CHUNK = const(64)


def get(type, space, gva, bits=0, shift=0):
    """The value of a Type at an address. bits, shift: of a bit field that begins `shift` bits after gva."""
    how = type.how or type.prepare()
    if bits:
        return _scalar(type, how, space.number(gva, (shift + bits + 7) >> 3) >> shift & (1 << bits) - 1, bits)
    if how == UNSIGNED:
        return space.number(gva, type.width)
    if how == POINTER:
        return Pointer(type, space, space.number(gva, POINTER_SIZE))
    if how == COMPOUND:
        return Object(type, space, gva)
    if how == TEXT:
        return text(space.read(gva, min(type.width, _STRING)))
    if how == ELEMENTS:
        return Array(type.plain, space, gva)
    if how == BYTES:
        return space.read(gva, min(type.width, _STRING))
    return _scalar(type, how, space.number(gva, type.width), 8 * type.width)


def _scalar(type, how, number, bits):
    if how == BOOL:
        return bool(number)
    if how == SIGNED:
        return number - (1 << bits) if number >> (bits - 1) else number
    if how == ENUMERATED:
        plain = type.plain
        return Enumerated(plain, number - (1 << bits) if plain.signed and number >> (bits - 1) else number)
    return number


def text(data):
    """Bytes up to their NUL as a str, or as bytes where they are no UTF-8."""
    end = data.find(b"\0")
    if end >= 0:
        data = data[:end]
    try:
        return data.decode()
    except (UnicodeError, ValueError):
        return data


def _string(space, gva, limit):
    parts = []
    while limit > 0:
        size = min(limit, _CHUNK - gva % _CHUNK)  # a chunk is within a page
        data = space.read(gva, size)
        parts.append(data)
        if b"\0" in data:
            break
        gva += size
        limit -= size
    return text(b"".join(parts))


class Enumerated:
    """A value of an enum; equal to its number and to its name."""

    def __init__(self, type, value):
        self.type = type
        self.value = value

    @property
    def name(self):
        """The enumerator's name, or None."""
        return self.type.enumerator(self.value)

    def __int__(self):
        return self.value

    def __eq__(self, other):
        if isinstance(other, str):
            return self.name == other
        return self.value == (other.value if isinstance(other, Enumerated) else other)

    def __hash__(self):
        return hash(self.value)

    def __repr__(self):
        return "%s (%d)" % (self.name or "?", self.value)


def _member(type, name):
    """type.member(name); AttributeError for names that only Python itself looks up, and for types without members."""
    if name.startswith("__") and name.endswith("__") or not (type.how or type.prepare()) == COMPOUND:
        raise AttributeError("%s has no member %s" % (type.declare(), name))
    return type.member(name)


def _members(type):
    """The names of a struct's members, those of members without a name, too."""
    names = []
    structs = [type]
    for inner in structs:  # which grows meanwhile
        for member in inner.members():
            if member.name:
                names.append(member.name)
            elif len(structs) < _NESTED and member.type.plain.kind in (STRUCT, UNION):
                structs.append(member.type)
    return names


class Object:
    """A struct or union."""

    def __init__(self, type, space, gva):
        self.type_ = type
        self.space_ = space
        self.gva_ = gva

    def __getattr__(self, name):
        member = self.type_.found.get(name) or _member(self.type_, name)
        return get(member.type, self.space_, self.gva_ + member.byte, member.bits, member.offset & 7)

    def members_(self):
        """The names of its members."""
        return _members(self.type_)

    def complete_attributes(self, typed):
        """For Tab: the members that begin so."""
        return [name for name in _members(self.type_) if name.startswith(typed)]

    def at_(self, name):
        """The address of a member; "a.b" is b in a."""
        return self.gva_ + self.type_.offset(name)

    def pointer_(self):
        """A pointer to it."""
        return Pointer(self.type_._types.pointer(self.type_), self.space_, self.gva_)

    def container_(self, type, member):
        """The struct of a type (its name) that this is the member of."""
        return container_of(self.type_._types, self.space_, self.gva_, type, member)

    def list_(self, type, member):
        """Yield the structs on the list whose `struct list_head` or `struct hlist_head` this is, linked by `member`."""
        types = self.type_._types
        if self.type_.plain.name == "hlist_head":
            return hlist(types, self.space_, self.gva_, type, member)
        return entries(types, self.space_, self.gva_, type, member)

    def rb_(self, type, member):
        """Yield the structs in the tree whose `struct rb_root` or rb_root_cached this is, linked by `member`."""
        from vmm.insight import trees

        return trees.rbtree(self.type_._types, self.space_, self.gva_, type, member)

    def xarray_(self, type=None):
        """Yield (index, struct of a type) of this `struct xarray` (radix_tree_root); without a type (index, gva)."""
        from vmm.insight import trees

        return trees.xarray(self.type_._types, self.space_, self.gva_, type)

    def maple_(self, type=None):
        """Yield (first, last, struct of a type) of this `struct maple_tree`; without a type (first, last, gva)."""
        from vmm.insight import trees

        return trees.maple(self.type_._types, self.space_, self.gva_, type)

    def __eq__(self, other):
        return isinstance(other, (Object, Pointer)) and self.gva_ == (
            other.gva_ if isinstance(other, Object) else other.value_
        )

    def __hash__(self):
        return hash(self.gva_)

    def __repr__(self):
        lines = ["%s at %#x {" % (self.type_.declare(), self.gva_)]
        self._lines(lines, self.type_.plain, 0, 0)
        if len(lines) > _LINES:
            lines[_LINES:] = ["    ..."]
        return "\n".join(lines) + "\n}"

    def _lines(self, lines, type, base, depth):
        for member in type.members():
            inner = member.type.plain
            offset = base + member.offset
            if not member.name and inner.kind in (STRUCT, UNION):
                if depth < 8:
                    self._lines(lines, inner, offset, depth + 1)
            else:
                lines.append("    %s = %s" % (member.name, self._short(member, offset)))
            if len(lines) > _LINES:
                return

    def _short(self, member, offset):
        try:
            value = get(member.type, self.space_, self.gva_ + (offset >> 3), member.bits, offset & 7)
        except ValueError as error:
            return "<%s>" % error
        if isinstance(value, Object):
            return value._brief()
        return repr(value)

    def _brief(self):
        """One line: its members where there are few, else "{...}"."""
        parts = []
        for member in self.type_.members():
            if len(parts) == 4:
                return "{...}"
            inner = member.type.plain
            if inner.kind in (STRUCT, UNION) or inner.kind == ARRAY:
                parts.append("%s = ..." % (member.name or inner.declare()))
            else:
                parts.append("%s = %s" % (member.name, self._short(member, member.offset)))
        return "{%s}" % ", ".join(parts)


class Pointer:
    """A pointer: its value is value_; [0] is what it points to, and "." a member of that."""

    def __init__(self, type, space, value):
        self.type_ = type
        self.space_ = space
        self.value_ = value

    @property
    def target_(self):
        """The Type that it points to."""
        return self.type_.plain.target

    def _check(self, what):
        if not self.value_:
            raise ValueError("%s is NULL: no %s" % (self.type_.declare(), what))
        if not self.target_.plain.kind:
            raise ValueError("%s points to no type: no %s" % (self.type_.declare(), what))

    def __getitem__(self, index):
        self._check("[%d]" % index)
        return get(self.target_, self.space_, self.value_ + index * self.target_.size)

    def __getattr__(self, name):
        type = self.type_
        if not type.how:
            type.prepare()
        target = type.pointee
        member = target.found.get(name) or _member(target, name)
        if not self.value_:
            self._check(name)
        return get(member.type, self.space_, self.value_ + member.byte, member.bits, member.offset & 7)

    def members_(self):
        """The names of the members of what it points to."""
        target = self.target_
        return _members(target) if target.plain.kind in (STRUCT, UNION) else []

    def complete_attributes(self, typed):
        """For Tab: the members that begin so."""
        return [name for name in self.members_() if name.startswith(typed)]

    def at_(self, name):
        """The address of a member of what it points to."""
        self._check(name)
        return self.value_ + self.target_.offset(name)

    def string_(self, limit=_STRING):
        """The NUL-ended string that it points to, of at most `limit` bytes: str, or bytes where it is no text."""
        self._check("string")
        return _string(self.space_, self.value_, limit)

    def __int__(self):
        return self.value_

    def __bool__(self):
        return bool(self.value_)

    def __eq__(self, other):
        if isinstance(other, Pointer):
            return self.value_ == other.value_
        return self.value_ == (other.gva_ if isinstance(other, Object) else other)

    def __hash__(self):
        return hash(self.value_)

    def __repr__(self):
        return "(%s) %#x" % (self.type_.declare(), self.value_)


class Array:
    """An array: [i], len(), iteration. One without a length, at a struct's end, has any [i] and len() 0."""

    def __init__(self, type, space, gva):
        self.type_ = type
        self.space_ = space
        self.gva_ = gva

    def __len__(self):
        return self.type_.length

    def __getitem__(self, index):
        length = self.type_.length
        if length and not -length <= index < length:
            raise IndexError("%s: index %d" % (self.type_.declare(), index))
        if index < 0:
            index += length
        target = self.type_.target
        return get(target, self.space_, self.gva_ + index * target.size)

    def __iter__(self):
        for index in range(self.type_.length):
            yield self[index]

    def string_(self, limit=_STRING):
        """The NUL-ended string that begins with the array, which has no length: `char name[]`. As Pointer.string_()."""
        return _string(self.space_, self.gva_, limit)

    def __repr__(self):
        shown = [self[i]._brief() if isinstance(self[i], Object) else repr(self[i]) for i in range(min(len(self), 8))]
        return "[%s%s]" % (", ".join(shown), ", ..." if len(self) > 8 else "")


def container_of(types, space, gva, type, member):
    """The struct of a type (its name, or a Type) whose member is at gva."""
    if isinstance(type, str):
        type = types.type(type)
    return Object(type, space, gva - type.offset(member) & MASK64)


def entries(types, space, head, type, member):
    """Yield the structs on a list. head: gva of its struct list_head."""
    return _chain(types, space, head, space.number(head, 8), head, type, member)


def hlist(types, space, head, type, member):
    """Yield the structs on a hash chain. head: gva of its struct hlist_head."""
    return _chain(types, space, head, space.number(head, 8), 0, type, member)


def _chain(types, space, head, gva, end, type, member):
    """Nodes from gva on, each with the next one's address at its start, to `end`. A loop ends (Brent's algorithm)."""
    if isinstance(type, str):
        type = types.type(type)
    offset = type.offset(member)
    seen, power, count = head, 1, 0
    while gva != end:
        if gva == seen or count >= _LISTED:
            what = "loops" if gva == seen else "has more than %d entries" % _LISTED
            raise ValueError("the list at %#x %s: it does not come back to its head" % (head, what))
        if count == power:
            seen, power = gva, 2 * power
        following = space.number(gva, 8)
        yield Object(type, space, gva - offset & MASK64)
        gva = following
        count += 1
