"""16550A UART with 16-byte FIFOs (National Semiconductor PC16550D data sheet).

There is no baud rate: a character that `tx` accepts leaves the transmitter empty at once. Characters
of `rx` raise the receive interrupt at once; those of `accept` at the trigger level, or 100 us after
the first one (time-out). While `tx` refuses, characters wait in the transmit FIFO, THRE and TEMT stay
clear, and `poll()` (or the guest's read of LSR) tries again.

As on a PC, OUT2 gates the interrupt onto the ISA bus, but only after the guest has set it once: a
guest that never sets it was made for QEMU, whose UART has no gate.

One class, since a method of a base class costs each access some hundred instructions more.
"""

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices import saved
from vmm.devices.uart16550_registers import (
    FCR,
    FCR_CLEAR_RX,
    FCR_CLEAR_TX,
    FCR_ENABLE,
    FIFO_SIZE,
    IER,
    IER_LINE,
    IER_MODEM,
    IER_RX,
    IER_THRE,
    IIR,
    IIR_FIFO,
    IIR_LINE,
    IIR_MODEM,
    IIR_NONE,
    IIR_RX,
    IIR_THRE,
    IIR_TIMEOUT,
    LCR,
    LCR_BREAK,
    LCR_DLAB,
    LSR,
    LSR_BI,
    LSR_DR,
    LSR_ERRORS,
    LSR_FIFO_ERROR,
    LSR_OE,
    LSR_TEMT,
    LSR_THRE,
    MCR,
    MCR_DTR,
    MCR_LOOP,
    MCR_OUT2,
    MCR_RTS,
    MSR,
    MSR_CTS,
    MSR_DCD,
    MSR_DSR,
    MSR_RI,
    RBR,
    SCR,
    THR,
)

# State: the registers above at their offsets, then
_DIVISOR_LOW = const(8)
_DIVISOR_HIGH = const(9)
_FIFOS = const(10)  # ENABLE and trigger level only
_THRE = const(11)  # a THRE interrupt is pending
_LINE = const(12)  # level of the interrupt output
_INPUTS = const(13)  # modem inputs from outside, MSR layout
_RX_HEAD = const(14)
_RX_COUNT = const(15)
_TX_HEAD = const(16)
_TX_COUNT = const(17)
_TRIGGER = const(18)  # receive trigger level, characters
_DEPTH = const(19)  # 16 with FIFOs, else 1
_MARKS = const(20)  # received characters with error bits that LSR has not shown yet
_AGED = const(21)  # the characters in the receive FIFO count as timed out
_OPEN = const(22)  # the interrupt gate is open
_GATED = const(23)  # OUT2 has been set once
_RX = const(32)  # 16 characters
_RX_FLAGS = const(48)  # 16 times LSR error bits
_TX = const(64)  # 16 characters
_STATE_SIZE = const(80)

# Index of Uart16550._far, the callables of the far end; tx is 0.
_IRQ = const(1)

_FILLINGS = const(720)  # a second: 16 characters of 10 bits at 115,200 baud
_SILENCES = const(10000)  # a second: the time-out of characters below the trigger level


def _ignore(_=None, __=None):
    """An output that leads nowhere."""


