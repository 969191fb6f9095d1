"""The symbol table of an ELF file that a guest booted (.symtab), read where the boot module lies.

Each look-up reads the whole table, some 40 ticks a symbol. Addresses are those of the file. Limits: symbols of
functions, objects and of no type that have a name and a section, or are absolute. Source: System V ABI, "Sections" and
"Symbol Table".
"""

import struct

import cpu
import micropython
from micropython import const

from vmm.loaders.elf import MAGIC

_SHT_SYMTAB = const(2)
_SHT_STRTAB = const(3)
_MOST_SECTIONS = const(4096)
STT_OBJECT = const(1)
_STT_FUNC = const(2)  # types up to this one are names of addresses
_SHF_EXECINSTR = const(4)
_LONGEST = const(512)
_SAME = const(4096)  # symbols of one name
_LOOK = const(128)  # symbols between two calls of cpu.look()


@micropython.viper
def _named(symbols: ptr8, at: int, size: int, entry: int, info: int, strings: ptr8, room: int, key: ptr8) -> int:
    """The offset of the next symbol from `at` on with the name `key` (which ends with 0); -1 for none."""
    look = cpu.look
    left = 0
    while at + entry <= size:
        if left == 0:
            look()  # due guests of higher priority preempt here
            left = _LOOK
        left -= 1
        if (symbols[at + info] & 15) <= _STT_FUNC and (symbols[at + info + 2] | symbols[at + info + 3]):
            name = symbols[at] | (symbols[at + 1] << 8) | (symbols[at + 2] << 16) | (symbols[at + 3] << 24)
            i = 0
            while name < room and strings[name] == key[i]:
                if key[i] == 0:
                    return at
                i += 1
                name += 1
        at += entry
    return -1


@micropython.viper
def _nearest(words: ptr32, count: int, wide: int, gva: int, above: int) -> int:
    """The number of the symbol nearest to gva: at or below it (of several the largest), or `above` it; -1 for none."""
    best = -1
    nearest = 0
    largest = 0
    at = 0
    i = 0
    look = cpu.look
    while i < count:
        if i & (_LOOK - 1) == 0:
            look()
        if wide:
            kind = words[at + 1]
            value = words[at + 2] | (words[at + 3] << 32)
            size = words[at + 4]
        else:
            kind = words[at + 3]
            value = words[at + 1]
            size = words[at + 2]
        if words[at] and (kind & 15) <= _STT_FUNC and (kind >> 16):
            away = value - gva if above else gva - value
            if away >= above and (best < 0 or away < nearest or (away == nearest and size > largest)):
                best = i
                nearest = away
                largest = size
        at += 6 if wide else 4
        i += 1
    return best


class ElfSymbols:
    """Names of an ELF file in `blob`; `name` is for errors. len() is the number of its symbols."""

    def __init__(self, name, blob):
        self.name = name
        self._blob = blob = memoryview(blob)
        if len(blob) < 64 or bytes(blob[:4]) != MAGIC or blob[4] not in (1, 2) or blob[5] != 1:
            raise ValueError("%s is no ELF file: it has no symbols" % name)
        wide = blob[4] == 2
        self._entry, self._info = (24, 4) if wide else (16, 12)
        start = struct.unpack_from("<Q" if wide else "<I", blob, 40 if wide else 32)[0]
        size, count = struct.unpack_from("<HH", blob, 58 if wide else 46)
        headers = "<IIQQQQII" if wide else "<IIIIIIII"
        sections = []
        self._flags = []  # of the sections
        if size < (64 if wide else 40) or start + size * count > len(blob):
            count = 0
        for i in range(min(count, _MOST_SECTIONS)):
            fields = struct.unpack_from(headers, blob, start + i * size)
            sections.append((fields[1], fields[4], fields[5], fields[6]))
            self._flags.append(fields[2])
        for kind, offset, length, link in sections:
            if kind == _SHT_SYMTAB and link < len(sections) and sections[link][0] == _SHT_STRTAB:
                self._symbols = self._piece(offset, length - length % self._entry)
                self._strings = self._piece(sections[link][1], sections[link][2])
                return
        raise ValueError("%s has no symbol table" % name)

    def _piece(self, offset, length):
        if offset + length > len(self._blob):
            raise ValueError("%s is cut off: its symbol table is missing" % self.name)
        return self._blob[offset : offset + length]

    def __len__(self):
        return len(self._symbols) // self._entry

    def _fields(self, at):
        """(offset of the name, address, size)."""
        if self._entry == 24:
            name, _, _, _, address, size = struct.unpack_from("<IBBHQQ", self._symbols, at)
        else:
            name, address, size = struct.unpack_from("<III", self._symbols, at)
        return name, address, size

    def _text(self, name):
        end = name
        strings = self._strings
        limit = min(len(strings), name + _LONGEST)
        while end < limit and strings[end]:
            end += 1
        return "".join([chr(byte) if 32 < byte < 127 else "?" for byte in strings[name:end]])

    def _all(self):
        """(name, address, size) of each."""
        symbols = self._symbols
        info = self._info
        for at in range(0, len(symbols) - self._entry + 1, self._entry):
            if symbols[at + info] & 15 <= _STT_FUNC and (symbols[at + info + 2] or symbols[at + info + 3]):
                name, address, size = self._fields(at)
                if name and name < len(self._strings) and self._strings[name]:
                    yield self._text(name), address, size

    def _called(self, name):
        """The offsets of the symbols of a name."""
        symbols, strings = self._symbols, self._strings
        key = name.encode() + b"\0"
        found = []
        at = 0
        while len(found) < _SAME and name:
            at = _named(symbols, at, len(symbols), self._entry, self._info, strings, len(strings), key)
            if at < 0:
                break
            found.append(at)
            at += self._entry
        return found

    def lookup(self, name):
        """Addresses of all symbols of a name, ascending."""
        return sorted(set([self._fields(at)[1] for at in self._called(name)]))

    def is_data(self, name, gva):
        """Whether the symbol of a name at an address is known to be no code: by its type, else by its section."""
        for at in self._called(name):
            if self._fields(at)[1] == gva:
                kind = self._symbols[at + self._info] & 15
                section = struct.unpack_from("<H", self._symbols, at + self._info + 2)[0]
                if kind or section >= len(self._flags):
                    return kind == STT_OBJECT
                return not self._flags[section] & _SHF_EXECINSTR
        return False

    def around(self, gva):
        """(name, address, end) of the symbol that a gva lies in; None: in no symbol. Where the file does not say a
        symbol's size it ends at the next one."""
        wide = self._entry == 24
        number = _nearest(self._symbols, len(self), wide, gva, 0)
        if number < 0:
            return None
        name, address, size = self._fields(number * self._entry)
        end = address + size
        if not size:
            number = _nearest(self._symbols, len(self), wide, gva, 1)
            end = self._fields(number * self._entry)[1] if number >= 0 else None
        if address > gva or (gva != address if end is None else gva >= end):
            return None
        return self._text(name), address, end

    def similar(self, name):
        """Names to choose the nearest from: all."""
        return [text for text, _, _ in self._all()]

    def starting(self, prefix):
        """(name, address) of each symbol whose name starts so, in the file's order."""
        for name, address, _ in self._all():
            if name.startswith(prefix):
                yield name, address

    def containing(self, part):
        """(name, address) of each symbol with `part` in its name, in the file's order."""
        for name, address, _ in self._all():
            if part in name:
                yield name, address
