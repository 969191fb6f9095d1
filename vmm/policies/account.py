"""Costs and limits of a policy's calls: words in which cpu.limited() counts, and whose limits it enforces.

Also the flags that vmm/policies/link.py checks before it calls the function.
"""

from array import array

import uctypes
from micropython import const

# Indices of 32-bit words; each is 64 bits wide. port/watch.c has the first four, by port/header.py.
CALL_COUNT = const(0)
CALL_TICKS = const(2)  # host TSC
CALL_LIMIT = const(4)  # host TSC ticks
CALL_HEAP = const(6)  # bytes
FLAGS = const(8)
PLAIN = const(10)  # 1: HANDLED only advances RIP (Event.plain)
EVERY = const(12)  # the policy is called at each N-th exit; 0: at each
SKIPPED = const(14)  # exits since the last call
LEFT = const(16)  # calls that are left; 0: no limit
_WORDS = const(18)

# Bits of FLAGS. While one is set, link.ask() leaves the call to Policy.ask().
DETACHED = const(1 << 0)
PASSES = const(1 << 1)  # it has paused the guest: not called again at that RIP
LAST = const(1 << 2)  # after this call it is detached


class Account:
    """The account of one policy."""

    def __init__(self):
        self.words = array("I", [0] * _WORDS)
        self.address = uctypes.addressof(self.words)

    def get(self, word):
        """The 64-bit value at an index."""
        return self.words[word] | self.words[word + 1] << 32

    def put(self, word, value):
        """Set the 64-bit value at an index."""
        self.words[word] = value & 0xFFFFFFFF
        self.words[word + 1] = value >> 32

    def flag(self, bit, on):
        """Set or clear a bit of FLAGS."""
        self.words[FLAGS] = self.words[FLAGS] | bit if on else self.words[FLAGS] & ~bit
