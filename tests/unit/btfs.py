"""Makes BTF sections for tests, after the kernel's Documentation/bpf/btf.rst, and puts them into memory."""

import struct

from support import Memory

from vmm.insight.btf import Btf
from vmm.insight.btf_kinds import ARRAY, ENUM, ENUM64, INT, PTR, STRUCT, TYPEDEF, UNION  # noqa: F401
from vmm.insight.types import Types

AT = 0x2004  # odd to the page, as in a kernel


class Section:
    """Types in the order of add(), whose IDs it returns."""

    def __init__(self):
        self.types = []
        self.strings = b"\0"

    def name(self, text):
        if not text:
            return 0
        at = self.strings.find(b"\0" + text.encode() + b"\0")
        if at >= 0:
            return at + 1
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(self, kind, name="", size=0, parts=(), words=(), flag=0):
        record = struct.pack("<III", self.name(name), flag << 31 | kind << 24 | len(parts), size)
        for part in parts:
            record += struct.pack("<%dI" % len(part), *part)
        self.types.append(record + struct.pack("<%dI" % len(words), *words))
        return len(self.types)

    def integer(self, name, size, encoding=0):
        return self.add(INT, name, size, words=[encoding << 24 | 8 * size])

    def array(self, element, length):
        return self.add(ARRAY, words=[element, 1, length])

    def struct(self, name, size, members, kind=STRUCT, flag=0):
        return self.add(kind, name, size, [(self.name(n), t, o) for n, t, o in members], flag=flag)

    def blob(self):
        types = b"".join(self.types)
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings))
        return header + types + self.strings


class Space:
    """An address space in which an address is its own gpa."""

    def __init__(self, memory):
        self.memory = memory

    def translate(self, gva):
        return gva

    def read(self, gva, size):
        return self.memory.read(gva, size)

    def number(self, gva, size):
        return int.from_bytes(self.memory.read(gva, size), "little")


class Guest(Memory):
    """GuestMemory's protocol for Btf, over 64 KiB."""

    def hpa(self, gpa, size=1):
        self.view(gpa, size)
        low, high = self.table[4], self.table[5]
        return (low | high << 32) + gpa


def types(blob):
    """(Types, Space) over a section in a memory of 64 KiB."""
    memory = Guest(1 << 16)
    memory.write(AT, blob)
    space = Space(memory)
    return Types(Btf(memory, space.translate, AT, len(blob))), space
