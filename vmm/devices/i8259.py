"""The PC's pair of 8259A interrupt controllers with the chip set's ELCR (Intel 8259A and 82371SB data sheets).

Deviations, which chip sets and other monitors share: ELCR selects edge or level for each input, so
LTIM is ignored; an edge stays latched until it is acknowledged even if the line falls before; the
8080 mode of ICW4 is ignored. Input 2 of the master is the slave's output.

Lines, priorities and INTA cycles are in i8259_lines.py, as functions: a method of a base class would cost each access
some hundred instructions more.
"""

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices import i8259_lines as lines
from vmm.devices import saved
from vmm.devices.i8259_lines import (
    BASE,
    ELCR,
    EXPECT,
    F_AEOI,
    F_IC4,
    F_POLL,
    F_READ_ISR,
    F_ROTATE,
    F_SFNM,
    F_SINGLE,
    F_SMM,
    FLAGS,
    ICW3,
    IMR,
    INPUTS,
    INT,
    IRR,
    ISR,
    LOWEST,
    LSB,
    NONE,
    SLAVE,
)

ICW1_IC4 = const(0x01)
ICW1_SNGL = const(0x02)
ICW1 = const(0x10)
_ICW4_AEOI = const(0x02)
_ICW4_SFNM = const(0x10)

_OCW3 = const(0x08)
_OCW3_RIS = const(0x01)
_OCW3_RR = const(0x02)
_OCW3_POLL = const(0x04)
_OCW3_SMM = const(0x20)
_OCW3_ESMM = const(0x40)


def _nothing():
    pass


