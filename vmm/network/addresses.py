"""The address table of a switch, in viper: which address is behind which port."""

import micropython

from vmm.network.words import (
    ENTRIES,
    ENTRY,
    KNOWN,
    TABLE,
    WAYS,
)


@micropython.viper
def find(switch: int, low: int, high: int) -> int:
    """The word of an address's entry in the switch's table, or -1. low: its first four bytes, high: the other two."""
    t = ptr32(switch)
    slot = low >> 16 ^ low >> 24 ^ high
    slot = slot ^ slot >> 8
    high |= KNOWN
    i = 0
    while i < WAYS:
        at = TABLE + ENTRY * (slot + i & ENTRIES - 1)
        if int(t[at]) == low and int(t[at + 1]) == high:
            return at
        i += 1
    return -1


@micropython.viper
def learn(switch: int, low: int, high: int, number: int) -> int:
    """Store that an address is behind port `number`. Returns the word of its entry."""
    t = ptr32(switch)
    at = int(find(switch, low, high))
    if at < 0:
        slot = low >> 16 ^ low >> 24 ^ high
        slot = slot ^ slot >> 8
        i = 0
        while i < WAYS:
            at = TABLE + ENTRY * (slot + i & ENTRIES - 1)
            if t[at + 1] == 0:
                break
            i += 1
        t[at] = low
        t[at + 1] = high | KNOWN
    t[at + 2] = number
    return at
