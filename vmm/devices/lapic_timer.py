"""The local APIC's timer: one-shot, periodic, TSC-deadline (SDM Vol. 3A, "APIC Timer").

It counts TSC ticks, so its input clock has the frequency of the TSC. A periodic timer that is masked is
computed when it is read, and arms no timer of the vCPU frame.
"""

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices import saved
from vmm.devices.lapic_registers import (
    DEADLINE,
    FRAME_AT,
    IRR,
    LVT_MASKED,
    LVT_TIMER,
    SVR,
    SVR_ENABLED,
    TIMER_INITIAL,
    TIMER_PERIODIC,
    TIMER_TSC_DEADLINE,
    TMR,
    VIRTUAL_DELIVERY,
)
from vmm.devices.oscillator import CALLBACKS_HZ, RETRIES, RETRIES_HZ
from vmm.vtx.frame import DIRTY, DIRTY_RVI, PENDING, RVI

_MADE_UP_S = const(1)  # of lost periods that are made up for
_NEVER = const((1 << 62) - 1)
_SAVED = ("expiry", "shift", "retries", "deadline_mode")


class LapicTimer:
    """`regs`: the APIC's pages. `deliver(vector, 0)` raises the interrupt; it returns 0 if the one before still
    waits."""

    def __init__(self, regs, clock, deliver):
        self.regs = regs
        self.clock = clock
        self.deliver = deliver
        self.timer = clock.timer(bind(_due, uctypes.addressof(regs), self._due))
        self.timer.still_pending = self._still_pending
        self._arm = self.timer.arm
        self.reset()

    def reset(self):
        self.timer.cancel()
        self.expiry = 0  # tick at which the running count ends; 0: stopped
        self.shift = 1  # log2 of the divisor
        self.retries = 0  # since an interrupt was not accepted
        self.deadline_mode = False

    def save(self):
        """The state that is not in the pages."""
        state = saved.save(self, _SAVED)
        state["timer"] = self.timer.deadline
        return state

    def load(self, state):
        saved.need(self, ("timer",), state)
        saved.load(self, _SAVED, state)
        saved.wait(self.timer, state["timer"])

    @micropython.viper
    def _get(self, offset: int) -> int:
        return ptr32(self.regs)[offset >> 2]

    @micropython.viper
    def set_deadline(self, low: int, high: int):
        """IA32_TSC_DEADLINE written, as two halves. Ignored unless the timer is in that mode."""
        r = ptr32(self.regs)
        if (r[LVT_TIMER >> 2] >> 17) & 3 != TIMER_TSC_DEADLINE:
            return
        r[DEADLINE >> 2] = low
        r[(DEADLINE >> 2) + 1] = high
        if low | high:
            self.follow_tsc()
        else:
            self.timer.cancel()

    def follow_tsc(self):
        """Arm the timer for IA32_TSC_DEADLINE, after it was written or the guest's TSC has jumped.

        Both are unsigned 64-bit numbers. A deadline that the TSC has passed is due.
        """
        deadline = self.deadline_high() << 32 | self.deadline_low()
        if not deadline:
            return
        now = self.clock.now()
        tsc = now + self.clock.skew
        if tsc < 0:
            tsc += 1 << 64
        ahead = deadline - tsc
        self._arm(max(now + ahead, 1) if ahead < _NEVER - now else _NEVER)

    def deadline_low(self):
        """Low half of IA32_TSC_DEADLINE; 0 once it has passed."""
        return self._get(DEADLINE)

    def deadline_high(self):
        return self._get(DEADLINE + 4)

    def current(self):
        """The current count."""
        if not self.expiry:
            return 0
        left = self.expiry - self.clock.now()
        if left <= 0:
            if self._get(LVT_TIMER) >> 17 & 3 != TIMER_PERIODIC:
                return 0
            period = self._get(TIMER_INITIAL) << self.shift
            left = period - -left % period
        return (left + (1 << self.shift) - 1) >> self.shift

    def start(self, count):
        """The initial count was written."""
        if self._get(LVT_TIMER) >> 17 & 3 == TIMER_TSC_DEADLINE:
            return
        if count:
            self.expiry = self.clock.now() + (count << self.shift)
            self._wait()
        else:
            self.expiry = 0
            self.timer.cancel()

    def divide(self, value):
        """The divide configuration was written: a running count continues at the new rate."""
        current = self.current()
        self.shift = ((value & 3 | value >> 1 & 4) + 1) & 7
        if current and self.expiry:
            self.expiry = self.clock.now() + (current << self.shift)
            self._wait()

    @micropython.viper
    def _still_pending(self) -> int:
        """Whether the interrupt of the last period has not been accepted yet."""
        if self.retries:
            return 1 if (int(self._get(LVT_TIMER)) >> 17) & 3 == TIMER_PERIODIC else 0
        return 0

    def _silent(self):
        lvt = self._get(LVT_TIMER)
        return lvt & LVT_MASKED and lvt >> 17 & 3 == TIMER_PERIODIC

    def _wait(self):
        """Arm the timer for the end of the running count, unless it is periodic and masked."""
        if self._silent():
            self.timer.cancel()
        else:
            self.timer.arm(self.expiry)

    def set_mode(self, mode):
        """The LVT entry was written. Between one-shot and periodic the count continues; to and from TSC-deadline mode
        it is disarmed. A periodic count that was masked is in the middle of some period."""
        if (mode == TIMER_TSC_DEADLINE) == self.deadline_mode:
            if self.expiry and not self.timer.deadline and not self._silent():
                late = self.clock.now() - self.expiry
                if late >= 0:
                    period = self._get(TIMER_INITIAL) << self.shift
                    self.expiry += (late // period + 1) * period
                self.timer.arm(self.expiry)
            return
        self.deadline_mode = mode == TIMER_TSC_DEADLINE
        self.timer.cancel()
        self.expiry = 0
        self._forget()

    @micropython.viper
    def _forget(self):
        r = ptr32(self.regs)
        r[DEADLINE >> 2] = 0
        r[(DEADLINE >> 2) + 1] = 0

    # 1,410, `kick` included.
    @micropython.viper
    def _due(self, now: int):
        """The timer."""
        r = ptr32(self.regs)
        lvt = r[LVT_TIMER >> 2]
        mode = (lvt >> 17) & 3
        if mode == TIMER_PERIODIC:
            self._period(now)
            return
        if mode == TIMER_TSC_DEADLINE:
            r[DEADLINE >> 2] = 0
            r[(DEADLINE >> 2) + 1] = 0
        else:
            self.expiry = 0
        if lvt & LVT_MASKED == 0:
            self.deliver(lvt & 0xFF, 0)

    def _period(self, now):
        """A period ends. Lost ones are made up for one by one, each when the one before has been accepted."""
        period = self._get(TIMER_INITIAL) << self.shift
        if not self.expiry or not period:
            self.expiry = 0
            return
        lvt = self._get(LVT_TIMER)
        if lvt & LVT_MASKED:
            return  # set_mode() finds the current period when it is unmasked
        hz = self.clock.hz
        soonest = hz // CALLBACKS_HZ
        legal = lvt & 0xFF > 15
        if self.deliver(lvt & 0xFF, 0) == 0 or not legal:
            if not legal:  # the error has been raised; lost periods need not raise it again
                self.expiry += ((now - self.expiry) // period + 1) * period
            step = max(soonest, period // 4)
            self.timer.arm(now + max(step, min(step << self.retries, hz // RETRIES_HZ)))
            self.retries = min(self.retries + 1, RETRIES)
            return
        self.retries = 0
        soonest += now
        late = now - self.expiry
        if late > self.clock.hz * _MADE_UP_S:
            self.expiry += late // period * period
        self.expiry += period
        self.timer.arm(max(soonest, self.expiry))


# The fast path of `LapicTimer._due` for TSC deadlines, with lapic_vectors.post() inlined: its call costs 200.
@micropython.viper
def _due(page: int, slow, now: int):
    """The timer's callback; slow(now) has all other cases."""
    r = ptr32(page)
    lvt = r[LVT_TIMER >> 2]
    vector = lvt & 0xFF
    at = (vector >> 5) << 2
    bit = 1 << (vector & 31)
    frame = int(r[FRAME_AT >> 2])
    if frame == 0 or (lvt >> 17) & 3 != TIMER_TSC_DEADLINE or vector < 16:
        slow(now)
        return
    if r[SVR >> 2] & SVR_ENABLED == 0 or r[(TMR >> 2) + at] & bit:
        slow(now)
        return
    r[DEADLINE >> 2] = 0
    r[(DEADLINE >> 2) + 1] = 0
    if lvt & LVT_MASKED:
        return
    r[(IRR >> 2) + at] |= bit
    f = ptr32(frame)
    if r[VIRTUAL_DELIVERY >> 2] == 0:
        f[PENDING] = 1
        return
    dirty = f[DIRTY]
    if f[RVI] < vector or dirty & DIRTY_RVI == 0:
        f[RVI] = vector
    f[DIRTY] = dirty | DIRTY_RVI
