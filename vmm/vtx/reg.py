"""Register classes, declared with one line for each field; a repr shows the fields.

    @register
    class IoQualification(Reg):
        PORT = Bits(31, 16)
        IN = Bits(3)

`IoQualification(raw).PORT` reads a field, `.raw` is the whole value, and assigning to a
field changes `.raw`. Overlapping fields raise ValueError.
"""


class Bits:
    """Bits hi..lo of a register (one bit when lo is left out)."""

    def __init__(self, hi, lo=None):
        self.hi = hi
        self.lo = hi if lo is None else lo
        self.mask = ((1 << (self.hi - self.lo + 1)) - 1) << self.lo


class Reg:
    """Base of register classes. `fields` is set by @register: ((name, Bits), ...), high bits first."""

    fields = ()

    def __init__(self, raw=0):
        self.raw = raw

    def __repr__(self):
        set_ = []
        for name, bits in self.fields:
            value = (self.raw & bits.mask) >> bits.lo
            if value:
                set_.append(name if bits.hi == bits.lo else "%s=%#x" % (name, value))
        return "%s(%#x: %s)" % (type(self).__name__, self.raw, " ".join(set_) or "-")


def _accessor(bits):
    def read(self):
        return (self.raw & bits.mask) >> bits.lo

    def write(self, value):
        self.raw = (self.raw & ~bits.mask) | ((value << bits.lo) & bits.mask)

    return property(read, write)


def register(cls):
    """Turn the Bits of a class into properties; ValueError if two overlap."""
    found = [(name, getattr(cls, name)) for name in dir(cls)]
    found = [(name, bits) for name, bits in found if isinstance(bits, Bits)]
    found.sort(key=lambda item: -item[1].hi)
    seen = 0
    for name, bits in found:
        if seen & bits.mask:
            raise ValueError("%s.%s overlaps another field" % (cls.__name__, name))
        seen |= bits.mask
        setattr(cls, name, _accessor(bits))
    cls.fields = tuple(found)
    return cls
