"""MC146818 real-time clock with 128 bytes of CMOS RAM (Motorola MC146818A data sheet).

Time is the host's start time plus the clock, unless the guest sets it. The update takes no time: UIP is set for the
244 us before each second. Flags are computed when they are read; a timer runs only for interrupts that are enabled.
Several periodic interrupts that were missed count as one. Register 32h is the century, as in the FADT. There is no
daylight saving.
"""

import micropython
from micropython import const

from vmm.devices import saved

NMI_OFF = const(0x80)  # of the index port

CENTURY = const(0x32)

SECONDS = const(0)
MINUTES = const(2)
HOURS = const(4)
_WEEKDAY = const(6)
DAY = const(7)
MONTH = const(8)
YEAR = const(9)
A = const(10)
B = const(11)
_C = const(12)
_D = const(13)

A_UIP = const(0x80)
_A_STOP = const(0x60)  # both set: the divider is held in reset
_B_SET = const(0x80)
_B_PIE = const(0x40)
_B_AIE = const(0x20)
_B_UIE = const(0x10)
B_BINARY = const(0x04)
B_24H = const(0x02)
_C_IRQF = const(0x80)
_D_VRT = const(0x80)
PM = const(0x80)
_ANY = const(0xC0)  # an alarm register with both bits matches always

_UIP_HZ = const(4098)  # 244 us
_DAY_S = const(86400)
_NEVER = const(-(1 << 60))

_SAVED = ("ram", "index", "tick", "shown", "_seconds", "_seen")


