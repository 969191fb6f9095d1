"""A System.map, or what `nm -n` prints: names of a kernel as text, a line each, by address.

    ffffffff81355c40 t do_sys_openat2

Nothing is copied: an address is found by binary search, a name by reading from the beginning. Source: nm(1).
"""

import cpu
import micropython
from micropython import const

from vmm.insight.kallsyms import DATA

_LONGEST = const(600)  # bytes of a line
_SAME = const(4096)  # symbols of one name
_LOOK = const(512)  # bytes between two calls of cpu.look(), where due guests of higher priority preempt


@micropython.viper
def _ending(text: ptr8, at: int, size: int, key: ptr8, wanted: int) -> int:
    """The offset, from `at` on, of the next line that ends with key[:wanted] and a line feed; -1 for none."""
    last = key[wanted - 1]
    start = at
    look = cpu.look
    while at < size:
        if at & (_LOOK - 1) == 0:
            look()
        if text[at] == 10:
            if at - start > wanted and text[at - 1] == last:
                i = 0
                while i < wanted and text[at - wanted + i] == key[i]:
                    i += 1
                if i == wanted:
                    return start
            start = at + 1
        at += 1
    return -1


class SystemMap:
    """Names of a file in `blob`, which ends with a line feed; `name` is for errors."""

    def __init__(self, name, blob):
        self.name = name
        self._text = memoryview(blob)
        if self._line(0) is None:
            raise ValueError("%s is neither an ELF file nor a System.map" % name)

    def __len__(self):
        return sum([1 for _ in self._all()])

    def _line(self, at):
        """(address, name, offset of the next line) of the line at an offset; None: no such line."""
        words = bytes(self._text[at : at + _LONGEST]).split(b"\n", 1)
        fields = words[0].split()
        if len(words) < 2 or len(fields) < 3 or len(fields[1]) != 1:
            return None
        try:
            gva = int(fields[0], 16)
        except ValueError:
            return None
        return gva, "".join([chr(byte) if 32 < byte < 127 else "?" for byte in fields[2]]), at + len(words[0]) + 1

    def _all(self):
        at = 0
        while True:
            line = self._line(at)
            if line is None:
                return
            yield line[1], line[0]
            at = line[2]

    def _called(self, name):
        """(address, offset of its line) of each symbol of a name."""
        key = b" " + name.encode()
        found = []
        at = 0
        while len(found) < _SAME:
            at = _ending(self._text, at, len(self._text), key, len(key))
            line = self._line(at) if at >= 0 else None
            if line is None:
                break
            if line[1] == name:
                found.append((line[0], at))
            at = line[2]
        return found

    def lookup(self, name):
        """Addresses of all symbols of a name, ascending."""
        return sorted([gva for gva, _ in self._called(name)])

    def is_data(self, name, gva):
        """Whether the symbol of a name at an address is known to be no code."""
        for there, at in self._called(name):
            if there == gva:
                return bytes(self._text[at : at + _LONGEST]).split()[1].decode() in DATA
        return False

    def _start(self, at):
        """The offset at which the line of an offset begins."""
        least = max(0, at - _LONGEST)
        while at > least and self._text[at - 1] != 10:
            at -= 1
        return at

    def around(self, gva):
        """(name, address, end) of the symbol that a gva lies in; None: in no symbol. The last one has no end."""
        low = 0
        high = len(self._text)
        best = None
        while low < high:
            line = self._line(self._start((low + high) >> 1))
            if line is None:
                high = self._start((low + high) >> 1)
            elif line[0] <= gva:
                best = line
                low = line[2]
            else:
                high = self._start((low + high) >> 1)
        if best is None:
            return None
        following = self._line(best[2])
        if following is None and gva != best[0]:
            return None
        return best[1], best[0], following[0] if following else None

    def similar(self, name):
        """Names to choose the nearest from: those that begin as `name` does."""
        return [other for other, _ in self.starting(name[: max(3, len(name) // 2)])]

    def starting(self, prefix):
        """(name, address) of each symbol whose name starts so, by address."""
        for name, gva in self._all():
            if name.startswith(prefix):
                yield name, gva

    def containing(self, part):
        """(name, address) of each symbol with `part` in its name, by address."""
        for name, gva in self._all():
            if part in name:
                yield name, gva
