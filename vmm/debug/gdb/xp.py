"""`xp /FMT ADDR` and `x /FMT ADDR`: memory in the form of QEMU's monitor. FMT: a count, a format of x, d, u, o, c, and
a size of b, h, w, g.
"""

_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
_FORMATS = "xduoc"
_MOST = 4096  # items
_LINE = 16  # bytes


class Form:
    """count of items, each of `size` bytes, in one format."""

    def __init__(self):
        self.count = 1
        self.format = "x"
        self.size = 4


def parse(text):
    """(Form, the address as it was typed). ValueError."""
    form = Form()
    text = text.strip()
    if text.startswith("/"):
        word, _, text = text.partition(" ")
        digits = ""
        for c in word[1:]:
            if c in "0123456789":
                digits += c
            elif c in _SIZES:
                form.size = _SIZES[c]
            elif c in _FORMATS:
                form.format = c
            else:
                raise ValueError("format /%s: a count, one of %s, and one of bhwg" % (word[1:], _FORMATS))
        form.count = int(digits or "1")
    if not text.strip() or not 0 < form.count <= _MOST:
        raise ValueError("xp /FMT ADDR, at most %d items" % _MOST)
    return form, text.strip()


def dump(read, form, address):
    """Lines of text. read(address, size) -> bytes, ValueError."""
    per_line = max(1, (32 if form.format == "c" else _LINE) // form.size)
    lines = []
    left = form.count
    while left:
        count = min(left, per_line)
        data = read(address, count * form.size)
        if len(data) < count * form.size:
            count = len(data) // form.size
            left = count
        items = [data[i * form.size : (i + 1) * form.size] for i in range(count)]
        lines.append("%016x: %s" % (address, " ".join([_item(item, form) for item in items])))
        address += count * form.size
        left -= count
    return "\n".join(lines) + "\n"


def _item(data, form):
    value = int.from_bytes(data, "little")
    if form.format == "x":
        return "0x" + "%0*x" % (2 * form.size, value)
    if form.format == "o":
        return "0%o" % value
    if form.format == "c":
        return "'%s'" % (chr(value) if 32 <= value < 127 else "\\x%02x" % (value & 0xFF))
    if form.format == "d" and value >> 8 * form.size - 1:
        value -= 1 << 8 * form.size
    return "%d" % value
