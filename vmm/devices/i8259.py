"""The PC's pair of 8259A interrupt controllers with the chip set's ELCR (Intel 8259A and 82371SB data sheets).

Deviations, as chip sets and other monitors have them: ELCR decides between edge and level for each
input, so LTIM is ignored; an edge stays latched until it is acknowledged even if the line falls
before; the 8080 mode of ICW4 is ignored. Input 2 of the master is the slave's output.

All of it is one class, since a method of a base class costs each access some hundred instructions more.
"""

import micropython
import uctypes
from micropython import const
from vmx import bind

_ICW1_IC4 = const(0x01)
_ICW1_SNGL = const(0x02)
_ICW1 = const(0x10)
_ICW4_AEOI = const(0x02)
_ICW4_SFNM = const(0x10)

_OCW3 = const(0x08)
_OCW3_RIS = const(0x01)
_OCW3_RR = const(0x02)
_OCW3_POLL = const(0x04)
_OCW3_SMM = const(0x20)
_OCW3_ESMM = const(0x40)

_CASCADE = const(0x04)  # the master's input 2
_NONE = const(8)  # "no input" among levels 0..7

# State of the master from 0 on, of the slave from _SLAVE on.
_IRR = const(0)
_IMR = const(1)
_ISR = const(2)
_ELCR = const(3)
_INPUTS = const(4)  # levels of the lines
_BASE = const(5)  # ICW2
_FLAGS = const(6)  # below
_EXPECT = const(7)  # the ICW that comes next: 2, 3, 4; 0 when initialized
_LOWEST = const(8)  # the level that has the lowest priority
_INT = const(9)  # level of the output
_ICW3 = const(10)
_ASLEEP = const(11)  # of the master: an edge came to a masked input, see edge()
_SLAVE = const(16)
_LSB = const(32)  # 256 bytes: the lowest set bit of the index

_F_AEOI = const(0x01)
_F_SFNM = const(0x02)
_F_ROTATE = const(0x04)  # rotate in automatic EOI mode
_F_SMM = const(0x08)
_F_POLL = const(0x10)
_F_READ_ISR = const(0x20)
_F_SINGLE = const(0x40)
_F_IC4 = const(0x80)


def _nothing():
    pass


