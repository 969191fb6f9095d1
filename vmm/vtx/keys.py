"""Keys: the second step of the dispatch, from the value of one word of the frame to a slot of its own.

A port, an MSR or a CPUID leaf that is accessed often has its own slot of the dispatch table. The exit loop looks it up
here (port/vcpu_enter.c) by the reason's word at `offset`, masked by `mask`, and stores an integer for the handler, the
datum, in the frame. All other values go to the reason's handler.
"""

from array import array

import micropython
import uctypes
from micropython import const

FACTOR = const(0x9E3779B1)  # of the hash
_HEADER = const(4)  # words: offset, mask, shift of an index, shift of an offset in bytes
_ENTRY = const(4)  # words: key, slot, datum, 0
_TAIL = const(16)  # entries behind the last index, so that a search does not wrap around; the last one stays empty


class Keys:
    """The keys of one exit reason. hpa: of the table, for frame.KEYS."""

    def __init__(self, offset, mask, bits=7, default=0):
        """offset: bytes into the frame. mask: 32 bits. bits: log2 of the entries, of which half can be used. default:
        the reason's slot; keys with it are removed when the table is full."""
        self._bits = bits
        self._shift = 32 - bits
        self._most = 1 << bits - 1
        self._default = default
        self._words = array("I", bytes(4 * (_HEADER + _ENTRY * ((1 << bits) + _TAIL))))
        self._words[0] = offset
        self._words[1] = mask
        self._words[2] = self._shift
        self._words[3] = self._shift - 4
        self._count = 0

    @property
    def hpa(self):
        return uctypes.addressof(self._words)

    def grown(self):
        """Return a table of twice the size with the same keys."""
        words = self._words
        larger = Keys(words[0], words[1], self._bits + 1, self._default)
        for at in range(_HEADER, len(words), _ENTRY):
            if words[at + 1]:
                larger.put(words[at], words[at + 1], words[at + 2])
        return larger

    def put(self, key, slot, datum=0):
        """Let `slot` serve a key. ValueError if there are too many keys."""
        if not self._place(key, slot, datum):
            self._purge()
            if not self._place(key, slot, datum):
                raise ValueError("no room for key %#x: there are at most %d keys" % (key, self._most))

    def _place(self, key, slot, datum):
        """Insert or change an entry. Returns whether there was room."""
        words = self._words
        at = _search(words, key)
        if at > len(words) - 2 * _ENTRY:
            return False
        if not words[at + 1]:
            if self._count == self._most:
                return False
            self._count += 1
        words[at] = key
        words[at + 2] = datum
        words[at + 1] = slot
        return True

    def put_many(self, slot, pairs):
        """put() for several keys without a slot. pairs: array("I") of key, datum. ValueError if there is no room, or
        one has a slot."""
        if self._count + len(pairs) // 2 > self._most:
            self._purge()
        room = self._most - self._count
        done = _place_many(self._words, len(self._words) - 2 * _ENTRY, self._default, slot, pairs, len(pairs), room)
        if done < 0:
            raise ValueError("no room for %d keys, or one has a handler already" % (len(pairs) // 2))
        self._count += done

    def _purge(self):
        """Remove the keys of the default slot."""
        words = self._words
        kept = []
        for at in range(_HEADER, len(words), _ENTRY):
            if words[at + 1]:
                if words[at + 1] != self._default:
                    kept.append((words[at], words[at + 1], words[at + 2]))
                words[at + 1] = 0
        self._count = 0
        for entry in kept:
            self._place(*entry)

    def of_slot(self, slot):
        """Yield the keys that a slot serves."""
        words = self._words
        for at in range(_HEADER, len(words), _ENTRY):
            if words[at + 1] == slot:
                yield words[at]

    def find(self, key):
        """Return (slot, datum) of a key, or None."""
        words = self._words
        at = _search(words, key)
        return (words[at + 1], words[at + 2]) if words[at + 1] else None


# In bytecode a guest's 300 keys take 4 million ticks.
@micropython.viper
def _search(words: ptr32, key: int) -> int:
    """The index of a key's entry, or of the free one at which the search ends."""
    at = _HEADER + _ENTRY * (((key * FACTOR) & 0xFFFFFFFF) >> int(words[2]))
    while words[at + 1] and int(words[at]) != key:
        at += _ENTRY
    return at


@micropython.viper
def _place_many(words, last: int, default: int, slot: int, pairs, size: int, room: int) -> int:
    """Insert entries. Returns the number of those that were free; -1: one key has a slot, or there is no room."""
    w = ptr32(words)
    p = ptr32(pairs)
    used = 0
    i = 0
    while i < size:
        key = int(p[i])
        at = _HEADER + _ENTRY * (((key * FACTOR) & 0xFFFFFFFF) >> int(w[2]))
        while w[at + 1] and int(w[at]) != key:
            at += _ENTRY
        if w[at + 1] == 0:
            used += 1
        elif int(w[at + 1]) != default:
            return -1
        if used > room or at > last:
            return -1
        w[at] = key
        w[at + 2] = p[i + 1]
        w[at + 1] = slot
        i += 2
    return used