class Mc146818:
    """Offset 0 the index port (70h, bit 7 masks NMIs), offset 1 the data port (71h).

    `epoch` is the current time, in seconds since 1970. `irq(level)` is the interrupt line.
    `nmi_mask(on)`, optional, is called when the NMI bit changes. `ram` holds the CMOS contents from 0Eh on.
    """

    def __init__(self, irq, clock, epoch, nmi_mask=None):
        self.irq = irq
        self.clock = clock
        self.nmi_mask = nmi_mask
        self.ram = bytearray(128)
        self.timer = clock.timer(self._due)
        self.level = 0
        self.index = 0
        # The time is `_seconds` plus the whole seconds since `tick`.
        self._seconds = epoch
        self.tick = clock.now()
        self._seen = self.tick  # the flags are up to date as of this tick
        self.shown = _NEVER  # tick at which the second in the registers began
        self.ram[A] = 0x26
        self.ram[B] = B_24H
        self.reset()

    def reset(self):
        """RESET clears interrupt enables and flags; time and RAM are battery-backed."""
        self.ram[B] &= ~(_B_PIE | _B_AIE | _B_UIE) & 0xFF
        self.ram[_C] = 0
        self.index = 0
        self._drive()

    def __repr__(self):
        from vmm.debug import chips

        return chips.rtc(self)

    def save(self):
        """Plain data; the time advances by the guest's clock from `tick` on."""
        return saved.save(self, _SAVED)

    def load(self, state):
        masked = self.index & NMI_OFF
        saved.load(self, _SAVED, state)
        if self.nmi_mask and masked ^ self.index & NMI_OFF:
            self.nmi_mask(self.index >> 7)
        self._drive()

    def reader(self, offset, size):
        """reader(now) -> the register that the index selects, or -1: call read()."""
        return self._register if size == 1 and offset == 1 else None

    # A kernel reads some hundred times while it waits for the end of an update. In bytecode a read takes 17,000 ticks.
    @micropython.viper
    def _register(self, now: int) -> int:
        """reader() of the data port."""
        ram = ptr8(self.ram)
        index = int(self.index) & 0x7F
        value = int(ram[index])
        if index == _C or index == _D:
            return -1
        if index > A and index != CENTURY or index == 1 or index == 3 or index == 5:
            return value
        if ram[B] & _B_SET or int(ram[A]) & _A_STOP == _A_STOP:
            return value
        hz = int(self.clock.hz)
        if index == A:
            updating = (now - int(self.tick)) % hz >= hz - hz // _UIP_HZ
            return value & 0x7F | A_UIP if updating else value & 0x7F
        passed = now - int(self.shown)
        return value if 0 <= passed and passed < hz else -1

    def read(self, offset, size):
        """The index, or the register that it selects."""
        if offset == 0:
            return self.index
        if offset != 1:
            return 0xFF
        index = self.index & 0x7F
        if index == A:
            return self.ram[A] & 0x7F | (A_UIP if self._updating() else 0)
        if index == _C:
            self._look()
            value = self.ram[_C]
            self.ram[_C] = 0
            self._drive()
            return value
        if index == _D:
            return _D_VRT
        if index < A and index not in (1, 3, 5) or index == CENTURY:
            if self._running():
                self._fields(self._time())
        return self.ram[index]

    def write(self, offset, size, value):
        """Selects a register, or writes the selected one."""
        value &= 0xFF
        if offset == 0:
            if self.nmi_mask and (value ^ self.index) & NMI_OFF:
                self.nmi_mask(value >> 7)
            self.index = value
        elif offset == 1:
            self._write(self.index & 0x7F, value)

    def _write(self, index, value):
        ram = self.ram
        self._look()
        if index == _C or index == _D:
            return
        if index == A or index == B:
            ran = self._running()
            if ran:
                self._fields(self._time())
            if index == A:
                held = ram[A] & _A_STOP == _A_STOP
                ram[A] = value & 0x7F
                released = held and value & _A_STOP != _A_STOP
            else:
                if value & _B_SET:
                    value &= ~_B_UIE & 0xFF
                ram[B] = value
                released = False
            if self._running() and not ran:
                self._set_time(self.clock.hz // 2 if released else self._fraction())
        elif index < A and index not in (1, 3, 5) or index == CENTURY:
            ran = self._running()
            if ran:
                self._fields(self._time())
            ram[index] = value
            if ran:
                self._set_time(self._fraction())
        else:
            ram[index] = value
        self.shown = _NEVER
        self._drive()

    def _running(self):
        return not self.ram[B] & _B_SET and self.ram[A] & _A_STOP != _A_STOP

    def _time(self):
        """Seconds since 1970."""
        return self._seconds + (self.clock.now() - self.tick) // self.clock.hz

    def _fraction(self):
        """Ticks since the second began."""
        return (self.clock.now() - self.tick) % self.clock.hz

    def _updating(self):
        hz = self.clock.hz
        return self._running() and self._fraction() >= hz - hz // _UIP_HZ

    def _bcd(self, value):
        return value if self.ram[B] & B_BINARY else value // 10 << 4 | value % 10

    def _number(self, value):
        return value if self.ram[B] & B_BINARY else (value >> 4) * 10 + (value & 15)

    def _hour(self, value):
        """0..23 from an hours register; impossible values are bounded."""
        if self.ram[B] & B_24H:
            return self._number(value) % 24
        return self._number(value & 0x7F) % 12 + (12 if value & PM else 0)

    def _fields(self, time):
        """Writes `time` into the registers."""
        ram = self.ram
        self.shown = self.tick + (time - self._seconds) * self.clock.hz
        days = time // _DAY_S
        second = time % _DAY_S
        ram[SECONDS] = self._bcd(second % 60)
        ram[MINUTES] = self._bcd(second // 60 % 60)
        hour = second // 3600
        if ram[B] & B_24H:
            ram[HOURS] = self._bcd(hour)
        else:
            ram[HOURS] = self._bcd((hour + 11) % 12 + 1) | (PM if hour >= 12 else 0)
        ram[_WEEKDAY] = (days + 4) % 7 + 1  # 1970 began on a Thursday, Sunday is 1
        # Civil date: years that begin in March, in eras of 400 years.
        days += 719468
        day = days % 146097
        year = (day - day // 1460 + day // 36524 - day // 146096) // 365
        day -= 365 * year + year // 4 - year // 100
        month = (5 * day + 2) // 153
        year += days // 146097 * 400 + (1 if month >= 10 else 0)
        ram[DAY] = self._bcd(day - (153 * month + 2) // 5 + 1)
        ram[MONTH] = self._bcd(month + 3 if month < 10 else month - 9)
        ram[YEAR] = self._bcd(year % 100)
        ram[CENTURY] = self._bcd(year // 100 % 100)

    def _set_time(self, fraction):
        """Takes the time from the registers; `fraction` ticks of the second have passed already."""
        ram = self.ram
        year = self._number(ram[CENTURY]) * 100 + self._number(ram[YEAR])
        month = max(1, min(self._number(ram[MONTH]), 12))
        day = max(1, min(self._number(ram[DAY]), 31))
        if month < 3:
            year -= 1
        month = (month + 9) % 12
        days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1 - 719468
        second = self._hour(ram[HOURS]) * 3600
        second += self._number(ram[MINUTES]) % 60 * 60 + self._number(ram[SECONDS]) % 60
        self._seconds = days * _DAY_S + second
        self.tick = self.clock.now() - fraction
        self._seen = self.clock.now()

    def _alarm(self, time):
        """The first second after `time` that matches the alarm registers; None if there is none within a day."""
        ram = self.ram
        second = time % _DAY_S
        midnight = time - second
        # A wildcard is -1.
        hours = -1 if ram[5] >= _ANY else self._hour(ram[5])
        minutes = -1 if ram[3] >= _ANY else self._number(ram[3])
        seconds = -1 if ram[1] >= _ANY else self._number(ram[1])
        if minutes > 59 or seconds > 59:
            return None
        for ahead in range(25):
            hour = (second // 3600 + ahead) % 24
            day = (second // 3600 + ahead) // 24
            if hours < 0 or hours == hour:
                for minute in range(60):
                    if minutes < 0 or minutes == minute:
                        base = midnight + day * _DAY_S + hour * 3600 + minute * 60
                        at = base + max(seconds, 0)
                        if seconds < 0 and base <= time < base + 59:
                            at = time + 1
                        if at > time:
                            return at
        return None

    def _period(self):
        """The period of the periodic interrupt in periods of 32768 Hz, 0 if it is off."""
        rate = self.ram[A] & 15
        if rate == 0 or self.ram[A] & 0x70 != 0x20:
            return 0
        return 1 << (rate + 6 if rate < 3 else rate - 1)

    def _look(self):
        """Set the flags of all events up to now."""
        now = self.clock.now()
        seen = self._seen
        self._seen = now
        hz = self.clock.hz
        flags = 0
        period = self._period()
        if period and self._crossed(now, period) != self._crossed(seen, period):
            flags |= _B_PIE
        if self._running():
            before = (seen - self.tick) // hz
            after = (now - self.tick) // hz
            if after != before:
                flags |= _B_UIE
                at = self._alarm(self._seconds + before)
                if at is not None and at <= self._seconds + after:
                    flags |= _B_AIE
        self.ram[_C] |= flags

    def _crossed(self, tick, period):
        """The number of periods that have ended by `tick`; the 32768 Hz are in phase with the seconds."""
        tick -= self.tick
        hz = self.clock.hz
        return (tick // hz * 32768 + tick % hz * 32768 // hz) // period

    def _drive(self):
        """Derive IRQF and the line from flags and enables; arm the timer for the next enabled event."""
        ram = self.ram
        wanted = ram[B] & (_B_PIE | _B_AIE | _B_UIE)
        level = 1 if ram[_C] & wanted else 0
        if level:
            ram[_C] |= _C_IRQF
        if level != self.level:
            self.level = level
            self.irq(level)
        deadline = 0
        if wanted and not level:
            deadline = self._next(wanted)
        if deadline:
            self.timer.arm(deadline)
        else:
            self.timer.cancel()

    def _next(self, wanted):
        """The tick of the next event among `wanted`; 0 if there is none."""
        hz = self.clock.hz
        seen = self._seen
        deadline = 0
        period = self._period()
        if wanted & _B_PIE and period:
            count = (self._crossed(seen, period) + 1) * period
            deadline = self.tick + count // 32768 * hz + (count % 32768 * hz + 32767) // 32768
        if wanted & (_B_UIE | _B_AIE) and self._running():
            passed = (seen - self.tick) // hz
            at = passed + 1
            if not wanted & _B_UIE:
                at = self._alarm(self._seconds + passed)
                if at is None:
                    return deadline
                at -= self._seconds
            at = self.tick + at * hz
            if not deadline or at < deadline:
                deadline = at
        return deadline

    def _due(self, _):
        self._look()
        self._drive()