class I8259:
    """Both chips. Offsets: 0, 1 the master's ports 20h, 21h; 2, 3 the slave's A0h, A1h; 4, 5 ELCR 4D0h, 4D1h.

    `intr(level)` is the INT output of the master. Inputs are numbered 0..15; 2 does not exist. `heard()` is called when
    an input for which edge() has returned 2 may have been unmasked.
    """

    def __init__(self, intr):
        self.intr = intr
        self.heard = _nothing
        self._state = bytearray(_LSB + 256)
        _find_lowest(self._state)
        state = uctypes.addressof(self._state)
        self._update = bind(_update, state, self)
        self.quick_ack = bind(_ack, state, self._update)
        self.reset()

    def reset(self):
        """Power-on: all inputs masked and edge-triggered, waiting for ICW1. The lines keep their levels."""
        s = self._state
        intr = s[_INT]
        for c in (0, _SLAVE):
            for i in range(12):
                if i != _INPUTS:
                    s[c + i] = 0
            s[c + _IMR] = 0xFF
            s[c + _LOWEST] = 7
        if intr:
            self.intr(0)

    def reader(self, offset, size):
        """reader(now) -> the byte of an IMR, or -1 where a poll command waits: ask read()."""
        if size != 1 or offset not in (1, 3):
            return None
        return bind(_mask, uctypes.addressof(self._state) + (_SLAVE if offset == 3 else 0))

    # 610 for IMR, ISR, IRR.
    @micropython.viper
    def read(self, offset: int, size: int) -> int:
        """IMR at odd offsets, IRR or ISR at even ones, or the answer to a poll; ELCR at 4 and 5."""
        s = ptr8(self._state)
        if offset > 3:
            if offset > 5:
                return 0xFF
            return s[((offset & 1) << 4) + _ELCR]
        c = (offset & 2) << 3
        flags = s[c + _FLAGS]
        if flags & _F_POLL:
            return int(self._poll(c))
        if offset & 1:
            return s[c + _IMR]
        if flags & _F_READ_ISR:
            return s[c + _ISR]
        return s[c + _IRR]

    # 690 for an EOI or a mask that leaves nothing pending.
    @micropython.viper
    def write(self, offset: int, size: int, value: int):
        """ICWs and OCWs of either chip, ELCR at 4 and 5."""
        s = ptr8(self._state)
        value &= 0xFF
        if offset > 3:
            if offset < 6:
                self._elcr(offset, value)
            return
        c = (offset & 2) << 3
        if offset & 1:
            if s[c + _EXPECT]:
                self._icw(c, value)
                return
            s[c + _IMR] = value  # OCW1
        elif value & _ICW1:
            self._icw1(c, value)
            return
        elif value & _OCW3:
            self._ocw3(c, value)
            return
        elif value == 0x20:  # non-specific EOI without rotation: the usual OCW2
            isr = s[c + _ISR]
            if s[c + _LOWEST] == 7 and s[c + _FLAGS] & _F_SMM == 0:
                s[c + _ISR] = isr & (isr - 1)
            else:
                self._ocw2(c, value)
        else:
            self._ocw2(c, value)
        if s[c + _INT] or s[c + _IRR] & (s[c + _IMR] ^ 0xFF):
            self._update()

    def set_irq(self, n, level):
        """Sets line `n` (0..15). Returns 0 if a rising edge found its predecessor still unserved, else 1."""
        return self.line(n)(level)

    def line(self, n):
        """line(level): set_irq() of input `n`, short."""
        return bind(_set_irq, uctypes.addressof(self._state) + ((n & 8) << 1), 1 << (n & 7), self._update)

    def edge(self, n):
        """For input `n` of the master, an edge, whose level is high: edge() -> what set_irq(n, 0) and set_irq(n, 1)
        return; 2 where the input is masked; -1 where the caller has to use set_irq()."""
        return bind(_edge, uctypes.addressof(self._state), 1 << n, self._update)

    def ack(self):
        """The INTA cycles: the vector of the pending interrupt, spurious level 7 if there is none any more."""
        return self.quick_ack()

    def _poll(self, c):
        """The read after a poll command acts as INTA: bit 7 says that there was a request, bits 2..0 which."""
        s = self._state
        s[c + _FLAGS] &= _F_POLL ^ 0xFF
        state = uctypes.addressof(s)
        level = _request(state, c)
        if level == _NONE:
            return 0
        _take(state, c, level)
        if c:
            s[c + _INT] = 0
        self._update()
        return 0x80 | level

    def _elcr(self, offset, value):
        s = self._state
        c = _SLAVE if offset & 1 else 0
        value &= 0xDE if c else 0xF8  # the clock, the keyboard, the cascade, the RTC and the FPU are edges
        stays = ~(s[c + _ELCR] | value) & 0xFF  # an edge latch survives where the input was and stays an edge
        s[c + _ELCR] = value
        s[c + _IRR] = s[c + _IRR] & stays | s[c + _INPUTS] & value
        self._update()

    def _icw1(self, c, value):
        s = self._state
        s[c + _IMR] = s[c + _ISR] = 0
        s[c + _IRR] = s[c + _INPUTS] & s[c + _ELCR]
        s[c + _LOWEST] = 7
        s[c + _EXPECT] = 2
        flags = 0
        if value & _ICW1_SNGL:
            flags |= _F_SINGLE
        if value & _ICW1_IC4:
            flags |= _F_IC4
        s[c + _FLAGS] = flags
        if not c:
            s[_SLAVE + _INT] = 0  # the edge latch of input 2 is cleared, too; a request of the slave sets it anew
        self._update()

    def _icw(self, c, value):
        """ICW2 to ICW4, as far as ICW1 announced them."""
        s = self._state
        flags = s[c + _FLAGS]
        expected = s[c + _EXPECT]
        following = 0
        if expected == 2:
            s[c + _BASE] = value & 0xF8
            following = 4 if flags & _F_SINGLE else 3
        elif expected == 3:
            s[c + _ICW3] = value
            following = 4
        else:
            flags |= (_F_AEOI if value & _ICW4_AEOI else 0) | (_F_SFNM if value & _ICW4_SFNM else 0)
            s[c + _FLAGS] = flags
        s[c + _EXPECT] = following if following != 4 or flags & _F_IC4 else 0
        self._update()

    def _ocw2(self, c, value):
        """EOI and rotation: R, SL, EOI in bits 7..5, a level in bits 2..0. The caller updates."""
        s = self._state
        command = value >> 5
        level = value & 7
        if command == 0 or command == 4:
            s[c + _FLAGS] = s[c + _FLAGS] & ~_F_ROTATE & 0xFF | (_F_ROTATE if command else 0)
        elif command == 1 or command == 5:
            service = s[c + _ISR]
            if s[c + _FLAGS] & _F_SMM:
                service &= ~s[c + _IMR]
            for i in range(1, 9):
                level = (s[c + _LOWEST] + i) & 7
                if service >> level & 1:
                    s[c + _ISR] &= ~(1 << level) & 0xFF
                    if command == 5:
                        s[c + _LOWEST] = level
                    break
        elif command == 3 or command == 7:
            s[c + _ISR] &= ~(1 << level) & 0xFF
            if command == 7:
                s[c + _LOWEST] = level
        elif command == 6:
            s[c + _LOWEST] = level

    def _ocw3(self, c, value):
        s = self._state
        flags = s[c + _FLAGS]
        if value & _OCW3_POLL:
            flags |= _F_POLL
        elif value & _OCW3_RR:
            flags = flags & ~_F_READ_ISR & 0xFF | (_F_READ_ISR if value & _OCW3_RIS else 0)
        if value & _OCW3_ESMM:
            flags = flags & ~_F_SMM & 0xFF | (_F_SMM if value & _OCW3_SMM else 0)
        s[c + _FLAGS] = flags
        self._update()


