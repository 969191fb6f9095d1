"""ACPI fixed hardware: PM1a event and control blocks, PM timer, an empty GPE0 block (ACPI specification,
"ACPI Hardware Specification"). There is no SMI command port, so SCI_EN is always set.

The timer is 32 bits wide (TMR_VAL_EXT in the FADT): TMR_STS follows bit 31.
"""

from array import array

import micropython
from micropython import const
from vmx import bind

from vmm.devices import saved
from vmm.devices.oscillator import periods, ticks_at

FREQUENCY = const(3579545)

# Offsets in the block of 16 bytes.
PM1_STS = const(0)
PM1_EN = const(2)
PM1_CNT = const(4)
PM_TMR = const(8)
GPE0_STS = const(12)
SIZE = const(16)

SLP_TYP_S5 = const(5)  # the value of the DSDT's \_S5

_TMR_STS = const(0x0001)
_PWRBTN_STS = const(0x0100)
_STS = const(0x0501)  # the bits that can be set here
_EN = const(0x0521)  # TMR, GBL, PWRBTN, RTC
_SCI_EN = const(0x0001)
_CNT = const(0x1C02)  # BM_RLD and SLP_TYP, the bits of PM1_CNT that are stored
_SLP_EN = const(0x2000)

_SAVED = ("_sts", "_en", "_cnt", "_toggles")


class AcpiPm:
    """`irq(level)` is the SCI; `power_off()` is called when the guest enters S5, `sleep(type)` (optional)
    for any other SLP_TYP."""

    def __init__(self, irq, clock, power_off, sleep=None):
        self.irq = irq
        self.clock = clock
        self.power_off = power_off
        self.sleep = sleep
        self.now = clock.now
        self.hz = clock.hz
        self._hz = array("I", [0, 0])
        self.timer = clock.timer(self._due)
        self.level = 0
        self.reset()

    def reset(self):
        """No events, none enabled."""
        self.timer.cancel()
        self.hz = self.clock.hz
        self._hz[0] = self.hz & 0xFFFFFFFF
        self._hz[1] = self.hz >> 32
        self._sts = self._en = self._cnt = 0
        self._toggles = self._periods() >> 31
        self._update()

    def save(self):
        return saved.save(self, _SAVED)

    def load(self, state):
        saved.load(self, _SAVED, state)
        self._update()

    def reader(self, offset, size):
        """reader(now) -> the four bytes of PM_TMR."""
        return bind(_count, self._hz) if size == 4 and offset == PM_TMR else None

    def writer(self, offset, size):
        """writer(value) -> 0, for registers that ignore writes."""
        return _ignored if size == 4 and offset >= PM_TMR else None

    def read(self, offset, size):
        """`size` bytes (1, 2, 4) of the block at `offset`."""
        if offset == PM_TMR and size == 4:
            return self._periods() & 0xFFFFFFFF
        return self._read(offset, size)

    def write(self, offset, size, value):
        """PM1_STS: writing ones clears. PM_TMR and GPE0 ignore writes."""
        if offset < 0:
            return
        for i in range(size):
            self._write_byte(offset + i, value >> (8 * i) & 0xFF)
        if offset <= PM1_CNT + 1 < offset + size and value >> (8 * (PM1_CNT + 1 - offset)) & (_SLP_EN >> 8):
            kind = self._cnt >> 10 & 7
            if kind == SLP_TYP_S5:
                self.power_off()
            elif self.sleep:
                self.sleep(kind)
        self._sync()
        self._update()

    def press_power_button(self):
        """A short press: PWRBTN_STS, and the SCI if PWRBTN_EN is set."""
        self._sts |= _PWRBTN_STS
        self._update()

    def _periods(self):
        return periods(self.now(), self.hz, FREQUENCY)

    def _read(self, offset, size):
        self._sync()
        value = 0
        for i in range(size):
            at = offset + i
            word = 0
            if at < 0 or at >= SIZE:
                word = 0xFFFF
            elif at < PM1_EN:
                word = self._sts
            elif at < PM1_CNT:
                word = self._en
            elif at < PM1_CNT + 2:
                word = self._cnt | _SCI_EN
            elif PM_TMR <= at < GPE0_STS:
                word = self._periods() >> (8 * (at - PM_TMR & 2)) & 0xFFFF
            value |= (word >> (8 * (at & 1)) & 0xFF) << (8 * i)
        return value

    def _write_byte(self, at, value):
        shift = 8 * (at & 1)
        value <<= shift
        keep = 0xFF00 >> shift
        if at < PM1_EN:
            self._sync()
            self._sts &= ~value
        elif at < PM1_CNT:
            self._en = self._en & keep | value & _EN
        elif at < PM1_CNT + 2:
            self._cnt = self._cnt & keep | value & _CNT

    def _sync(self):
        """Set TMR_STS if bit 31 has changed since the last call."""
        toggles = self._periods() >> 31
        if toggles != self._toggles:
            self._toggles = toggles
            self._sts |= _TMR_STS

    def _update(self):
        level = 1 if self._sts & self._en & _STS else 0
        if level != self.level:
            self.level = level
            self.irq(level)
        if self._en & _TMR_STS:
            self.timer.arm(ticks_at((self._toggles + 1) << 31, self.hz, FREQUENCY))
        else:
            self.timer.cancel()

    def _due(self, _):
        self._sync()
        self._update()


@micropython.viper
def _count(hz: ptr32, now: int) -> int:
    """PM_TMR at `now`; hz: the clock's frequency, two words."""
    rate = int(hz[0]) | int(hz[1]) << 32
    seconds = now // rate
    return (seconds * FREQUENCY + (now - seconds * rate) * FREQUENCY // rate) & 0xFFFFFFFF


@micropython.viper
def _ignored(value: int) -> int:
    """A write to PM_TMR or GPE0."""
    return 0
