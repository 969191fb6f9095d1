"""Linux's system calls: names and arguments by number, from the guest's own tables; one call, decoded.

The kernel keeps the name of each call and the type and name of each argument for its own tracing (syscalls_metadata, of
CONFIG_FTRACE_SYSCALLS, which distributions set); without it the table of calls and the symbols give names, and the
arguments are numbers. So no list of calls has to fit the kernel's version. What the hand-written part adds is how values
look (vmm/insight/linux/values.py).
"""

import struct

from micropython import const

from vmm.insight.objects import text

_ARGUMENTS = const(6)
_MOST = const(1024)  # system calls
_NAME = const(48)  # bytes
_TYPE = const(64)
_PREFIXES = ("__x64_sys_", "__se_sys_", "sys_")
# Names that the C library and strace have for calls that the kernel calls otherwise.
_USUAL = {
    "newstat": "stat", "newlstat": "lstat", "newfstat": "fstat", "newuname": "uname", "sendfile64": "sendfile",
    "umount": "umount2",
}  # fmt: skip


class Signature:
    """name; arguments: ((type, name), ...), or None where they are not known."""

    def __init__(self, name, arguments):
        self.name = name
        self.arguments = arguments

    def __repr__(self):
        if self.arguments is None:
            return self.name + "(...)"
        return "%s(%s)" % (self.name, ", ".join(["%s %s" % pair for pair in self.arguments]))


class Calls:
    """Those of one kernel (vmm/insight/kernel.py). calls[number]: Signature."""

    def __init__(self, space, symbols):
        self._space = space
        self._symbols = symbols
        self._known = {}
        self._table = symbols.get("sys_call_table")
        if self._table is None:
            raise ValueError("the guest's kernel has no symbol sys_call_table: names of its calls are not known")
        _, start, end = symbols.around(self._table)
        self.count = min(((end or start) - start) // 8, _MOST)
        at = symbols.get("syscalls_metadata")
        self._metadata = space.number(at, 8) if at is not None else 0

    def __getitem__(self, number):
        found = self._known.get(number)
        if found is None:
            found = self._find(number)
            if 0 <= number < self.count:
                self._known[number] = found
        return found

    def _find(self, number):
        if not 0 <= number < self.count:
            return Signature("syscall_%#x" % (number & 0xFFFFFFFF), None)
        meta = self._space.number(self._metadata + 8 * number, 8) if self._metadata else 0
        if not meta:
            name = self._symbols.at(self._space.number(self._table + 8 * number, 8)) or ""
            return Signature(_usual(name) or "syscall_%d" % number, () if name.endswith("ni_syscall") else None)
        name, _, count, types, names = struct.unpack("<QiiQQ", self._space.read(meta, 32))
        return Signature(
            _usual(self._text(name, _NAME)),
            tuple(
                [
                    (self._pointed(types, i, _TYPE), self._pointed(names, i, _NAME))
                    for i in range(min(count, _ARGUMENTS))
                ]
            ),
        )

    def _pointed(self, array, index, size):
        return self._text(self._space.number(array + 8 * index, 8), size)

    def _text(self, gva, size):
        data = self._space.read(gva, min(size, 0x1000 - gva % 0x1000))
        if b"\0" not in data:
            data += self._space.read(gva + len(data), size)
        return str(text(data))

    def number(self, name):
        """The number of a call by its name, the kernel's or the usual one. ValueError where there is none."""
        names = [kernels for kernels, usual in _USUAL.items() if usual == name] + [name]
        for wanted in names:
            for number in self._at(wanted):
                return number
        near = self._symbols.search("__x64_sys_%s*" % name[:4], 5)
        there = ", ".join([_usual(found) for found, _ in near])
        raise ValueError("Linux has no system call %s%s" % (name, "; there are " + there if there else ""))

    def _at(self, name):
        """Where the table has the function of a call."""
        table = self._space.read(self._table, 8 * self.count)
        for prefix in _PREFIXES:
            for gva in self._symbols.all(prefix + name):
                code = struct.pack("<Q", gva & 0xFFFFFFFFFFFFFFFF)
                at = table.find(code)
                while at >= 0 and at % 8:
                    at = table.find(code, at + 1)
                if at >= 0:
                    yield at // 8


def _usual(name):
    """A call's usual name by that of its function or of its metadata."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            name = name[len(prefix) :]
            break
    return _USUAL.get(name, name)
