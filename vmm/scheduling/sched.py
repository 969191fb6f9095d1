"""Who runs when: guests run while the prompt waits, and in time.sleep.

The scheduler is the port's idle hook. It gives the CPU to the runnable guest with the
highest priority, by turns and shares among equals; a halted guest costs nothing until its
timer or an interrupt wakes it, and then takes the CPU from those below it. While a line of
Python executes, guests stand still. What it goes by stands in the vCPU frames, so that the
way from one guest to the next makes no objects and calls no bytecode.

`sched.policy` puts an object of the user's in place of that rule: its pick(runnable) gets the
VMs that can run and returns one of them, or None for nobody.
"""

import gc
import sys
from array import array

import cpu
import micropython
import vmx
from micropython import const

from vmm import verdict
from vmm.scheduling.clock import expire
from vmm.scheduling.preemption import Preemption, earliest
from vmm.vtx import exits
from vmm.vtx.events import wakes

_SLICE_MS = const(10)
_LIMIT_SLICES = const(100)  # the longest that a user's rule may think
_GRACE = const(20000)  # ticks
_MOST = const(256)  # guests, as many as there are VPIDs

RUNNING = "running"
HALTED = "halted"
PAUSED = "paused"
STOPPED = "stopped"
OFF = "off"

# Words of the frame (vmm/vtx/frame.py).
_DIRTY = const(0x0F8 // 4)
_PENDING = const(0x108 // 4)
_GUEST_TICKS = const(0x128 // 4)
_HOST_TICKS = const(0x180 // 4)
_CLOCK_OFFSET = const(0x1A0 // 4)
_SLICE_END = const(0x1A8 // 4)
_STATE = const(0xB00 // 4)
_PRIORITY = const(0xB08 // 4)
_TURN = const(0xB10 // 4)
_SHARE = const(0xB18 // 4)
_WAKES = const(0xB20 // 4)
_DUE = const(0xB38 // 4)
_NEXT = const(0xB48 // 4)
_LEAD = const(0xB58 // 4)
_DIRTY_TIMERS = const(1 << 5)
_DIRTY_RVI = const(1 << 7)

# Values of frame.STATE.
STILL = const(0)  # paused, stopped, off
RUNS = const(1)
WAITS = const(2)  # halted

# Words of Scheduler._words.
_COUNT = const(0)
_NOW = const(2)  # two words: virtual time, the turn of the guest that ran last; who wakes up starts there
_INSIDE = const(4)  # number of the guest whose exit loop runs, plus 1
_SWITCHES = const(5)
_LAST = const(6)  # frame of the guest that ran last
_FLOOR = const(7)  # guests below this priority are not looked at: one of them is interrupted
_LATER = const(8)  # bits of what was put off until no handler is interrupted
_AGAIN = const(9)  # two words: host TSC at which the next guest above the floor is due
_ABOVE = const(11)  # the least priority that interrupts what is done now
_WORDS = const(12)

# Blocks of 128 bytes allocated since the last garbage collection after which there is another: where a guest
# above can interrupt it, and where none would.
_TIDY = const(4096)
_TIDY_AT_LAST = const(65536)

# Bits of _LATER.
_POLL = const(1)  # consoles
_TIES = const(2)  # what guests have for each other

# Bits of verdicts (vmm/verdict.py).
_WAIT = const(4)
_HOST = const(256)
_BEYOND = const(0x7FFFFFF8 & ~256)  # what VM.apply has to see to


class Scheduler(Preemption):
    """machines: the VMs, in creation order. policy: None, or an object with pick(runnable)."""

    def __init__(self, tsc_hz):
        self.machines = []
        self.slice_ticks = tsc_hz * _SLICE_MS // 1000
        self.policy = None
        self._words = array("I", [0] * _WORDS)
        self._frames = array("I", [0] * _MOST)
        self._vcpus = []
        self._callbacks = []
        self._ready = []  # of the consoles
        self._started = cpu.rdtsc()
        self._allocated = cpu.allocated()
        self._run_above = _run_above
        super().__init__()

    def add(self, vm, frame):
        """A VM takes part from now on. frame: hpa of its vCPU frame."""
        self._frames[len(self.machines)] = frame
        self.machines.append(vm)
        self._vcpus.append(vm.vcpu)
        self._callbacks.append(vm.clock.callbacks)
        self._ready.append(vm.console.ready)
        self._words[_COUNT] = len(self.machines)

    def remove(self, vm):
        cpu.hold(1)
        try:
            self._remove(vm)
        finally:
            cpu.hold(-1)

    def _remove(self, vm):
        at = self.machines.index(vm)
        for table in (self.machines, self._vcpus, self._callbacks, self._ready):
            del table[at]
        self._words[_LATER] |= _POLL  # in the middle of a poll it passes over one
        for i in range(at, len(self.machines)):
            self._frames[i] = self._frames[i + 1]
        self._words[_COUNT] = len(self.machines)
        if self._words[_INSIDE] > at + 1:
            self._words[_INSIDE] -= 1
        self._words[_LAST] = 0

    @property
    def inside(self):
        """The guest whose exit loop runs, or None."""
        at = self._words[_INSIDE]
        return self.machines[at - 1] if at else None

    @property
    def switches(self):
        """How often the CPU went from one guest to another."""
        return self._words[_SWITCHES]

    @property
    def now(self):
        """Virtual time, where a guest that wakes up starts."""
        return self._words[_NOW] | self._words[_NOW + 1] << 32

    def hook(self, deadline):
        """The port's idle hook: run guests until the monitor is wanted."""
        # The port never nests hooks: a policy that sleeps runs no guest.
        self._words[_INSIDE] = self._words[_FLOOR] = self._interrupted[0] = 0
        while not cpu.wanted():
            self._turns(deadline, False)

    def step(self, deadline=0):
        """Run one guest once, or sleep until something happens. deadline: host TSC, 0: none."""
        self._turns(deadline, True)

    def _turns(self, deadline, once):
        try:
            if self.policy:
                self._by_policy(deadline)
            else:
                _turns(self, deadline, 1 if once else 0)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            self._failed(error)
        finally:
            self._left()
            if self._words[_LATER]:
                self._see_to()

    def _failed(self, error):
        vm = self.inside
        if vm is None:
            raise error
        vm.log("stopped: the monitor's handler for exit reason %d failed" % (vm.vcpu.reason & 0xFFFF))
        sys.print_exception(error)
        vm.apply(verdict.STOP)

    def _left(self):
        """No handler runs any more."""
        self.disarm()
        if self._words[_INSIDE]:
            self.inside.vcpu.left()
            self._words[_INSIDE] = 0

    def _see_to(self):
        """What was put off while a handler was interrupted."""
        later = self._words[_LATER]
        self._words[_LATER] = 0
        if later & _TIES:
            for settle in self._settle:
                settle()
        self.poll()

    def _by_policy(self, deadline):
        """One turn, by the user's rule."""
        runnable = [vm for vm in self.machines if vm.state == RUNNING or vm.state == HALTED and vm.wake()]
        timers = [when for when in [vm.next_timer() for vm in self.machines if vm.state == HALTED] if when]
        if deadline:
            timers.append(deadline)
        vm = self._pick(runnable) if runnable else None
        if self.policy is None:  # the usual rule goes on
            return
        if vm is None:
            cpu.idle(min(timers) if timers else 0)
        else:
            at = self.machines.index(vm)
            vm.clock.slice_end = min([cpu.rdtsc() + self.slice_ticks] + timers)
            self._words[_INSIDE] = at + 1
            self._words[_LAST] = self._frames[at]
            vm.apply(exits.run(vm.vcpu, vmx.enter))
        self.poll()

    def _pick(self, runnable):
        """Whom the user's rule names. One that fails is removed: it must not keep guests from running."""
        cpu.watch(cpu.rdtsc() + _LIMIT_SLICES * self.slice_ticks)
        try:
            vm = cpu.guard(self.policy.pick, runnable)
            if vm is not None and vm not in runnable:
                raise ValueError("pick() returned %r, which cannot run" % (vm,))
            return vm
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.policy = None
            print("sched.policy failed and is removed:")
            sys.print_exception(error)
            return None
        finally:
            cpu.watch(0)

    def poll(self):
        """Consoles: what came in, and what has room to go out."""
        _poll(self)

    def tend(self, at):
        """Look after a console that has something to move. Guests above its guest do not wait for that."""
        vm = self.machines[at]
        if vm.state is OFF and not vm.console.uart.pending():
            return
        try:
            self.arm(vm.priority)
            vm.console.poll()
        finally:
            self.disarm()

    def tidy(self, priority):
        """Collect garbage. Guests above `priority` do not wait for it."""
        self.arm(priority)
        try:
            gc.collect()
        finally:
            self.disarm()

    def top(self):
        """Print the share of the CPU, wake-ups and their lateness of each guest since the call before.

        Lateness is host TSC ticks from a timer's deadline to the entry into the guest that slept.
        """
        now = cpu.rdtsc()
        passed = max(now - self._started, 1)
        print("%-14s %-8s %4s %7s %7s %9s %12s %12s" % (
            "NAME", "STATE", "PRIO", "GUEST%", "HOST%", "WAKE-UPS", "LATE(MEAN)", "LATE(MAX)",
        ))  # fmt: skip
        for vm in self.machines:
            guest, host, count, late, latest = vm.used()
            print("%-14s %-8s %4d %7.2f %7.2f %9d %12d %12d" % (
                vm.name, vm.state, vm.priority, 100 * guest / passed, 100 * host / passed,
                count, late // max(count, 1), latest,
            ))  # fmt: skip
        self._started = now


@micropython.viper
def _turns(sched, deadline: int, once: int):
    """Turn after turn until the monitor is wanted. deadline: host TSC or 0. once: 1 for one turn, 2 for as long
    as a guest at or above the floor can run."""
    w = ptr32(sched._words)  # noqa: F821
    frames = ptr32(sched._frames)  # noqa: F821
    vcpus = sched._vcpus
    callbacks = sched._callbacks
    slice_ticks = int(sched.slice_ticks)
    rdtsc = cpu.rdtsc
    idle = cpu.idle
    wanted = cpu.wanted
    enter = vmx.enter
    run = exits.run
    awake = wakes
    call_back = expire
    soonest = earliest
    allocated = ptr32(int(sched._allocated))  # noqa: F821
    preempt = ptr32(int(sched._preempt_at))  # noqa: F821
    floor = int(w[_FLOOR])
    while True:
        now = int(rdtsc())
        count = int(w[_COUNT])
        best = -1
        rank = 0
        turn = 0
        others = 0
        i = 0
        while i < count:
            f = ptr32(frames[i])  # noqa: F821
            state = int(f[_STATE])
            if int(f[_PRIORITY]) < floor:
                state = int(STILL)
            if state == WAITS:
                if f[_DIRTY] & _DIRTY_TIMERS:
                    soonest(frames[i])
                first = int(f[_NEXT]) | int(f[_NEXT + 1]) << 32
                if first:
                    if first <= now:
                        first += int(f[_LEAD])
                        f[_DUE] = first
                        f[_DUE + 1] = first >> 32
                        if first < now:
                            first = now
                        first += int(f[_CLOCK_OFFSET]) | int(f[_CLOCK_OFFSET + 1]) << 32
                        call_back(callbacks[i], frames[i], first)
                        f[_DIRTY] |= _DIRTY_TIMERS
                if f[_PENDING] | f[_DIRTY] & _DIRTY_RVI:
                    if int(awake(frames[i])):
                        state = int(RUNS)
                        f[_STATE] = state
                        f[_WAKES] += 1
                        virtual = int(w[_NOW]) | int(w[_NOW + 1]) << 32
                        if (int(f[_TURN]) | int(f[_TURN + 1]) << 32) < virtual:
                            f[_TURN] = virtual
                            f[_TURN + 1] = virtual >> 32
            if state == RUNS:
                others += 1
                mine = int(f[_TURN]) | int(f[_TURN + 1]) << 32
                level = int(f[_PRIORITY])
                if best < 0 or level > rank or (level == rank and mine < turn):
                    best = i
                    rank = level
                    turn = mine
            i += 1
        # The CPU is the guest's until the end of its slice, or until one above it may wake up.
        # Alone it needs no slices: host interrupts and others' timers end its turn.
        stop = deadline
        if others > 1:
            if stop == 0 or now + slice_ticks < stop:
                stop = now + slice_ticks
        # Above it: then its handlers are interrupted.
        above = 0
        if best < 0 or count > 1:
            i = 0
            while i < count:
                f = ptr32(frames[i])  # noqa: F821
                level = int(f[_PRIORITY])
                if f[_STATE] == WAITS and level >= floor:
                    if f[_DIRTY] & _DIRTY_TIMERS:
                        soonest(frames[i])
                    if best < 0 or level >= rank:
                        when = int(f[_NEXT]) | int(f[_NEXT + 1]) << 32
                        if when:
                            if stop == 0 or when < stop:
                                stop = when
                            if level > rank:
                                if above == 0 or when < above:
                                    above = when
                i += 1
        if best < 0:
            if once == 2:
                w[_AGAIN] = stop
                w[_AGAIN + 1] = stop >> 32
                return
            if allocated[0] > _TIDY:
                sched.tidy(0)
                continue
            if idle(stop):
                sched.poll()
                if wanted():
                    return
            if once:
                return
            continue
        if allocated[0] > _TIDY:
            if once != 2 and (above or allocated[0] > _TIDY_AT_LAST):
                sched.tidy(rank)
                continue
        f = ptr32(frames[best])  # noqa: F821
        f[_SLICE_END] = stop
        f[_SLICE_END + 1] = stop >> 32
        f[_DIRTY] |= _DIRTY_TIMERS
        if int(w[_LAST]) != int(frames[best]):
            w[_LAST] = int(frames[best])
            w[_SWITCHES] += 1
        used = int(f[_GUEST_TICKS]) + int(f[_HOST_TICKS])  # low halves: a turn is shorter
        w[_INSIDE] = best + 1
        w[_ABOVE] = rank + 1
        preempt[0] = above
        preempt[1] = above >> 32
        answer = int(run(vcpus[best], enter))
        best = int(w[_INSIDE]) - 1
        used = (int(f[_GUEST_TICKS]) + int(f[_HOST_TICKS]) - used) & 0xFFFFFFFF
        w[_NOW] = turn
        w[_NOW + 1] = turn >> 32
        turn += used // int(f[_SHARE])
        f[_TURN] = turn
        f[_TURN + 1] = turn >> 32
        if answer & _BEYOND:
            sched.machines[best].apply(answer)
        elif answer & _WAIT:
            if int(awake(frames[best])) == 0:
                f[_STATE] = int(WAITS)
                soonest(frames[best])
        preempt[0] = 0
        preempt[1] = 0
        w[_INSIDE] = 0
        if answer & _HOST:
            w[_LATER] |= _POLL
        if once == 2:
            # The monitor is wanted when the interrupted handler is done: that one goes on now and then.
            if f[_STATE] == RUNS:
                if wanted():
                    stop = int(rdtsc()) + _GRACE
                    w[_AGAIN] = stop
                    w[_AGAIN + 1] = stop >> 32
                    return
            continue
        if w[_LATER]:
            sched._see_to()
        if once:
            return
        if wanted():
            return
        if deadline:
            if int(rdtsc()) >= deadline:
                return


@micropython.viper
def _poll(sched):
    """Most host interrupts are no console's: to ask costs some 300 a guest, to poll thousands."""
    ready = sched._ready
    i = 0
    while i < int(len(ready)):
        if int(ready[i]()):
            sched.tend(i)
        i += 1


@micropython.viper
def _run_above(sched):
    """Turns of those at or above the floor, until none of them can run."""
    _turns(sched, 0, 2)
