"""Keys: the second step of the dispatch, from one word of the frame to a handler of its own.

A port, an MSR or a CPUID leaf that is touched often has a slot of the dispatch table for
itself. The shim finds it here (port/vcpu_enter.c) by the reason's word, `offset`, of which
`mask` says what counts, and gives the handler an integer of its own along, the datum. What is
not found goes to the reason's handler.
"""

from array import array

import uctypes
from micropython import const

_FACTOR = const(0x9E3779B1)  # as in port/vcpu.h
_HEADER = const(4)  # words: offset, mask, shift, 0
_ENTRY = const(4)  # words: key, slot, datum, 0
_TAIL = const(16)  # entries behind the last index, so that a search never wraps; the very last stays empty


class Keys:
    """The keys of one exit reason. `hpa` is what the frame names."""

    def __init__(self, offset, mask, bits=7):
        """offset: bytes into the frame. mask: 32 bits. bits: log2 of the entries, of which half are to be used."""
        self._shift = 32 - bits
        self._most = 1 << bits - 1
        self._words = array("I", [0] * (_HEADER + _ENTRY * ((1 << bits) + _TAIL)))
        self._words[0] = offset
        self._words[1] = mask
        self._words[2] = self._shift
        self._count = 0

    @property
    def hpa(self):
        return uctypes.addressof(self._words)

    def put(self, key, slot, datum=0):
        """Let `slot` serve a key. ValueError where there are too many keys."""
        words = self._words
        at = self._first(key)
        end = len(words) - 2 * _ENTRY
        while words[at + 1] and words[at] != key:
            at += _ENTRY
            if at > end:
                raise ValueError("no room for key %#x" % key)
        if not words[at + 1]:
            if self._count == self._most:
                raise ValueError("more than %d keys" % self._most)
            self._count += 1
        words[at] = key
        words[at + 2] = datum
        words[at + 1] = slot

    def find(self, key):
        """Return (slot, datum), or None: what the shim would find."""
        words = self._words
        at = self._first(key)
        while words[at + 1]:
            if words[at] == key:
                return words[at + 1], words[at + 2]
            at += _ENTRY
        return None

    def _first(self, key):
        return _HEADER + _ENTRY * ((key * _FACTOR & 0xFFFFFFFF) >> self._shift)