@micropython.viper
def _find_lowest(s: ptr8):
    """Fill in the table of lowest set bits."""
    i = 1
    while i < 256:
        bit = 0
        while (i >> bit) & 1 == 0:
            bit += 1
        s[_LSB + i] = bit
        i += 1
    s[_LSB] = _NONE


@micropython.viper
def _mask(s: ptr8, now: int) -> int:
    if s[_FLAGS] & _F_POLL:
        return -1
    return s[_IMR]


# The priority resolver. Callers have checked, as a rule, that a request is pending.
@micropython.viper
def _request(state: int, c: int) -> int:
    """The level of the highest request of chip `c` that is unmasked and above all in service, or _NONE."""
    s = ptr8(state)
    pending = s[c + _IRR] & (s[c + _IMR] ^ 0xFF)
    if pending == 0:
        return _NONE
    service = s[c + _ISR]
    if s[c + _FLAGS] & _F_SMM:
        service &= s[c + _IMR] ^ 0xFF
    first = (s[c + _LOWEST] + 1) & 7
    if first:
        pending = ((pending >> first) | (pending << (8 - first))) & 0xFF
        service = ((service >> first) | (service << (8 - first))) & 0xFF
    rank = s[_LSB + pending]
    limit = s[_LSB + service]
    level = (rank + first) & 7
    if rank > limit:
        return _NONE
    if rank == limit:
        # Special fully nested mode: the slave in service may ask again.
        if c or level != 2 or s[_FLAGS] & _F_SFNM == 0:
            return _NONE
    return level


@micropython.viper
def _take(state: int, c: int, level: int):
    """Acknowledge `level` of chip `c`."""
    s = ptr8(state)
    bit = 1 << level
    if s[c + _ELCR] & bit == 0:
        s[c + _IRR] = s[c + _IRR] & (bit ^ 0xFF)
    if s[c + _FLAGS] & _F_AEOI == 0:
        s[c + _ISR] = s[c + _ISR] | bit
    elif s[c + _FLAGS] & _F_ROTATE:
        s[c + _LOWEST] = level


@micropython.viper
def _update(state: int, chips):
    """Drive the slave's output into the master and the master's into `intr`."""
    s = ptr8(state)
    if s[_ASLEEP]:
        if s[_IRR] & (s[_IMR] ^ 0xFF) & s[_ASLEEP] or s[_IRR] & s[_ASLEEP] == 0:
            s[_ASLEEP] = 0
            chips.heard()
    level = 0
    if s[_SLAVE + _IRR] & (s[_SLAVE + _IMR] ^ 0xFF):
        if int(_request(state, _SLAVE)) != _NONE:
            level = 1
    if level and s[_SLAVE + _INT] == 0:
        s[_IRR] = s[_IRR] | _CASCADE
    s[_SLAVE + _INT] = level
    level = 0
    if s[_IRR] & (s[_IMR] ^ 0xFF):
        if int(_request(state, 0)) != _NONE:
            level = 1
    if level != s[_INT]:
        s[_INT] = level
        chips.intr(level)


@micropython.viper
def _set_irq(chip: int, bit: int, update, level: int) -> int:
    """chip: address of the chip's state."""
    s = ptr8(chip)
    inputs = s[_INPUTS]
    irr = s[_IRR]
    if level == 0:
        s[_INPUTS] = inputs & (bit ^ 0xFF)
        if s[_ELCR] & irr & bit:
            s[_IRR] = irr & (bit ^ 0xFF)
            update()
        return 1
    if inputs & bit:
        return 1
    s[_INPUTS] = inputs | bit
    if irr & bit:
        if s[_IMR] & bit:
            return 1
        return 0
    s[_IRR] = irr | bit
    if s[_IMR] & bit:
        return 1
    update()
    return 1


@micropython.viper
def _edge(state: int, bit: int, update) -> int:
    s = ptr8(state)
    irr = s[_IRR]
    if s[_INPUTS] & bit == 0 or s[_ELCR] & bit:
        return -1
    if s[_IMR] & bit:
        s[_IRR] = irr | bit
        s[_ASLEEP] = bit
        return 2
    if irr & bit:
        return 0
    s[_IRR] = irr | bit
    update()
    return 1


@micropython.viper
def _ack(state: int, update) -> int:
    s = ptr8(state)
    level = int(_request(state, 0))
    if level == _NONE:
        return s[_BASE] | 7
    _take(state, 0, level)
    vector = s[_BASE] | level
    if level == 2 and s[_FLAGS] & _F_SINGLE == 0:
        level = int(_request(state, _SLAVE))
        vector = s[_SLAVE + _BASE] | 7
        if level != _NONE:
            vector = s[_SLAVE + _BASE] | level
            _take(state, _SLAVE, level)
        s[_SLAVE + _INT] = 0  # INTA ends the request; what is still pending makes another edge
    update()
    return vector
