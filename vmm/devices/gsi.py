"""Routes interrupt lines: a PC's ISA line leads to an 8259 and to the I/O APIC, lines from 16 on to the
I/O APIC only. IRQ0 is pin 2 there, as the MADT's source override tells the guest, and the 8259s' own
output is pin 0 and LINT0.
"""

import micropython
from micropython import const

_ISA = const(16)
_LINES = const(24)


class Line:
    """One source on a line; `set` is the callable to give to a device."""

    def __init__(self, gsi, n):
        self.gsi = gsi
        self.n = n
        self.level = 0

    def set(self, level):
        """Level of this source. Returns 0 if an edge found its predecessor unserved, else 1."""
        if level == self.level:
            return 1
        self.level = level
        return self.gsi.change(self.n, level)


class Gsi:
    """Calls `set_irq(n, level)` of the I/O APIC and of `pic` for each change of a line. Sources on the same
    line are ored. Set `pic` before a line is used: `gsi.pic = I8259(gsi.intr)`."""

    def __init__(self, ioapic, lapic):
        self.pic = None
        self.ioapic = ioapic
        self.lapic = lapic
        self._asserting = [0] * _LINES

    def line(self, n):
        """A new source on line `n` (0..23, ISA numbers below 16): a callable that takes its level.
        Raises ValueError for a line that does not exist; 2 is the cascade."""
        if not 0 <= n < _LINES or n == 2:
            raise ValueError("no interrupt line %d" % n)
        return Line(self, n).set

    def change(self, n, level):
        """A source of line `n` goes up or down."""
        count = self._asserting[n] + (1 if level else -1)
        self._asserting[n] = count
        if count != level:  # 0 to 1 and 1 to 0 only
            return 1
        served = self.ioapic.set_irq(n if n else 2, level)
        if n < _ISA and self.pic.set_irq(n, level) == 0:
            return 0
        return served

    @micropython.viper
    def intr(self, level: int):
        """The 8259s' INT output: LINT0 of the local APIC, and pin 0 of the I/O APIC."""
        self.ioapic.set_irq(0, level)
        self.lapic.lint(0, level)
