"""Types of drgn from a kernel's BTF.

Names are looked up in the section's strings, where each stands once; types are made when they are asked for, members
at their first use. Source: Linux, Documentation/bpf/btf.rst. What the section says is the guest's: a number that leads
out of it, or types that lead to themselves, are a LookupError. A module's section is split: its numbers and the offsets
of its names go on where the kernel's end.
"""

import struct
from collections.abc import Callable, Iterator

import drgn

from pcanel.vmm_import import importable

with importable():
    from vmm.insight.btf_kinds import (
        ARRAY,
        CONST,
        DATASEC,
        DECL_TAG,
        ENUM,
        ENUM64,
        FLOAT,
        FUNC,
        FUNC_PROTO,
        FWD,
        INT,
        MAGIC,
        PTR,
        RESTRICT,
        STRUCT,
        TYPE_TAG,
        TYPEDEF,
        UNION,
        VAR,
        VOLATILE,
    )

_SIGNED, _BOOL = 1, 4  # encodings of INT
_DEPTH = 64  # types that lead to each other without a struct in between
_EXTRA = {INT: 4, VAR: 4, DECL_TAG: 4, ARRAY: 12}
_EACH = {STRUCT: 12, UNION: 12, DATASEC: 12, ENUM64: 12, ENUM: 8, FUNC_PROTO: 8}
_NAMED = {
    drgn.TypeKind.STRUCT: STRUCT,
    drgn.TypeKind.UNION: UNION,
    drgn.TypeKind.ENUM: ENUM,
    drgn.TypeKind.TYPEDEF: TYPEDEF,
    drgn.TypeKind.INT: INT,
    drgn.TypeKind.BOOL: INT,
    drgn.TypeKind.FLOAT: FLOAT,
}
_QUALIFIED = {VOLATILE: drgn.Qualifiers.VOLATILE, CONST: drgn.Qualifiers.CONST, RESTRICT: drgn.Qualifiers.RESTRICT}


