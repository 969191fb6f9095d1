"""Routes interrupt lines. A PC's ISA line leads to an 8259 and to the I/O APIC, lines from 16 on to the
I/O APIC only. IRQ0 is pin 2 there (the MADT has a source override), and the 8259s' output is pin 0
and LINT0.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.ioapic import MASKED
from vmm.devices.lapic_registers import FRAME_AT, LINT0_EXTINT, LINT0_LEVEL, LVT_LINT0, LVT_MODE
from vmm.vtx.frame import PENDING

_ISA = const(16)
_LINES = const(24)

_IOAPIC_LINES = const(50)  # word of IoApic.state


class Gsi:
    """Calls `line(n)(level)` of the I/O APIC and of `pic` for each change of a line. The sources of a line
    are ored. Set `pic` before a line is used: `gsi.pic = I8259(gsi.intr)`."""

    def __init__(self, ioapic, lapic):
        self.pic = None
        self.ioapic = ioapic
        self.lapic = lapic
        self._asserting = array("I", [0] * _LINES)

    def line(self, n):
        """A new source on line `n` (0..23, ISA numbers below 16): a callable that takes its level, 0 or 1.

        It returns 0 if the edge before has not been served yet, else 1. Raises ValueError for a line
        that does not exist; 2 is the cascade.
        """
        if not 0 <= n < _LINES or n == 2:
            raise ValueError("no interrupt line %d" % n)
        level = array("I", [0])
        pic = self.pic.line(n) if n < _ISA else _no_input
        return bind(_set, level, uctypes.addressof(self._asserting) + 4 * n, self.ioapic.line(n if n else 2), pic)

    def edge(self, n):
        """For the source of ISA line `n` whose level is high: edge() makes it fall and rise.

        edge() -> 0 or 1 as the line's callable; 2 where the line is masked everywhere (see when_unmasked()); -1 where
        the caller has to lower and raise the line instead.
        """
        entry = uctypes.addressof(self.ioapic.state) + 8 * (n if n else 2)
        return bind(_edge, uctypes.addressof(self._asserting) + 4 * n, entry, self.pic.edge(n))

    def when_unmasked(self, call):
        """Set a callback: call() when the line for which edge() has returned 2 may have been unmasked."""
        self.pic.unmasked = call
        self.ioapic.unmasked = lambda pin: call()

    def quick_intr(self):
        """A fast `intr` for an I8259."""
        return bind(_intr, uctypes.addressof(self.ioapic.state), uctypes.addressof(self.lapic.regs), self.intr)

    @micropython.viper
    def intr(self, level: int):
        """The 8259s' INT output: LINT0 of the local APIC, and pin 0 of the I/O APIC."""
        self.ioapic.set_irq(0, level)
        self.lapic.lint(0, level)


@micropython.viper
def _set(source, asserting: int, ioapic, pic, level: int) -> int:
    s = ptr32(source)
    if int(s[0]) == level:
        return 1
    s[0] = level
    count = ptr32(asserting)
    count[0] += 1 if level else 0xFFFFFFFF
    if int(count[0]) != level:  # 0 to 1 and 1 to 0 only
        return 1
    served = int(ioapic(level))
    if int(pic(level)) == 0:
        return 0
    return served


def _no_input(level):
    """Lines from 16 on lead to no 8259."""
    return 1


@micropython.viper
def _edge(asserting: int, entry: int, pic) -> int:
    count = ptr32(asserting)
    low = ptr32(entry)
    if count[0] != 1 or low[0] & MASKED == 0:
        return -1
    return int(pic())


@micropython.viper
def _intr(ioapic: int, page: int, slow, level: int):
    s = ptr32(ioapic)
    r = ptr32(page)
    frame = int(r[FRAME_AT // 4])
    if frame == 0 or s[0] & MASKED == 0:
        slow(level)
        return
    if level == 0:
        s[_IOAPIC_LINES] &= 0xFFFFFFFE
        r[LINT0_LEVEL // 4] = 0
        return
    if r[LVT_LINT0 // 4] & LVT_MODE != LINT0_EXTINT:
        slow(level)
        return
    s[_IOAPIC_LINES] |= 1
    r[LINT0_LEVEL // 4] = 1
    f = ptr32(frame)
    f[PENDING] = 1
