"""kallsyms: a Linux kernel's own table of its symbols, read where it lies in the guest's memory.

    names        each symbol's text in the order of addresses: its length (one byte, or two where bit 7 is set), then
                 that many numbers of tokens; spelled out it is a letter for the type, and the name
    markers      u32: the offset in `names` of every 256th symbol
    token_table  256 strings that end with 0;  token_index  u16: their offsets
    seqs         3 bytes each, big endian: the symbols' numbers in the order of names (Linux 6.2 on, and Debian's 6.1)
    offsets      i32: their addresses, in one of three forms (below)

Nothing is copied and no index is made: names are found by binary search in `seqs`, addresses in `offsets`. Where the
tables lie is read from VMCOREINFO (from Linux 6.0 on) or searched (kallsyms_search.py); their layout follows from their
contents: up to 6.3 `offsets` is the first of them, from 6.4 on it comes behind the tokens. The guest's tables are
checked before use; if they are invalid the names are wrong, or ValueError is raised. Source: Linux, scripts/kallsyms.c
and kernel/kallsyms.c.
"""

import struct

import micropython
from micropython import const

from vmm.insight.kallsyms_names import LONGEST, lower_bound, next_called, next_containing, skip, spell
from vmm.vtx.x86 import PAGE

# Forms of `offsets`
PERCPU = const(0)  # address = o where o >= 0 (per-CPU), else relative_base - 1 - o: until 6.14
RELATIVE = const(1)  # address = relative_base + o, unsigned: 6.15 to 6.19, 32-bit kernels, those for one CPU
SELF = const(2)  # address = that of o itself + o: from 7.0 on

_MOST = const(1 << 20)  # symbols
_SAME = const(4096)  # symbols of one name: Debian's kernels have some hundred __func__.0
_TOKENS = const(1 << 14)  # bytes of token_table, at most
_SIGN = const(0x80000000)
_WRAP = const(0x100000000)
_SAMPLES = const(8)
_ALIASES = const(256)  # symbols of one address
_AROUND = const(16)  # neighbours among which similar names are looked for
_PORTION = const(4096)  # symbols scanned in one piece
DATA = "BDGRSVbdgrsv"  # types of symbols that are no code, as nm(1) has them


@micropython.viper
def _last(offsets: ptr32, count: int, form: int, target: int) -> int:
    """The number of the last symbol at or below `target` (Kallsyms._target); -1 where all are above."""
    low = 0
    high = count
    while low < high:
        middle = (low + high) >> 1
        value = int(offsets[middle])
        if form != RELATIVE and value & _SIGN:
            value -= _WRAP
        if form == PERCPU:
            value = -1 - value if value < 0 else value - _SIGN
        elif form == SELF:
            value += 4 * middle
        if value <= target:
            low = middle + 1
        else:
            high = middle
    return low - 1


def align_up(gva, to):
    """The first multiple of `to`, a power of two, from gva on."""
    return (gva + to - 1) & ~(to - 1)


