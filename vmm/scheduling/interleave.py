"""The order of a guest's vCPUs, chosen by a function of the user's: vm.interleave.

    vm.interleave = Random(7, instructions=1)      # or RoundRobin, Starve, Replay, or a function of one's own
    vm.start()
    vm.interleave.schedule                          # [(vCPU's number, points), ...] since the start

It is called at each switch point: f(vm, runnable, why) -> one of the vCPUs in `runnable`. A switch point is an exit
that an instruction of the guest causes (`why` is its reason's name: PAUSE, CPUID, an IPI as APIC_WRITE or WRMSR, ...),
the end of `ticks` ticks in the guest (TICKS) or of `instructions` instructions (INSTRUCTIONS) where f has one of these
attributes, and a vCPU that waits (HALT, START). Between two of them one vCPU runs, whatever interrupts of the host or
turns of other guests come in between; so the same answers give the same order, as long as the guest itself is the same
and nothing comes from outside. Instructions are counted by the monitor trap flag. The start and reset of the guest call
f.restart() where there is one.
"""

import sys
from array import array

import cpu
import micropython
from micropython import const
from vmx import bind

from vmm.scheduling.accounting import heap_of_call
from vmm.scheduling.states import RUNNING
from vmm.verdict import YIELD
from vmm.vtx import reasons
from vmm.vtx.frame import GUEST_TICKS, MIN_RUN, ORDERED
from vmm.vtx.vmcs_bits import CONTROL_MONITOR_TRAP_FLAG, CONTROL_PAUSE_EXITING

_MOST = const(1 << 16)  # runs of a schedule that are kept
_LIMIT_SLICES = const(10)  # the longest time of a function
_ON = const(1)  # of frame.ORDERED
_TICKS = const(2)  # of frame.ORDERED: the turn ends by MIN_RUN
_NUMBER_BITS = const(8)

# Exits that no instruction of the guest causes: they are no switch points.
NO_POINTS = (
    reasons.EXTERNAL_INTERRUPT, reasons.INTERRUPT_WINDOW, reasons.NMI_WINDOW, reasons.PREEMPTION_TIMER_EXPIRED,
    reasons.MONITOR_TRAP_FLAG, reasons.TPR_BELOW_THRESHOLD, reasons.EXCEPTION_OR_NMI, reasons.PENDING,
    reasons.ATTENTION, reasons.COMPLETED, reasons.WRITTEN,
)  # fmt: skip


class _Order:
    """instructions, ticks: how many of them are between two switch points at most; 0: the guest's exits alone count."""

    def __init__(self, instructions=0, ticks=0):
        self.instructions = instructions
        self.ticks = ticks
        self.restart()

    def restart(self):
        """The guest starts."""


class RoundRobin(_Order):
    """One after the other."""

    def restart(self):
        self._last = -1

    def __call__(self, vm, runnable, why):
        after = [vcpu for vcpu in runnable if vcpu.number > self._last] or runnable
        self._last = after[0].number
        return after[0]


class Random(_Order):
    """Random, by a seed: the same seed gives the same order. stay: so many points on average without a choice."""

    def __init__(self, seed, instructions=0, ticks=0, stay=0):
        self.seed = seed
        self.stay = stay
        super().__init__(instructions, ticks)

    def restart(self):
        self._last = None
        self._state = (self.seed * 0x9E3779B1 ^ 0x2545F491) & 0xFFFFFFFF or 1

    def __call__(self, vm, runnable, why):
        state = self._state  # xorshift of 32 bits
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        self._state = state
        if self._last not in runnable or (state >> 16) % (self.stay + 1) == 0:
            self._last = runnable[(state >> 8) % len(runnable)]
        return self._last