class I8259:
    """Both chips. Offsets: 0, 1 the master's ports 20h, 21h; 2, 3 the slave's A0h, A1h; 4, 5 ELCR 4D0h, 4D1h.

    `intr(level)` is the INT output of the master. Inputs are numbered 0..15; 2 does not exist. `unmasked()` is called
    when an input for which edge() has returned 2 may have been unmasked.
    """

    def __init__(self, intr):
        self.intr = intr
        self.unmasked = _nothing
        self._state = bytearray(LSB + 256)
        lines.find_lowest(self._state)
        state = uctypes.addressof(self._state)
        self._update = bind(lines.update, state, self)
        self.quick_ack = bind(lines.acknowledge, state, self._update)
        self.reset()

    def reset(self):
        """Power-on: all inputs masked and edge-triggered, waiting for ICW1. The lines keep their levels."""
        s = self._state
        intr = s[INT]
        for c in (0, SLAVE):
            for i in range(12):
                if i != INPUTS:
                    s[c + i] = 0
            s[c + IMR] = 0xFF
            s[c + LOWEST] = 7
        if intr:
            self.intr(0)

    def save(self):
        return {"chips": bytes(self._state[:LSB])}

    def load(self, state):
        saved.need(self, ("chips",), state)
        level = self._state[INT]
        saved.fill(self, "chips", memoryview(self._state)[:LSB], state["chips"])
        if self._state[INT] != level:
            self.intr(self._state[INT])
        self.unmasked()

    @property
    def state(self):
        """Both chips' state, at the offsets of i8259_lines.py, for inspection."""
        return self._state

    def vector(self, n):
        """The vector of input `n`."""
        return self._state[((n & 8) << 1) + BASE] + (n & 7)

    def __repr__(self):
        from vmm.debug import chips

        return chips.pic(self)

    def reader(self, offset, size):
        """reader(now) -> the byte of an IMR, or -1 while a poll command is pending: call read()."""
        if size != 1 or offset not in (1, 3):
            return None
        return bind(lines.mask, uctypes.addressof(self._state) + (SLAVE if offset == 3 else 0))

    # 610 for IMR, ISR, IRR.
    @micropython.viper
    def read(self, offset: int, size: int) -> int:
        """IMR at odd offsets, IRR or ISR at even ones, or the answer to a poll; ELCR at 4 and 5."""
        s = ptr8(self._state)
        if offset > 3:
            if offset > 5:
                return 0xFF
            return s[((offset & 1) << 4) + ELCR]
        c = (offset & 2) << 3
        flags = s[c + FLAGS]
        if flags & F_POLL:
            return int(self._poll(c))
        if offset & 1:
            return s[c + IMR]
        if flags & F_READ_ISR:
            return s[c + ISR]
        return s[c + IRR]

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
            if s[c + EXPECT]:
                self._icw(c, value)
                return
            s[c + IMR] = value  # OCW1
        elif value & ICW1:
            self._icw1(c, value)
            return
        elif value & _OCW3:
            self._ocw3(c, value)
            return
        elif value == 0x20:  # non-specific EOI without rotation: the usual OCW2
            isr = s[c + ISR]
            if s[c + LOWEST] == 7 and s[c + FLAGS] & F_SMM == 0:
                s[c + ISR] = isr & (isr - 1)
            else:
                self._ocw2(c, value)
        else:
            self._ocw2(c, value)
        if s[c + INT] or s[c + IRR] & (s[c + IMR] ^ 0xFF):
            self._update()

    def set_irq(self, n, level):
        """Set line `n` (0..15). Returns 0 for a rising edge if the edge before has not been served yet, else 1."""
        return self.line(n)(level)

    def line(self, n):
        """line(level): set_irq() of input `n`, as a fast callable."""
        return bind(lines.set_irq, uctypes.addressof(self._state) + ((n & 8) << 1), 1 << (n & 7), self._update)

    def edge(self, n):
        """For an edge-triggered input `n` of the master whose level is high: edge() makes it fall and rise. It returns
        what set_irq() does; 2 where the input is masked; -1 where the caller has to use set_irq()."""
        return bind(lines.edge, uctypes.addressof(self._state), 1 << n, self._update)

    def ack(self):
        """The INTA cycles: the vector of the pending interrupt, or of level 7 (spurious) if there is none any more."""
        return self.quick_ack()

    def _poll(self, c):
        """The read after a poll command acts as INTA: bit 7 is 1 if there was a request, bits 2..0 are its level."""
        s = self._state
        s[c + FLAGS] &= F_POLL ^ 0xFF
        state = uctypes.addressof(s)
        level = lines.request(state, c)
        if level == NONE:
            return 0
        lines.take(state, c, level)
        if c:
            s[c + INT] = 0
        self._update()
        return 0x80 | level

    def _elcr(self, offset, value):
        s = self._state
        c = SLAVE if offset & 1 else 0
        value &= 0xDE if c else 0xF8  # the clock, the keyboard, the cascade, the RTC and the FPU are edges
        stays = ~(s[c + ELCR] | value) & 0xFF  # an edge latch survives where the input was and stays an edge
        s[c + ELCR] = value
        s[c + IRR] = s[c + IRR] & stays | s[c + INPUTS] & value
        self._update()

    def _icw1(self, c, value):
        s = self._state
        s[c + IMR] = s[c + ISR] = 0
        s[c + IRR] = s[c + INPUTS] & s[c + ELCR]
        s[c + LOWEST] = 7
        s[c + EXPECT] = 2
        flags = 0
        if value & ICW1_SNGL:
            flags |= F_SINGLE
        if value & ICW1_IC4:
            flags |= F_IC4
        s[c + FLAGS] = flags
        if not c:
            s[SLAVE + INT] = 0  # the edge latch of input 2 is cleared, too; a request of the slave sets it again
        self._update()

    def _icw(self, c, value):
        """ICW2 to ICW4, as far as ICW1 announced them."""
        s = self._state
        flags = s[c + FLAGS]
        expected = s[c + EXPECT]
        following = 0
        if expected == 2:
            s[c + BASE] = value & 0xF8
            following = 4 if flags & F_SINGLE else 3
        elif expected == 3:
            s[c + ICW3] = value
            following = 4
        else:
            flags |= (F_AEOI if value & _ICW4_AEOI else 0) | (F_SFNM if value & _ICW4_SFNM else 0)
            s[c + FLAGS] = flags
        s[c + EXPECT] = following if following != 4 or flags & F_IC4 else 0
        self._update()

    def _ocw2(self, c, value):
        """EOI and rotation: R, SL, EOI in bits 7..5, a level in bits 2..0. The caller updates."""
        s = self._state
        command = value >> 5
        level = value & 7
        if command == 0 or command == 4:
            s[c + FLAGS] = s[c + FLAGS] & ~F_ROTATE & 0xFF | (F_ROTATE if command else 0)
        elif command == 1 or command == 5:
            service = s[c + ISR]
            if s[c + FLAGS] & F_SMM:
                service &= ~s[c + IMR]
            for i in range(1, 9):
                level = (s[c + LOWEST] + i) & 7
                if service >> level & 1:
                    s[c + ISR] &= ~(1 << level) & 0xFF
                    if command == 5:
                        s[c + LOWEST] = level
                    break
        elif command == 3 or command == 7:
            s[c + ISR] &= ~(1 << level) & 0xFF
            if command == 7:
                s[c + LOWEST] = level
        elif command == 6:
            s[c + LOWEST] = level

    def _ocw3(self, c, value):
        s = self._state
        flags = s[c + FLAGS]
        if value & _OCW3_POLL:
            flags |= F_POLL
        elif value & _OCW3_RR:
            flags = flags & ~F_READ_ISR & 0xFF | (F_READ_ISR if value & _OCW3_RIS else 0)
        if value & _OCW3_ESMM:
            flags = flags & ~F_SMM & 0xFF | (F_SMM if value & _OCW3_SMM else 0)
        s[c + FLAGS] = flags
        self._update()
