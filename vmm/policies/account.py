"""What a policy's calls have cost, and what one may take: words that cpu.limited() counts in and goes by.

Also what the way to a policy has to look at before it calls the function (vmm/policies/link.py).
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
PLAIN = const(10)  # 1: HANDLED does no more than move RIP past the instruction (Event.plain)
_WORDS = const(12)

# Bits of FLAGS: the policy is asked by vmm/policies/chain.py, the plain way.
DETACHED = const(1 << 0)
PASSES = const(1 << 1)  # it has paused the guest: it is not asked again at that RIP
NARROWED = const(1 << 2)  # a filter is a function: Event.accepts()


class Account:
    """One policy's."""

    def __init__(self):
        self.words = array("I", [0] * _WORDS)
        self.address = uctypes.addressof(self.words)

    def get(self, word):
        return self.words[word] | self.words[word + 1] << 32

    def put(self, word, value):
        self.words[word] = value & 0xFFFFFFFF
        self.words[word + 1] = value >> 32

    def flag(self, bit, on):
        """Set or clear a bit of FLAGS."""
        self.words[FLAGS] = self.words[FLAGS] | bit if on else self.words[FLAGS] & ~bit