class Kallsyms:
    """The symbols of a kernel. len() is their number. Addresses are unsigned gvas; names are text."""

    def __init__(self, image):
        """image: vmm.insight.vmcoreinfo.Image. ValueError says what is wrong with its tables."""
        for name in ("names", "num_syms", "token_table", "token_index", "offsets"):
            if not image.has("kallsyms_" + name):
                raise ValueError("Linux %s does not say in VMCOREINFO where its symbols are" % image.release)
        self._image = image
        self._count = count = struct.unpack_from("<I", image.view(image.symbol("kallsyms_num_syms"), 4))[0]
        if not 0 < count <= _MOST:
            raise self._invalid("%d symbols" % count)
        self._names_at = image.symbol("kallsyms_names")
        self._tokens_at = image.symbol("kallsyms_token_table")
        self._offsets_at = image.symbol("kallsyms_offsets")
        names = image.view(self._names_at, count * LONGEST, count)
        self._tokens = image.view(self._tokens_at, _TOKENS, 1)
        self._index = image.view(image.symbol("kallsyms_token_index"), 512)
        self._offsets = image.view(self._offsets_at, 4 * count)
        self._out = bytearray(LONGEST)
        end = self._find_markers(names)
        self._names = names[:end]
        self._find_form()
        self._seqs = self._find_seqs()

    def __len__(self):
        return self._count

    def _invalid(self, what):
        return ValueError("the symbols of Linux %s are invalid: %s" % (self._image.release, what))

    # -- where things are

    def _find_markers(self, names):
        """Walk all names once; the markers are behind them. Return where the names end."""
        count = self._count
        first = skip(names, 0, len(names), min(count, 256))
        end = skip(names, first, len(names), count - min(count, 256)) if first >= 0 else -1
        if end < 0:
            raise self._invalid("names end outside of memory")
        number = (count + 255) >> 8
        for align in (4, 8):
            at = align_up(self._names_at + end, align)
            markers = self._image.view(at, 4 * number)
            start = struct.unpack_from("<I", markers)[0]
            if start == 0 and (number == 1 or struct.unpack_from("<I", markers, 4)[0] == first):
                self._markers = markers
                self._markers_end = at + 4 * number
                return end
        raise self._invalid("no markers behind the names")

    def _find_form(self):
        image = self._image
        self._base = 0
        if not image.has("kallsyms_relative_base"):
            self._form = SELF
            return
        self._base_at = image.symbol("kallsyms_relative_base")
        width = image.bits >> 3
        self._base = int.from_bytes(bytes(image.view(self._base_at, width)), "little")
        last = struct.unpack_from("<i", self._offsets, 4 * (self._count - 1))[0]
        self._form = PERCPU if last < 0 else RELATIVE

    def _find_seqs(self):
        """The table of names in their order, or None where this kernel has none."""
        size = 3 * self._count
        if self._offsets_at < self._names_at:
            start = self._markers_end
            if self._tokens_at - start < size:
                return None
        elif self._form == SELF:
            start = self._offsets_at + 4 * self._count
        else:
            start = self._base_at + (self._image.bits >> 3)
        for align in (4, 8):
            try:
                seqs = self._image.view(align_up(start, align), size)
                if self._is_sorted(seqs):
                    return seqs
            except ValueError:
                pass
        return None

    def _is_sorted(self, seqs):
        before = b""
        for i in range(_SAMPLES):
            name = self._name(self._sequence(seqs, i * (self._count - 1) // (_SAMPLES - 1)))
            if name < before:
                return False
            before = name
        return True

    # -- one symbol

    def _sequence(self, seqs, i):
        number = seqs[3 * i] << 16 | seqs[3 * i + 1] << 8 | seqs[3 * i + 2]
        if number >= self._count:
            raise self._invalid("number %d of %d" % (number, self._count))
        return number

    def _name(self, number):
        """The name of a symbol, a bytearray; its type is in _out[0] then."""
        at = 4 * (number >> 8)
        markers = self._markers
        at = markers[at] | markers[at + 1] << 8 | markers[at + 2] << 16 | markers[at + 3] << 24
        names = self._names
        tokens = self._tokens
        length = spell(names, at, len(names), number & 255, tokens, len(tokens), self._index, self._out)
        if length < 1:
            raise self._invalid("symbol %d has no name" % number)
        return self._out[1:length]

    def _address(self, number):
        offset = struct.unpack_from("<I", self._offsets, 4 * number)[0]
        form = self._form
        if form == RELATIVE:
            return (self._base + offset) & self._image.mask
        if offset & _SIGN:
            offset -= _WRAP
        if form == SELF:
            return (self._offsets_at + 4 * number + offset) & self._image.mask
        return offset if offset >= 0 else (self._base - 1 - offset) & self._image.mask

    def _target(self, gva):
        """The number that _last() compares: a small integer in the order of addresses."""
        if self._form == SELF:
            return gva - self._offsets_at
        return gva - self._base

    # -- many

    def _lower(self, name):
        """The place in seqs of the first name that is not before `name` (bytes)."""
        names = self._names
        tokens = self._tokens
        at = lower_bound(
            self._seqs, self._count, names, len(names), self._markers, tokens, len(tokens), self._index, name, len(name)
        )
        if at < 0:
            raise self._invalid("the order of names leads outside of the names")
        return at

    def _containing(self, needle):
        """(number, name as bytearray) of each symbol with these bytes in its name, by address."""
        needle = needle[:64]
        wanted = bytes((len(needle),)) + needle
        for number, length in self._found(next_containing, self._out, wanted):
            yield number, self._out[1:length]

    def _called(self, key):
        """The number of each symbol of a name (bytes), by address. All names are compared."""
        for number, _ in self._found(next_called, key, len(key)):
            yield number

    def _found(self, following, *key):
        """(number, what following() returns) of each symbol that next_containing() or next_called() finds."""
        place = bytearray(8)
        names = self._names
        tokens = self._tokens
        at = done = 0
        while done < self._count:
            portion = min(_PORTION, self._count - done)
            struct.pack_into("<II", place, 0, at, portion)
            found = following(place, names, len(names), tokens, len(tokens), self._index, *key)
            at, left = struct.unpack("<II", place)
            done += portion - left
            if found:
                yield done - 1, found
            elif left:
                break

    def _numbers(self, name):
        """The numbers of all symbols of a name; by address, or in the order of `seqs`."""
        key = name.encode()
        found = []
        if self._seqs is None:
            for number in self._called(key):
                found.append(number)
                if len(found) == _SAME:
                    break
            return found
        at = self._lower(key)
        while at < self._count and len(found) < _SAME:
            number = self._sequence(self._seqs, at)
            if self._name(number) != key:
                break
            found.append(number)
            at += 1
        return found

    def lookup(self, name):
        """Addresses of all symbols of a name, ascending."""
        return sorted([self._address(number) for number in self._numbers(name)])

    def is_data(self, name, gva):
        """Whether the symbol of a name at an address is known to be no code."""
        for number in self._numbers(name):
            if self._address(number) == gva:
                self._name(number)
                return chr(self._out[0]) in DATA
        return False

    def around(self, gva):
        """(name, address, address of the next symbol or None) of the symbol that a gva lies in; None: in no symbol.

        Of several at one address it is the first, as the kernel's own messages have it.
        """
        target = self._target(gva)
        if not -_SIGN * 2 < target < _SIGN * 2 or not self._image.near(gva):
            return None
        form = self._form
        number = _last(self._offsets, self._count, form, target)
        if number < 0 or (form == PERCPU and target < 0):
            return None
        address = self._address(number)
        if address > gva:
            raise self._invalid("addresses are not in order")
        first = number
        while first and number - first < _ALIASES and self._address(first - 1) == address:
            first -= 1
        end = self._address(number + 1) if number + 1 < self._count else None
        if end is None and gva - address >= PAGE:  # the last one marks the end of the image
            return None
        return _text(self._name(first)), address, end

    def similar(self, name):
        """Names to choose the nearest from: some that begin as `name` does, or its neighbours by name."""
        key = name.encode()
        if self._seqs is None:
            texts = []
            for _, text in self._containing(key[: max(3, len(key) // 2)]):
                texts.append(_text(text))
                if len(texts) == 2 * _AROUND:
                    break
            return texts
        at = self._lower(key)
        around = range(max(0, at - _AROUND), min(self._count, at + _AROUND))
        return [_text(self._name(self._sequence(self._seqs, i))) for i in around]

    def starting(self, prefix):
        """(name, address) of each symbol whose name starts so; by name where the kernel has an order of names."""
        key = prefix.encode()
        if not key or self._seqs is None:
            for number, text in self._containing(key):
                if text.startswith(key):
                    yield _text(text), self._address(number)
            return
        for at in range(self._lower(key), self._count):
            number = self._sequence(self._seqs, at)
            text = self._name(number)
            if not text.startswith(key):
                return
            yield _text(text), self._address(number)

    def containing(self, part):
        """(name, address) of each symbol with `part` in its name, by address. All names are compared."""
        for number, text in self._containing(part.encode()):
            yield _text(text), self._address(number)


def _text(name):
    """The guest's bytes as text without control characters."""
    return "".join([chr(byte) if 32 < byte < 127 else "?" for byte in name])
