"""82093AA I/O APIC with the EOI register of version 20h (Intel 82093AA data sheet; ICH and later).

A level here means "asserted": polarity is stored and read back, but has no effect. An edge on a masked
pin is lost; a level is not.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices import saved
from vmm.devices.lapic_registers import REMOTE_IRR

PINS = const(24)
_VERSION = const(0x00170020)  # 24 entries, version 20h: the EOI register exists

# Offsets in the page.
IOREGSEL = const(0x00)
IOWIN = const(0x10)
EOIR = const(0x40)

_ID = const(0x00)
VER = const(0x01)
_ARB = const(0x02)
REDIRECTION = const(0x10)  # two words a pin

LEVEL = const(0x8000)  # of a redirection entry
MASKED = const(0x10000)
_WRITABLE = const(0x1AFFF)  # all but delivery status and remote IRR
_MODE = const(0x700)  # delivery mode
_SMI = const(0x200)  # the first mode that is neither fixed nor lowest priority
_ICR_BITS = const(0x8FFF)  # the bits of a message that ICR has, too: vector, modes, trigger

# Words behind the table.
_SELECT = const(48)
IDENTITY = const(49)
LINES = const(50)
_WORDS = const(51)


class IoApic:
    """`deliver(low, destination) -> 0 or 1` sends a message to the local APICs: `low` has vector,
    delivery mode, destination mode and trigger as in ICR; 0: an earlier one is not accepted yet.
    `identity`: its APIC ID after reset, 4 bits. `unmasked(pin)`, optional, is called when a pin is
    unmasked."""

    def __init__(self, deliver, identity=0):
        self.deliver = deliver
        self.identity = identity
        self.unmasked = None
        self.state = array("I", [0] * _WORDS)
        self.reset()

    def reset(self):
        """All pins masked. The lines keep their levels."""
        s = self.state
        for pin in range(PINS):
            s[2 * pin] = MASKED
            s[2 * pin + 1] = 0
        s[_SELECT] = 0
        s[IDENTITY] = self.identity << 24

    def save(self):
        return saved.save(self, ("state",))

    def load(self, state):
        """Nothing is sent: messages that had been sent are in the local APICs' state."""
        saved.load(self, ("state",), state)

    def __repr__(self):
        from vmm.debug import chips

        return chips.ioapic(self)

    # 560
    @micropython.viper
    def read(self, offset: int, size: int) -> int:
        """IOREGSEL or IOWIN: the whole register for any size."""
        s = ptr32(self.state)
        select = s[_SELECT]
        offset &= 0xFFF
        if offset == IOWIN:
            if select >= REDIRECTION and select < REDIRECTION + 2 * PINS:
                return s[select - REDIRECTION]
            if select == VER:
                return _VERSION
            if select == _ID or select == _ARB:
                return s[IDENTITY]
            return 0
        if offset == IOREGSEL:
            return select
        return 0

    @micropython.viper
    def write(self, offset: int, size: int, value: int):
        """IOREGSEL, IOWIN, EOI register."""
        s = ptr32(self.state)
        offset &= 0xFFF
        if offset == IOREGSEL:
            s[_SELECT] = value & 0xFF
        elif offset == IOWIN:
            at = s[_SELECT] - REDIRECTION
            if at < 0 or at >= 2 * PINS:
                if at == _ID - REDIRECTION:
                    s[IDENTITY] = value & 0x0F000000
            elif at & 1:
                s[at] = value & 0xFF000000
            else:
                low = value & _WRITABLE
                if low & LEVEL:  # remote IRR is cleared in an entry that becomes edge-triggered
                    low |= s[at] & REMOTE_IRR
                s[at] = low
                if low & MASKED == 0:
                    self._unmasked(at >> 1)
        elif offset == EOIR:
            self.eoi(value & 0xFF)

    def _unmasked(self, n):
        if self.unmasked:
            self.unmasked(n)
        self._level(n)

    def line(self, n):
        """Pin `n` as a callable of its level; it returns what set_irq() does."""
        return bind(_line, uctypes.addressof(self.state), n, self)

    def set_irq(self, n, level):
        """Set pin `n` (0..23). Returns 0 for an edge if the edge before is not accepted yet, else 1."""
        return _line(uctypes.addressof(self.state), n, self, level) if 0 <= n < PINS else 1

    @micropython.viper
    def _level(self, n: int):
        """Send the interrupt of a level-triggered pin that is asserted, unmasked, and whose remote IRR is clear."""
        s = ptr32(self.state)
        low = s[2 * n]
        if low & (LEVEL | MASKED | REMOTE_IRR) != LEVEL or (s[LINES] >> n) & 1 == 0:
            return
        if low & _MODE < _SMI:  # only fixed and lowest-priority messages end with an EOI
            s[2 * n] = low | REMOTE_IRR
        self.deliver(low & _ICR_BITS, s[2 * n + 1] >> 24)

    @micropython.viper
    def eoi(self, vector: int):
        """A local APIC has ended level-triggered `vector`: pins that are still asserted send it again."""
        s = ptr32(self.state)
        at = 0
        while at < 2 * PINS:
            low = s[at]
            if low & REMOTE_IRR and low & 0xFF == vector:
                s[at] = low & (REMOTE_IRR ^ 0xFFFFFFFF)
                if (s[LINES] >> (at >> 1)) & 1:
                    self._level(at >> 1)
            at += 2


@micropython.viper
def _line(state: int, n: int, chip, level: int) -> int:
    s = ptr32(state)
    bit = 1 << n
    lines = s[LINES]
    if level == 0:
        s[LINES] = lines & (bit ^ 0xFFFFFFFF)
        return 1
    s[LINES] = lines | bit
    low = s[2 * n]
    if low & (MASKED | REMOTE_IRR):
        return 1
    if low & LEVEL:
        chip._level(n)
        return 1
    if lines & bit:
        return 1
    return int(chip.deliver(low & _ICR_BITS, s[2 * n + 1] >> 24))
