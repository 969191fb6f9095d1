"""Counts of what guests try and nobody handles.

A guest may try as much as it likes: beyond LIMIT different things, new ones are counted
together, so that the table cannot eat the monitor's heap.
"""

LIMIT = 1024
OTHERS = "others"


def count(table, key):
    """One more of `key` in a dict of counts."""
    if key not in table and len(table) >= LIMIT:
        key = OTHERS
    table[key] = table.get(key, 0) + 1