class Starve(_Order):
    """One vCPU, by its number, runs only where no other can, or where one that could spins (PAUSE)."""

    def __init__(self, number, instructions=0, ticks=0):
        self.number = number
        super().__init__(instructions, ticks)

    def restart(self):
        self._last = -1

    def __call__(self, vm, runnable, why):
        others = [vcpu for vcpu in runnable if (vcpu.number == self.number) == (why == "PAUSE")] or runnable
        after = [vcpu for vcpu in others if vcpu.number > self._last] or others
        self._last = after[0].number
        return after[0]


class Replay(_Order):
    """A recorded schedule. `diverged`: the first point at which the vCPU that it names could not run, or None."""

    def __init__(self, schedule, instructions=0, ticks=0):
        self.schedule = list(schedule)
        super().__init__(instructions, ticks)

    def restart(self):
        self.diverged = None
        self._point = self._run = self._done = 0

    def __call__(self, vm, runnable, why):
        self._point += 1
        while self._run < len(self.schedule) and self._done == self.schedule[self._run][1]:
            self._run += 1
            self._done = 0
        if self._run < len(self.schedule):
            self._done += 1
            for vcpu in runnable:
                if vcpu.number == self.schedule[self._run][0]:
                    return vcpu
            if self.diverged is None:
                self.diverged = self._point
        return runnable[0]


