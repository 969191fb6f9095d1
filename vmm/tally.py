"""Counts of accesses that no handler or device answers.

Beyond LIMIT different keys, new ones are counted together, so that a guest cannot fill the monitor's heap. A key that
is not in a full table is compared with all keys in one go, which cannot be preempted; LIMIT bounds that too.
"""

from array import array

import uctypes

LIMIT = 64
OTHERS = "others"


def count(table, key):
    """One more of `key` in a dict of counts."""
    if key not in table and len(table) >= LIMIT:
        key = OTHERS
    table[key] = table.get(key, 0) + 1


class Words:
    """Counts in memory of their own, 64 bits each, for handlers that count without a dict look-up."""

    def __init__(self, most):
        self._words = array("I", bytes(8 * most))
        self._at = {}

    def address(self, key):
        """Where the count of `key` lies. ValueError beyond the `most` that there is room for."""
        at = self._at.get(key)
        if at is None:
            at = 2 * len(self._at)
            if at == len(self._words):
                raise ValueError("no room for one more count")
            self._at[key] = at
        return uctypes.addressof(self._words) + 4 * at

    def count(self, key):
        """One more of `key`. ValueError as for address()."""
        self.address(key)
        at = self._at[key]
        self._words[at] = self._words[at] + 1 & 0xFFFFFFFF
        if not self._words[at]:
            self._words[at + 1] += 1

    def __contains__(self, key):
        return key in self._at

    def counts(self):
        """Return {key: count}."""
        words = self._words
        return {key: words[at] | words[at + 1] << 32 for key, at in self._at.items()}