class Btf:
    """The types of one section for one drgn.Program."""

    def __init__(self, prog: drgn.Program, data: bytes, below: "Btf | None" = None):
        """below: the kernel's, for a module's section. ValueError where this is no BTF."""
        try:
            magic, version, _, head, types, types_size, strings, strings_size = struct.unpack_from("<HBBIIIII", data)
        except struct.error:
            magic = 0
        if magic != MAGIC or version != 1:
            raise ValueError("the kernel's BTF does not begin as BTF does")
        self._prog = prog
        self._data = data[head + types : head + types + types_size]
        self._strings = data[head + strings : head + strings + strings_size]
        self._below = below
        self._first = below.end if below else 1  # the number of the first type in this section
        self._names_from = below.names_end if below else 0
        self._at: list[int] = []
        self._by_name: dict[int, list[int]] = {}
        self._enums: list[int] = []
        self._types: dict[int, drgn.Type] = {}
        self._depth = 0
        self.variables: list[int] = []
        self._constants: dict[str, tuple[int, int]] | None = None
        self._index()

    def _index(self) -> None:
        """Where each type is, and which have a name."""
        data, at, end = self._data, 0, len(self._data)
        unpack = struct.Struct("<II").unpack_from
        while at + 12 <= end:
            name, info = unpack(data, at)
            number = self.end
            self._at.append(at)
            kind = info >> 24 & 31
            if name:
                self._by_name.setdefault(name, []).append(number)
            if kind in (ENUM, ENUM64):
                self._enums.append(number)
            elif kind == VAR:
                self.variables.append(number)
            at += 12 + _EXTRA.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)

    @property
    def end(self) -> int:
        """The number behind the last type."""
        return self._first + len(self._at)

    @property
    def names_end(self) -> int:
        """The offset behind the last name."""
        return self._names_from + len(self._strings)

    def _record(self, number: int) -> tuple[int, int, int, int, int, int]:
        """(kind, flag, vlen, name, size or type, where its parts begin)."""
        if not self._first <= number < self.end:
            raise LookupError(f"the kernel's BTF has no type {number}")
        at = self._at[number - self._first]
        name, info, size = struct.unpack_from("<III", self._data, at)
        return info >> 24 & 31, info >> 31, info & 0xFFFF, name, size, at + 12

    def _name(self, offset: int) -> str | None:
        if not offset:
            return None
        if self._below and offset < self._names_from:
            return self._below._name(offset)
        offset -= self._names_from
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode(errors="replace") if end >= 0 else None

    def _offset(self, name: str) -> int | None:
        """Where a name stands in the section's own strings."""
        text = name.encode() + b"\0"
        if self._strings.startswith(text):
            return self._names_from
        at = self._strings.find(b"\0" + text)
        return self._names_from + at + 1 if at >= 0 else None

    def _numbers(self, name: str) -> list[int]:
        """The section's own types of a name, which may stand in the kernel's strings."""
        places = [self._offset(name)] + ([self._below._offset(name)] if self._below else [])
        return [number for place in places if place is not None for number in self._by_name.get(place, [])]

    def _parts(self, format: str, count: int, at: int) -> Iterator[tuple]:
        size = struct.calcsize(format)
        if at + count * size > len(self._data):
            raise LookupError("a type of the kernel's BTF is cut short")
        return struct.iter_unpack(format, self._data[at : at + count * size])

    # -- what drgn asks for

    def find_type(self, kinds, name: str) -> drgn.Type | None:
        """The first type of a name and of one of some drgn.TypeKinds; one that is only declared comes last."""
        wanted = {_NAMED[kind] for kind in kinds if kind in _NAMED}
        if ENUM in wanted:
            wanted.add(ENUM64)
        for number in self._numbers(name):
            kind = self._record(number)[0]
            if kind in wanted:
                made = self.type(number)
                if kind != INT or made.kind in kinds:
                    return made
        return None

    def find_constant(self, name: str) -> drgn.Object | None:
        """An enumerator."""
        if self._constants is None:
            self._constants = {}
            for number in self._enums:
                for text, value in self._enumerators(number):
                    self._constants.setdefault(text, (number, value))
        found = self._constants.get(name)
        return drgn.Object(self._prog, self.type(found[0]), found[1]) if found else None

    def find_function(self, name: str) -> drgn.Type | None:
        """The type of a function."""
        for number in self._numbers(name):
            kind, _, _, _, target, _ = self._record(number)
            if kind == FUNC:
                return self.type(target)
        return None

    def find_variable(self, name: str) -> drgn.Type | None:
        """The type of a variable; BTF has those of per-CPU variables only."""
        for number in self._numbers(name):
            kind, _, _, _, target, _ = self._record(number)
            if kind == VAR:
                return self.type(target)
        return None

    # -- types

    def type(self, number: int) -> drgn.Type:
        """The drgn.Type of a number. LookupError."""
        if number == 0:
            return self._prog.void_type()
        if self._below and number < self._first:
            return self._below.type(number)
        made = self._types.get(number)
        if made is None:
            if self._depth > _DEPTH:
                raise LookupError("types of the kernel's BTF lead to each other without end")
            self._depth += 1
            try:
                made = self._types[number] = self._make(number)
            except struct.error as error:
                raise LookupError("a type of the kernel's BTF is cut short") from error
            finally:
                self._depth -= 1
        return made

    def _make(self, number: int) -> drgn.Type:
        prog = self._prog
        kind, flag, count, name_at, size, at = self._record(number)
        name = self._name(name_at)
        if kind == INT:
            return self._integer(name or "", size, at)
        if kind == PTR:
            return prog.pointer_type(self.type(size))
        if kind == ARRAY:
            element, _, length = struct.unpack_from("<III", self._data, at)
            return prog.array_type(self.type(element), length or None)
        if kind == STRUCT:
            return prog.struct_type(name, size, self._members(count, flag, at))
        if kind == UNION:
            return prog.union_type(name, size, self._members(count, flag, at))
        if kind in (ENUM, ENUM64):
            values = self._enumerators(number)
            return prog.enum_type(name, self._base(size, values, flag), [drgn.TypeEnumerator(*each) for each in values])
        if kind == FWD:
            return prog.union_type(name) if flag else prog.struct_type(name)
        if kind == TYPEDEF:
            return prog.typedef_type(name or "", self.type(size))
        if kind in _QUALIFIED:
            target = self.type(size)
            return target.qualified(target.qualifiers | _QUALIFIED[kind])
        if kind == FUNC_PROTO:
            return self._prototype(count, size, at)
        if kind == FLOAT:
            return prog.float_type(name or "", size)
        if kind in (TYPE_TAG, DECL_TAG, FUNC):
            return self.type(size)
        raise LookupError(f"the kernel's BTF has a type of kind {kind}")

    def _integer(self, name: str, size: int, at: int) -> drgn.Type:
        encoding = self._data[at + 3]
        if encoding & _BOOL:
            return self._prog.bool_type(name, size)
        return self._prog.int_type(name, size, bool(encoding & _SIGNED))

    def _base(self, size: int, values: list[tuple[str, int]], flag: int) -> drgn.Type:
        signed = bool(flag) or any(value < 0 for _, value in values)
        name = {1: "char", 2: "short", 4: "int"}.get(size, "long")
        return self._prog.int_type(name if signed else "unsigned " + name, size, signed)

    def _enumerators(self, number: int) -> list[tuple[str, int]]:
        kind, flag, count, _, _, at = self._record(number)
        if kind == ENUM:
            return [(self._name(name) or "", value) for name, value in self._parts("<Ii", count, at)]
        values = [(self._name(name) or "", low | high << 32) for name, low, high in self._parts("<III", count, at)]
        return [(name, value - (1 << 64) if flag and value >> 63 else value) for name, value in values]

    def _members(self, count: int, flag: int, at: int) -> list[drgn.TypeMember]:
        members = []
        for name, number, offset in self._parts("<III", count, at):
            bits = offset >> 24 if flag else 0
            offset = offset & 0xFFFFFF if flag else offset
            members.append(drgn.TypeMember(self._member(number, bits), self._name(name), offset))
        return members

    def _member(self, number: int, bits: int) -> Callable[[], drgn.Type | drgn.Object]:
        if bits:
            return lambda: drgn.Object(self._prog, self.type(number), bit_field_size=bits)
        return lambda: self.type(number)

    def _prototype(self, count: int, result: int, at: int) -> drgn.Type:
        parts = list(self._parts("<II", count, at))
        variadic = bool(parts) and parts[-1] == (0, 0)
        parameters = [
            drgn.TypeParameter(lambda number=number: self.type(number), self._name(name))
            for name, number in (parts[:-1] if variadic else parts)
        ]
        return self._prog.function_type(self.type(result), parameters, variadic)