class Interleave:
    """The value of vm.interleave: the function in use, and its answers. points: how often it was called."""

    def __init__(self, vm, function):
        """ValueError where the guest or the CPU cannot."""
        if not callable(function):
            raise ValueError("interleave: a function of (vm, runnable, why), not %r" % (function,))
        if len(vm.vcpus) == 1:
            raise ValueError("interleave: guest %s has one vCPU" % vm.name)
        self.vm = vm
        self.function = function
        self.ticks = getattr(function, "ticks", 0)
        self.instructions = getattr(function, "instructions", 0)
        for name in ("ticks", "instructions"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value < 1 << 31:
                raise ValueError("interleave: %s %r: a number from 0 to 2147483647" % (name, value))
        if self.instructions and not vm.monitor.trial.mtf:
            raise ValueError("interleave: this CPU has no monitor trap flag, by which instructions are counted")
        self._names = reasons.names()
        self.restart()

    def restart(self):
        """The guest starts, or the function is new."""
        self.begin()
        self._last = None
        self._entry = 0
        self._mark = 0
        restart = getattr(self.function, "restart", None)
        if restart:
            restart()

    def begin(self):
        """The schedule is that from now on."""
        self.points = 0
        self.truncated = False
        self._runs = array("I")

    @property
    def schedule(self):
        """[(number of the vCPU, at how many switch points in a row it was chosen), ...]."""
        return [(run & (1 << _NUMBER_BITS) - 1, run >> _NUMBER_BITS) for run in self._runs]

    def arm(self, on):
        """Count the guest's instructions and ticks, and let its exits come back to the scheduler; or no longer."""
        vm = self.vm
        for vcpu in vm.vcpus:
            _arm(vcpu, (_TICKS if self.ticks else _ON) if on else 0, self.instructions if on else 0)
        bits = CONTROL_PAUSE_EXITING | (CONTROL_MONITOR_TRAP_FLAG if self.instructions else 0)
        vm.arming.primary(bits, 1 if on else -1)
        vm.exits.after(_point if on else None, NO_POINTS)

    def choose(self):
        """The vCPU that runs now."""
        vm = self.vm
        free = [vcpu for vcpu in vm.vcpus if not vcpu.scheduled.held]
        if len(free) == 1:
            return free[0]  # it is in a step for which the others are held: no point in between
        why = self._why()
        last = self._last
        if why:
            runnable = [vcpu for vcpu in vm.vcpus if vcpu.scheduled.state == RUNNING]
            last = self._ask(runnable, why)
            if vm.interleave is not self:
                return last
            self._last = last
            self._note(last.number)
            _arm(last, _TICKS if self.ticks else _ON, self.instructions)
            self._mark = last.scheduled.get(GUEST_TICKS)
        self._entry = last.entry_tsc
        if self.ticks:
            least = 2 << vm.monitor.caps.misc.PREEMPTION_TIMER_SHIFT  # of the VMX-preemption timer
            _limit(last, max(self.ticks - (last.scheduled.get(GUEST_TICKS) - self._mark), least))
        return last

    def _why(self):
        """The switch point that this is, or None."""
        last = self._last
        if last is None:
            return "START"
        if last.scheduled.state != RUNNING:
            return "HALT"
        if last.entry_tsc == self._entry:
            return None  # it has not run since it was chosen
        if self.instructions and _left(last) <= 0:
            return "INSTRUCTIONS"
        if self.ticks and last.scheduled.get(GUEST_TICKS) - self._mark >= self.ticks:
            return "TICKS"
        reason = last.reason
        return None if reason in NO_POINTS else self._names.get(reason, "EXIT")

    def _ask(self, runnable, why):
        cpu.watch(cpu.rdtsc() + _LIMIT_SLICES * self.vm.monitor.scheduler.slice_ticks)
        try:
            vcpu = cpu.guard(self._call, (runnable, why), heap_of_call())
            if vcpu not in runnable:
                raise ValueError("it returned %r, which cannot run" % (vcpu,))
            return vcpu
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.vm.interleave = None
            print("interleave of guest %s failed and is removed:" % self.vm.name)
            sys.print_exception(error)
            return runnable[0]
        finally:
            cpu.watch(0)

    def _call(self, arguments):
        return self.function(self.vm, arguments[0], arguments[1])

    def _note(self, number):
        self.points += 1
        runs = self._runs
        if runs and runs[-1] & (1 << _NUMBER_BITS) - 1 == number and runs[-1] >> 31 == 0:
            runs[-1] += 1 << _NUMBER_BITS
        elif len(runs) < _MOST:
            runs.append(number | 1 << _NUMBER_BITS)
        else:
            self.truncated = True

    def __repr__(self):
        return "<interleave of %s by %s: %d points%s>" % (
            self.vm.name, getattr(type(self.function), "__name__", "a function"), self.points,
            ", the schedule is cut off" if self.truncated else "",
        )  # fmt: skip


class Interleaved:
    """The part of vmm.vm.VM that has an order of the user's."""

    _interleave = None

    @property
    def interleave(self):
        """None, or an Interleave; set it to a function of (vm, runnable, why)."""
        return self._interleave

    @interleave.setter
    def interleave(self, function):
        if isinstance(function, Interleave):
            function = function.function
        new = None if function is None else Interleave(self, function)
        old, self._interleave = self._interleave, new
        if old and not (new and old.instructions == new.instructions and old.ticks == new.ticks):
            old.arm(False)
            old = None
        if new and not old:
            new.arm(True)


def monitor_trap_flag(unhandled):
    """Return the handler of the monitor trap flag's exits: one instruction is over. unhandled: of one that nobody has
    asked for."""
    return bind(_instruction, unhandled)


@micropython.viper
def _instruction(unhandled, vcpu) -> int:
    f = ptr32(vcpu)
    left = int(f[ORDERED + 1])
    if left == 0:
        if int(vcpu.vm.arming.primary_bits) & CONTROL_MONITOR_TRAP_FLAG == 0:
            return int(unhandled(vcpu))
        return 0
    f[ORDERED + 1] = left - 1
    return YIELD if left == 1 else 0


def _point(handler):
    """A handler whose exit is a switch point."""
    return bind(_yields, handler)


@micropython.viper
def _yields(handler, vcpu) -> int:
    return int(handler(vcpu)) | YIELD


@micropython.viper
def _arm(vcpu, word: int, instructions: int):
    f = ptr32(vcpu)
    f[ORDERED] = word
    f[ORDERED + 1] = instructions


@micropython.viper
def _left(vcpu) -> int:
    return int(ptr32(vcpu)[ORDERED + 1])


@micropython.viper
def _limit(vcpu, ticks: int):
    f = ptr32(vcpu)
    f[MIN_RUN] = ticks
    f[MIN_RUN + 1] = 0