class Uart16550:
    """A 16550A at eight byte offsets.

    `tx(byte) -> bool` takes a character or refuses it (no room). `irq(level)` is the interrupt
    output. Optional: `modem(mcr)` is called at each change of the pins DTR (bit 0), RTS (bit 1), OUT1,
    OUT2 and of break (bit 6, from LCR); `drained()` when the guest has emptied the receive FIFO, so that
    the sender can go on.
    """

    def __init__(self, tx, irq, modem=_ignore, drained=_ignore):
        self._far = [tx, irq]
        self.modem = modem
        self.drained = drained
        self.overruns = 0  # characters lost by `rx` on a full FIFO
        self._quiet = self._pacing = None
        self.bulk = None
        self._state = bytearray(_STATE_SIZE)
        self._update = bind(_update, uctypes.addressof(self._state), self._far)
        self._state[_INPUTS] = MSR_CTS | MSR_DSR | MSR_DCD
        self.reset()

    def reset(self):
        """Master reset. The modem inputs keep the levels of the far end."""
        s = self._state
        inputs = s[_INPUTS]
        line = s[_LINE]
        for i in range(_STATE_SIZE):
            s[i] = 0
        s[_INPUTS] = s[MSR] = inputs
        s[LSR] = LSR_THRE | LSR_TEMT
        s[_DIVISOR_LOW] = 1  # 115200, as firmware leaves it
        s[_TRIGGER] = s[_DEPTH] = 1
        s[_OPEN] = 1
        if line:
            self._far[_IRQ](0)
        self.modem(0)

    # Unix port (-O2, no threads), callgrind, the bound call included: LSR 590, RBR 600, THR 1160 of which tx 370.
    @micropython.viper
    def read(self, offset: int, size: int) -> int:
        """The register at `offset` (0..7)."""
        s = ptr8(self._state)
        if offset == LSR:
            if s[_TX_COUNT]:
                self.poll()
            value = s[LSR]
            if value & LSR_ERRORS:
                s[LSR] = value & (LSR_ERRORS ^ 0xFF)
                self._update()
            return value
        if offset == RBR:
            if s[LCR] & LCR_DLAB:
                return s[_DIVISOR_LOW]
            count = s[_RX_COUNT]
            if count == 0:
                return 0
            head = s[_RX_HEAD]
            value = s[_RX + head]
            s[_RX_HEAD] = (head + 1) & 15
            s[_RX_COUNT] = count - 1
            if count == 1 or s[LSR] & LSR_FIFO_ERROR:
                self._received()
            return value
        if offset == IIR:
            value = IIR_NONE
            if s[_LINE] or s[_OPEN] == 0:  # with the gate open, no level means no cause
                value = int(self._cause())
                if value == IIR_THRE:
                    s[_THRE] = 0
                    self._update()
            if s[_FIFOS]:
                value |= IIR_FIFO
            return value
        if offset == IER and s[LCR] & LCR_DLAB:
            return s[_DIVISOR_HIGH]
        if offset == MSR:
            value = s[MSR]
            if value & 0x0F:
                s[MSR] = value & 0xF0
                self._update()
            return value
        if offset > SCR or offset < 0:
            return 0xFF
        return s[offset]

    @micropython.viper
    def write(self, offset: int, size: int, value: int):
        """Sets the register at `offset` (0..7)."""
        s = ptr8(self._state)
        value &= 0xFF
        if offset == THR:
            if s[LCR] & LCR_DLAB:
                s[_DIVISOR_LOW] = value
                return
            count = s[_TX_COUNT]
            if s[MCR] & MCR_LOOP:
                self._loop(value)
                return
            if count == 0:
                if self._far[0](value):
                    s[_THRE] = 1
                    if s[_LINE] == 0 and s[IER] & IER_THRE:
                        self._update()
                    return
                s[LSR] &= (LSR_THRE | LSR_TEMT) ^ 0xFF
            if count < s[_DEPTH]:  # a full FIFO loses the new one
                s[_TX + ((s[_TX_HEAD] + count) & 15)] = value
                s[_TX_COUNT] = count + 1
            if s[_THRE]:
                s[_THRE] = 0
                self._update()
        elif offset == IER:
            if s[LCR] & LCR_DLAB:
                s[_DIVISOR_HIGH] = value
                return
            value &= 0x0F
            if value & IER_THRE and s[IER] & IER_THRE == 0 and s[LSR] & LSR_THRE:
                s[_THRE] = 1  # enabling it with an empty THR raises it at once
            s[IER] = value
            self._update()
        elif offset == FCR:
            self._fifo_control(value)
        elif offset == LCR:
            changed = s[LCR] ^ value
            s[LCR] = value
            if changed & LCR_BREAK:
                self._pins()
        elif offset == MCR:
            s[MCR] = value & 0x1F
            if value & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2:
                s[_GATED] = 1
            s[_OPEN] = 1 if s[_GATED] == 0 or value & MCR_OUT2 else 0
            self._pins()
        elif offset == SCR:
            s[SCR] = value

    @property
    def tx(self):
        return self._far[0]

    @tx.setter
    def tx(self, tx):
        self._far[0] = tx

    def reader(self, offset, size):
        """reader(now) -> IIR, or -1: call read()."""
        if size != 1 or offset != IIR:
            return None
        return bind(_iir, uctypes.addressof(self._state), self._far)

    def writer(self, offset, size):
        """writer(value) -> 0: THR is written, or -1: call write()."""
        if size != 1 or offset != THR:
            return None
        return bind(_thr, uctypes.addressof(self._state), self._far)

    def connect(self, tx, modem, drained, bulk, inputs, clock):
        """Connect another far end: outputs as in the constructor, and the levels of the modem inputs.

        bulk(self) moves as much as possible from the transmit FIFO by the far end's `pull`; or None.
        clock: the guest's clock, for the receive time-out.
        """
        self.tx, self.modem, self.drained, self.bulk = tx, modem, drained, bulk
        self._clock = clock
        if self._quiet is None:
            self._quiet = clock.timer(self._silent)
            self._pacing = clock.timer(self._paced)
        self.modem_in(inputs)
        self._pins()

    def save(self):
        """Without the far end: load() keeps the current levels of the modem inputs."""
        waits = [timer.deadline if timer else 0 for timer in (self._quiet, self._pacing)]
        return {"registers": bytes(self._state), "overruns": self.overruns, "timers": waits}

    def load(self, state):
        saved.need(self, ("registers", "overruns", "timers"), state)
        s = self._state
        inputs, line, pins = s[_INPUTS], s[_LINE], self.pins
        saved.fill(self, "registers", s, state["registers"])
        self.overruns = state["overruns"]
        if s[_LINE] != line:
            self._far[_IRQ](s[_LINE])
        for timer, deadline in zip((self._quiet, self._pacing), state["timers"]):
            if timer:
                saved.wait(timer, deadline)
        if self.pins != pins:
            self._pins()
        self.modem_in(inputs)

    def __repr__(self):
        from vmm.debug import chips

        return chips.uart(self)

    @property
    def registers(self):
        """The state, registers at their offsets, for inspection without a read's side effects."""
        return self._state

    @property
    def pins(self):
        """The outputs, as the argument of `modem`."""
        s = self._state
        return 0 if s[MCR] & MCR_LOOP else s[MCR] & 0x0F | s[LCR] & LCR_BREAK

    # 900 a character: a link between two guests carries them one by one.
    @micropython.viper
    def accept(self, byte: int) -> bool:
        """Receive a character from a sender that can wait. False if there is no room for it now."""
        s = ptr8(self._state)
        count = s[_RX_COUNT]
        if s[MCR] & MCR_LOOP or count >= s[_DEPTH]:
            return False
        at = (s[_RX_HEAD] + count) & 15
        s[_RX + at] = byte
        s[_RX_FLAGS + at] = 0
        count += 1
        s[_RX_COUNT] = count
        if count == 1:
            self._first()
        if count == s[_TRIGGER]:
            self._update()
        return True

    def _silent(self, now):
        """Receive time-out: raise the interrupt below the trigger level, too."""
        s = self._state
        if s[_RX_COUNT]:
            s[_AGED] = 1
            self._update()

    def pace(self, go_on):
        """Call go_on() after the time in which a line of 115,200 baud would fill the receive FIFO."""
        self.paced = go_on
        self._pacing.arm(self._clock.now() + self._clock.hz // _FILLINGS)

    def _paced(self, now):
        self.paced()

    def rx(self, byte):
        """Receive a character. With a full FIFO it is lost and counts as an overrun."""
        if not self._state[MCR] & MCR_LOOP:
            self._arrive(byte & 0xFF, 0)

    def rx_break(self):
        """The far end holds the line low: one null character marked as break."""
        if not self._state[MCR] & MCR_LOOP:
            self._arrive(0, LSR_BI)

    @micropython.viper
    def feed(self, readchar) -> int:
        """Receive from readchar() (-1: nothing more) as far as there is room, as by `rx`. Returns the number of
        characters: 0 in loopback, in which the input is disconnected.
        """
        s = ptr8(self._state)
        had = s[_RX_COUNT]
        count = had
        depth = s[_DEPTH]
        if s[MCR] & MCR_LOOP:
            depth = 0
        while count < depth:
            byte = int(readchar())
            if byte < 0:
                break
            at = (s[_RX_HEAD] + count) & 15
            s[_RX + at] = byte
            s[_RX_FLAGS + at] = 0
            count += 1
        if count == had:
            return 0
        s[_RX_COUNT] = count
        s[LSR] |= LSR_DR
        s[_AGED] = 1
        self._update()
        return count - had

    def modem_in(self, inputs):
        """Set the modem inputs: MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD ored."""
        self._state[_INPUTS] = inputs & 0xF0
        if not self._state[MCR] & MCR_LOOP:
            self._inputs(inputs & 0xF0)

    @micropython.viper
    def poll(self):
        """Offer waiting characters to `tx` again. To be called when the receiver has room."""
        s = ptr8(self._state)
        if s[_TX_COUNT] == 0 or s[MCR] & MCR_LOOP:
            return
        if self.bulk:
            self.bulk(self)
        tx = self._far[0]
        while s[_TX_COUNT]:
            if not tx(s[_TX + s[_TX_HEAD]]):
                return
            s[_TX_HEAD] = (s[_TX_HEAD] + 1) & 15
            s[_TX_COUNT] -= 1
        self._emptied()

    # 60 a character; one by one, by `tx` and `accept`, it is 1,800.
    @micropython.viper
    def pull(self, sender) -> int:
        """Receive from another UART's transmit FIFO as far as there is room. Returns the number of characters."""
        s = ptr8(self._state)
        t = ptr8(sender._state)
        had = s[_RX_COUNT]
        count = had
        depth = s[_DEPTH]
        waiting = t[_TX_COUNT]
        if s[MCR] & MCR_LOOP:
            depth = 0
        while waiting and count < depth:
            at = (s[_RX_HEAD] + count) & 15
            s[_RX + at] = t[_TX + t[_TX_HEAD]]
            s[_RX_FLAGS + at] = 0
            t[_TX_HEAD] = (t[_TX_HEAD] + 1) & 15
            waiting -= 1
            count += 1
        if count == had:
            return 0
        t[_TX_COUNT] = waiting
        s[_RX_COUNT] = count
        if had == 0:
            self._first()
        if had < s[_TRIGGER]:
            if count >= s[_TRIGGER]:
                self._update()
        return count - had

    @micropython.viper
    def _first(self):
        """The first character is in the receive FIFO: start the time-out."""
        s = ptr8(self._state)
        s[_AGED] = 0
        s[LSR] |= LSR_DR
        self._quiet.arm(int(self._clock.now()) + int(self._clock.hz) // _SILENCES)

    @micropython.viper
    def pending(self) -> int:
        """The number of characters in the transmit FIFO, which wait until `tx` has room."""
        s = ptr8(self._state)
        return s[_TX_COUNT]

    @micropython.viper
    def _emptied(self):
        s = ptr8(self._state)
        s[LSR] |= LSR_THRE | LSR_TEMT
        s[_THRE] = 1
        self._update()

    def _loop(self, value):
        """THR was written in loopback."""
        s = self._state
        s[_THRE] = 0
        self._arrive(value, 0)
        if not s[_TX_COUNT]:
            s[_THRE] = 1
        self._update()

    def _received(self):
        """The guest has read the last character, or one while some in the FIFO have error bits."""
        s = self._state
        if s[_RX_COUNT]:
            self._expose()
            self._update()
        else:
            s[LSR] &= (LSR_DR | LSR_FIFO_ERROR) ^ 0xFF
            self._update()
            self.drained()

    def _expose(self):
        """Set LSR by the error bits of the character at the head; bit 7: others in the FIFO have some, too."""
        s = self._state
        flags = s[_RX_FLAGS + s[_RX_HEAD]]
        s[LSR] |= LSR_DR | flags
        s[LSR] &= LSR_FIFO_ERROR ^ 0xFF
        if s[_FIFOS] and s[_MARKS]:
            s[LSR] |= LSR_FIFO_ERROR
        if flags:
            s[_RX_FLAGS + s[_RX_HEAD]] = 0
            s[_MARKS] -= 1

    def _arrive(self, byte, flags):
        s = self._state
        count = s[_RX_COUNT]
        if count >= s[_DEPTH]:
            s[LSR] |= LSR_OE
            self.overruns += 1
            if not s[_FIFOS]:  # without FIFOs the newer character overwrites the older
                s[_RX + s[_RX_HEAD]] = byte
        else:
            at = (s[_RX_HEAD] + count) & 15
            s[_RX + at] = byte
            s[_RX_FLAGS + at] = flags
            if flags:
                s[_MARKS] += 1
            s[_RX_COUNT] = count + 1
            if flags or not count:
                self._expose()
        s[_AGED] = 1
        self._update()

    def _fifo_control(self, value):
        s = self._state
        enable = value & FCR_ENABLE
        filled = s[_RX_COUNT]
        changed = s[_FIFOS] & FCR_ENABLE != enable
        if changed or (enable and value & FCR_CLEAR_RX):
            s[_RX_COUNT] = s[_MARKS] = 0
            for i in range(FIFO_SIZE):
                s[_RX_FLAGS + i] = 0
            s[LSR] &= (LSR_DR | LSR_FIFO_ERROR) ^ 0xFF
        if (changed or (enable and value & FCR_CLEAR_TX)) and s[_TX_COUNT]:
            s[_TX_COUNT] = 0
            self._emptied()
        s[_FIFOS] = value & 0xC1 if enable else 0
        s[_DEPTH] = FIFO_SIZE if enable else 1
        s[_TRIGGER] = (1, 4, 8, 14)[value >> 6] if enable else 1
        self._update()
        if filled and not s[_RX_COUNT]:
            self.drained()

    def _pins(self):
        """MCR or break has changed: drive the pins, or the UART's own inputs in loopback."""
        s = self._state
        mcr = s[MCR]
        self.modem(self.pins)
        if mcr & MCR_LOOP:  # RTS, DTR, OUT1, OUT2 feed CTS, DSR, RI, DCD
            self._inputs((mcr & MCR_RTS) << 3 | (mcr & MCR_DTR) << 5 | (mcr & 0x04) << 4 | (mcr & MCR_OUT2) << 4)
        else:
            self._inputs(s[_INPUTS])
            self.poll()
        self._update()

    def _inputs(self, inputs):
        s = self._state
        old = s[MSR]
        delta = (old ^ inputs) & (MSR_CTS | MSR_DSR | MSR_DCD) | (old & ~inputs & MSR_RI)  # RI: trailing edge
        s[MSR] = inputs | old & 0x0F | delta >> 4
        self._update()

    @micropython.viper
    def _cause(self) -> int:
        """IIR bits 3..0: the pending interrupt of the highest priority, or IIR_NONE."""
        s = ptr8(self._state)
        ier = s[IER]
        if ier & IER_LINE and s[LSR] & LSR_ERRORS:
            return IIR_LINE
        if ier & IER_RX and s[_RX_COUNT]:
            if s[_RX_COUNT] >= s[_TRIGGER]:
                return IIR_RX
            if s[_AGED]:
                return IIR_TIMEOUT
        if ier & IER_THRE and s[_THRE]:
            return IIR_THRE
        if ier & IER_MODEM and s[MSR] & 0x0F:
            return IIR_MODEM
        return IIR_NONE


@micropython.viper
def _update(state: int, far):
    """Drive the interrupt output if its level changes."""
    s = ptr8(state)
    line = 0
    ier = s[IER]
    if ier and s[_OPEN]:  # _cause() inlined
        if ier & IER_THRE and s[_THRE]:
            line = 1
        elif ier & IER_RX and s[_RX_COUNT] and (s[_RX_COUNT] >= s[_TRIGGER] or s[_AGED]):
            line = 1
        elif ier & IER_LINE and s[LSR] & LSR_ERRORS:
            line = 1
        elif ier & IER_MODEM and s[MSR] & 0x0F:
            line = 1
    if line != s[_LINE]:
        s[_LINE] = line
        far[_IRQ](line)


# IIR where the transmitter is the cause, or there is none: the reads of a driver that prints.
@micropython.viper
def _iir(state: int, far, now: int) -> int:
    s = ptr8(state)
    fifo = IIR_FIFO if s[_FIFOS] else 0
    if s[_LINE] == 0:
        if s[_OPEN]:
            return fifo | IIR_NONE
        return -1
    if s[IER] & IER_LINE and s[LSR] & LSR_ERRORS:
        return -1
    if s[IER] & IER_RX and s[_RX_COUNT] or s[IER] & IER_THRE == 0 or s[_THRE] == 0:
        return -1
    s[_THRE] = 0
    if s[IER] & IER_MODEM == 0 or s[MSR] & 0x0F == 0:
        s[_LINE] = 0
        far[_IRQ](0)
    return fifo | IIR_THRE


# THR with an empty FIFO and without loopback: nearly every character.
@micropython.viper
def _thr(state: int, far, value: int) -> int:
    s = ptr8(state)
    if s[LCR] & LCR_DLAB or s[MCR] & MCR_LOOP or s[_TX_COUNT]:
        return -1
    if not far[0](value):
        return -1
    s[_THRE] = 1
    if s[_LINE] == 0 and s[IER] & IER_THRE and s[_OPEN]:
        s[_LINE] = 1
        far[_IRQ](1)
    return 0
