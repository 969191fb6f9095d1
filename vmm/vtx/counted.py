"""Bits of a word that several parts need: each is set while any of them does."""


class Counted:
    """base: bits that are always set."""

    def __init__(self, base=0):
        self._base = base
        self._needed = {}  # bit: by how many
        self.bits = base  # those that are set

    def add(self, bits, count=1):
        """`count` more, or less, need these bits; returns those that change in the word."""
        changed = 0
        while bits:
            bit = bits & -bits
            bits ^= bit
            before = self._needed.get(bit, 0)
            self._needed[bit] = before + count
            if not before or not before + count:
                changed |= bit
        changed &= ~self._base
        self.bits ^= changed
        return changed
