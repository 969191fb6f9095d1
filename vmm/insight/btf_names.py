"""An index by name of the types in a BTF section: a hash table of the kinds that are looked up by name.

A slot holds the number of the mark before the type (vmm/insight/btf.py: one for 32 types), so that 16 bits suffice; the
types behind the mark are compared. The table is made at the first look-up, in one walk over all types; a look-up then
compares some 50 of them.
"""

import cpu
import micropython
from micropython import const

from vmm.insight.btf_walk import KINDS, RECORD, STRIDE

# INT, STRUCT, UNION, ENUM, TYPEDEF, FLOAT, ENUM64
_INDEXED = const(1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 16 | 1 << 19)
_MOST_BITS = const(17)
_LEAST_BITS = const(8)
_MARKS = const(0xFFFE)
_PROBES = const(256)
_LONGEST = const(256)  # characters of a name


def indexed(kind):
    """Whether types of a kind are in the index."""
    return bool(_INDEXED >> kind & 1)


class Names:
    """The index of one section. It keeps no host-physical address: the guest's memory may be freed."""

    def __init__(self, types, length, strings, string_length, shape, marks, count):
        bits = _LEAST_BITS
        while bits < _MOST_BITS and 1 << bits < count >> 2:  # a sixth has a name, in Debian's kernels
            bits += 1
        made = -1
        while made < 0 and bits <= _MOST_BITS and len(marks) <= _MARKS:
            self._mask = (1 << bits) - 1
            self._slots = None
            self._slots = bytearray(2 << bits)  # 16-bit words
            made = _index(types, length, strings, string_length, shape, self._slots, self._mask)
            bits += 1
        if made < 0:
            raise ValueError("BTF: %d types have too many names" % count)

    def marks(self, name):
        """Yield the numbers of the marks behind which a type of this name may be; each once."""
        at = _hash_of(name, len(name)) & self._mask
        yielded = []
        for _ in range(_PROBES):
            mark = self._slots[2 * at] | self._slots[2 * at + 1] << 8
            if not mark:
                return
            if mark not in yielded:
                yielded.append(mark)
                yield mark - 1
            at = at + 1 & self._mask


@micropython.viper
def _hash_of(name: ptr8, size: int) -> int:
    """The hash of a name, as _index() computes it."""
    value = 0
    i = 0
    while i < size:
        value = (value * 31 + name[i]) & 0xFFFFFFFF
        i += 1
    return (value ^ value >> 15) & 0xFFFFFFFF


@micropython.viper
def _index(types: int, length: int, strings: int, string_length: int, shape: ptr8, slots: ptr16, mask: int) -> int:
    """Enter each type of an indexed kind that has a name; -1: the table is too small, or a type is broken."""
    at = 0
    count = 0
    look = cpu.look
    wanted = int(_INDEXED)
    free = mask - (mask >> 3)
    while at < length:
        if count & (STRIDE - 1) == 0:
            look()  # due guests of higher priority preempt here
        record = ptr32(types + at)
        info = int(record[1])
        kind = info >> 24 & 31
        if at + RECORD > length or kind == 0 or kind >= KINDS:
            return -1
        offset = int(record[0])
        if wanted >> kind & 1 and 0 < offset and offset < string_length:
            text = ptr8(strings + offset)
            end = string_length - offset
            if end > _LONGEST:
                end = _LONGEST
            value = 0
            i = 0
            letter = int(text[0])
            while letter and i < end:
                value = (value * 31 + letter) & 0xFFFFFFFF
                i += 1
                letter = int(text[i])
            slot = (value ^ value >> 15) & mask
            mark = (count // STRIDE) + 1
            while slots[slot] and int(slots[slot]) != mark:
                slot = slot + 1 & mask
            if not slots[slot]:
                free -= 1
                if free < 0:
                    return -1
                slots[slot] = mark
        at += RECORD + int(shape[kind]) + int(shape[KINDS + kind]) * (info & 0xFFFF)
        count += 1
    return count
