"""A list of tuples that prints as a table, and a guest's text as one can print it."""

import cpu
import micropython
from micropython import const

_LOOK = const(256)  # bytes between two looks for guests above


@micropython.viper
def _odd(data: ptr8, size: int) -> int:
    """Whether UTF-8 has a control character: C0, DEL, or C1 (C2 80 to C2 9F)."""
    i = 0
    look = cpu.look
    while i < size:
        if i & (_LOOK - 1) == 0:
            look()
        byte = int(data[i])
        if byte < 0x20 or byte == 0x7F or (byte == 0xC2 and i + 1 < size and int(data[i + 1]) < 0xA0):
            return 1
        i += 1
    return 0


def plain(text):
    """A guest's text without control characters, which could control the user's terminal: "\\n" is a backslash and an
    n, others are "\\x1b"."""
    data = text.encode()
    if not _odd(data, len(data)):
        return text
    out = []
    for c in text:
        if c < " " or "\x7f" <= c < "\xa0":
            c = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c) or "\\x%02x" % ord(c)
        out.append(c)
    return "".join(out)


def shown(value):
    """plain() of a guest's text, a str, or bytes where it is no text."""
    return plain("%s" % (value,))


class Table(list):
    """columns: the names of the tuples' items; formats: of each item, such as "%x". Text is on the left, numbers on the
    right, also where some rows have "" in their place."""

    def __init__(self, columns, rows, formats=None):
        super().__init__(rows)
        self.columns = columns
        self.formats = formats or ("%s",) * len(columns)

    def __repr__(self):
        texts = [[plain(self.formats[i] % (row[i],)) for i in range(len(row))] for row in self]
        widths = [max([len(name)] + [len(row[i]) for row in texts]) for i, name in enumerate(self.columns)]
        left = [any([isinstance(row[i], str) and row[i] for row in self]) for i in range(len(widths))]
        form = "  ".join([("%%-%ds" if left[i] else "%%%ds") % width for i, width in enumerate(widths)])
        return "\n".join([(form % tuple(row)).rstrip() for row in [list(self.columns)] + texts])

    __str__ = __repr__
