"""A word with a reference count for each bit: a bit is set while any user needs it."""


class Counted:
    """base: bits that are always set."""

    def __init__(self, base=0):
        self._base = base
        self._needed = {}  # bit: number of users
        self.bits = base  # the bits that are set

    def add(self, bits, count=1):
        """Add `count` users (negative: remove them) of these bits. Returns the bits that change in the word."""
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
