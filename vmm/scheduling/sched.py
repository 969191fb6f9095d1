"""Which guest runs when. Guests run while the prompt waits, and in time.sleep.

The scheduler is the port's idle hook. It gives the CPU to the runnable guest with the
highest priority, by turns and shares among equals; a halted guest costs nothing until its
timer or an interrupt wakes it, and then takes the CPU from those below it. While a line of
Python executes, guests of priority 0 stand still. Its state is in the vCPU frames, so that the
switch from one guest to the next makes no objects and calls no bytecode.

`sched.policy` puts an object of the user's in place of that rule: its pick(runnable) gets the
VMs that can run and returns one of them, or None for none.
"""

import gc
import io
import sys
from array import array

import cpu
import uctypes
from micropython import const
from vmx import bind

from vmm import verdict
from vmm.scheduling import rule
from vmm.scheduling.accounting import advance, begin, charge, charge_all, passed
from vmm.scheduling.between import bound, fresh
from vmm.scheduling.consoles import Consoles
from vmm.scheduling.preemption import Preemption, arm_line
from vmm.scheduling.still import Still
from vmm.scheduling.turns import nobody_pays, parts, turns
from vmm.scheduling.words import (
    CALLED,
    COUNT,
    DEFERRED,
    GARBAGE,
    HOLDER,
    INSIDE,
    LAST,
    LEVEL,
    NOW,
    STILLS,
    SWITCHES,
    TIES,
    WORDS,
)

_SLICE_MS = const(10)
_PRIORITIES = const(256)
_BLOCK = const(128)  # bytes of one of the heap


class Scheduler(Preemption, Consoles):
    """The scheduler: sched at the prompt.

    vcpus: those of all VMs, the highest priority first, those of one in the order in which they came to have it.
    policy: None, or an object with pick(runnable). most: how many vCPUs there can be.

    For users: hz, inside, machines, policy, slice_ticks, still, switches, top, vcpus.
    """

    def __init__(self, tsc_hz, most):
        self.vcpus = []
        self.hz = tsc_hz
        self.still = Still(self)
        self.slice_ticks = tsc_hz * _SLICE_MS // 1000
        self.policy = None
        self._words = array("I", [0] * WORDS)
        self._levels = array("I", bytes(4 * _PRIORITIES << LEVEL))
        self._frames = array("I", bytes(4 * most))
        self._callbacks = []
        self.drivers = []  # look(floor) of each, called when a host interrupt has come (vmm/host)
        self.say = print  # Monitor puts its journal here
        self.failures = 0  # errors that belong to no guest
        self._started = cpu.rdtsc()
        self._allocated = cpu.allocated()
        self._collect_at = cpu.collect_at()
        Consoles.__init__(self, most)
        Preemption.__init__(self, bind(turns, self, 0))
        self._parts = parts(self)
        self._begins, self._ended, self._polled, self.poll_waits, self.serve = bound(self)
        address = uctypes.addressof
        self._fresh = bind(fresh, address(self._words), address(self._interrupted), self._allocated, self._collect_at)

    @property
    def machines(self):
        """The VMs, in the order of their first vCPUs."""
        return [vcpu.vm for vcpu in self.vcpus if vcpu is vcpu.vm.vcpus[0]]

    def add(self, vm):
        """A VM takes part from now on."""
        cpu.hold(1)
        try:
            for vcpu in vm.vcpus:
                self._insert(vcpu)
        finally:
            cpu.hold(-1)
        self._rank()

    def remove(self, vm):
        cpu.hold(1)
        try:
            for vcpu in vm.vcpus:
                self._remove(vcpu)
            self._words[LAST] = 0
            nobody_pays(self._collect_at)
            self._levels[(vm.priority << LEVEL) + HOLDER] = 0  # another guest may get its frame
        finally:
            cpu.hold(-1)
        self._rank()

    def place(self, vm):
        """A VM that takes part has another priority now."""
        if vm.vcpus[0] in self.vcpus:
            cpu.hold(1)
            try:
                inside = self.inside_vcpu
                for vcpu in vm.vcpus:
                    self._remove(vcpu)
                for vcpu in vm.vcpus:
                    self._insert(vcpu)
                self._words[INSIDE] = self.vcpus.index(inside) + 1 if inside else 0
            finally:
                cpu.hold(-1)
            self._rank()

    def _rank(self):
        """Tell the VMs whether there are others above them."""
        machines = self.machines
        for vm in machines:
            vm.below(vm.priority < machines[0].priority)

    def _insert(self, vcpu):
        priority = vcpu.vm.priority
        at = len(self.vcpus)
        while at and self.vcpus[at - 1].vm.priority < priority:
            self._frames[at] = self._frames[at - 1]
            at -= 1
        self._frames[at] = vcpu.frame_hpa
        self.vcpus.insert(at, vcpu)
        self._callbacks.insert(at, vcpu.clock.callbacks)
        self._words[COUNT] = len(self.vcpus)
        if self._words[INSIDE] > at:
            self._words[INSIDE] += 1

    def _remove(self, vcpu):
        at = self.vcpus.index(vcpu)
        for table in (self.vcpus, self._callbacks):
            del table[at]
        for i in range(at, len(self.vcpus)):
            self._frames[i] = self._frames[i + 1]
        self._words[COUNT] = len(self.vcpus)
        if self._words[INSIDE] > at + 1:
            self._words[INSIDE] -= 1

    @property
    def inside(self):
        """The VM whose exit loop runs, or None."""
        vcpu = self.inside_vcpu
        return vcpu.vm if vcpu else None

    @property
    def inside_vcpu(self):
        """The vCPU whose exit loop runs, or None."""
        at = self._words[INSIDE]
        return self.vcpus[at - 1] if at else None

    @property
    def switches(self):
        """How often the CPU went from one guest to another."""
        return self._words[SWITCHES]

    def now(self, priority):
        """Virtual time of the guests of one priority: where one that wakes up starts."""
        at = (priority << LEVEL) + NOW
        return self._levels[at] | self._levels[at + 1] << 32

    def enters(self, vcpu):
        """The exit loop of this vCPU begins."""
        at = self.vcpus.index(vcpu)
        self._words[INSIDE] = at + 1
        if self._words[LAST] != self._frames[at]:
            self._words[LAST] = self._frames[at]
            self._words[SWITCHES] += 1

    def ordered(self, at):
        """The number of the vCPU that runs in place of that with number `at`, by its VM's interleave."""
        return self.vcpus.index(self.vcpus[at].vm.interleave.choose())

    def charge(self, vcpu, used):
        """So many ticks that a guest has used move the virtual time of its priority, by its share."""
        advance(self._levels, vcpu.scheduled.frame, used)

    def on_behalf(self, vm, work, *args):
        """work(*args), which takes time outside of the guest's exits: that is charged to the guest."""
        words = self._words
        frame = vm.vcpus[0].scheduled.frame
        began = begin(words)
        try:
            return work(*args)
        finally:
            charge(frame, passed(words, began))

    def begins(self):
        """The time now, for charge_since()."""
        return begin(self._words)

    def charge_since(self, vm, began):
        """Charge the time since begins() to a guest."""
        charge(vm.vcpus[0].scheduled.frame, passed(self._words, began))

    def hook(self, deadline):
        """The port's idle hook: run guests until the prompt has input or the deadline is over."""
        # A policy that sleeps runs no guest.
        due = self._fresh()
        if due:
            try:
                if due & GARBAGE:
                    self.collect()  # steady input at the prompt leaves no turns in which to collect
                if due & ~GARBAGE:
                    self._run_deferred(0)  # gdb's line has received characters while no guest ran
            finally:
                arm_line(self)  # both have disarmed, and the next line may come without a turn in between
        while not cpu.wanted():
            self._turns(deadline, False)

    def step(self, deadline=0):
        """Run one guest once, or sleep until something happens. deadline: host TSC, 0: none."""
        self._turns(deadline, True)

    def _turns(self, deadline, once):
        try:
            if self._begins():
                self._idle(deadline)
            elif self.policy:
                rule.turn(self, deadline)
            else:
                turns(self, deadline, 1 if once else 0)
        except Exception as error:
            self._failed(error)
        finally:
            self._ended()

    def _failed(self, error):
        """Stop the guest whose exit or timer has failed; the others run on."""
        at, self._words[CALLED] = self._words[CALLED], 0
        if self._serviced >= 0:
            self._unplug(error)
            return
        vcpu = self.inside_vcpu
        if vcpu is not None:
            self.stop_faulty(vcpu.vm, "exit reason %d, or the entry after it" % vcpu.reason, error)
        elif at:
            self.stop_faulty(self.vcpus[at - 1].vm, "a timer's end", error)
        else:
            self.report_error(error)

    def stop_faulty(self, vm, what, error):
        """The monitor's work for this guest has failed: it is stopped, with a line."""
        vm.apply(verdict.STOP, vm.vcpus[0])  # before anything that needs memory
        if isinstance(error, MemoryError):
            gc.collect()
        vm.log_error("stopped: the monitor failed at %s" % what, error)

    def report_error(self, error):
        """An error that belongs to no guest. Guests run on a time slice later, since it may fail again at once."""
        self.failures += 1
        try:
            if isinstance(error, MemoryError):
                gc.collect()
            out = io.StringIO()
            sys.print_exception(error, out)
            self.say("monitor", "failed between the guests' turns, and goes on:\n" + out.getvalue().rstrip())
        except MemoryError:
            if self.failures & self.failures - 1 == 0:  # fewer and fewer lines
                print("[monitor] failed between the guests' turns for want of memory, and goes on")
        self._idle(cpu.rdtsc() + self.slice_ticks)

    def _idle(self, deadline):
        """Wait without checking consoles and drivers: they are checked later."""
        if cpu.idle(deadline):
            self.poll_later()

    def _left(self):
        """No handler runs any more."""
        self.inside_vcpu.left()
        self._words[INSIDE] = 0

    def _run_deferred(self, _):
        """Do the work that was deferred while a handler was interrupted."""
        later = self._words[DEFERRED]
        self._words[DEFERRED] = 0
        if later & TIES:
            for settle in list(self._settle):
                try:
                    settle()
                except Exception as error:
                    self.report_error(error)
        self.poll()

    def _driver_failed(self, error):
        if not isinstance(error, Exception):
            raise error
        self.report_error(error)

    def stand_still(self, more):
        """more: 1, guests stand still from now on, whatever their priority, in sleeps, too; -1: no longer."""
        cpu.hold(more)
        self._words[STILLS] += more

    def collect(self):
        """Collect garbage. Guests of priority above 0 are not delayed; guests are charged for their own garbage."""
        words = self._words
        blocks = cpu.heap()[2] // _BLOCK
        began = begin(words)
        self.arm(0)
        try:
            gc.collect()
        finally:
            self.disarm()
            charge_all(words, self._frames, passed(words, began), blocks)

    def __repr__(self):
        rows = ["%-14s %-13s %4s %5s %14s %14s" % ("NAME", "STATE", "PRIO", "SHARE", "GUEST TICKS", "HOST TICKS")]
        for vcpu in self.vcpus:
            vm = vcpu.vm
            name = vm.name if len(vm.vcpus) == 1 else "%s/%d" % (vm.name, vcpu.number)
            rows.append("%-14s %-13s %4d %5d %14d %14d" % (
                (name, vcpu.scheduled.state, vm.priority, vm.share) + vcpu.scheduled.ticks()
            ))  # fmt: skip
        return "\n".join(rows)

    def top(self):
        """Print the share of the CPU, wake-ups and their lateness of each vCPU since the call before.

        Lateness is host TSC ticks from a timer's deadline to the entry into the guest that slept; wake-ups by
        anything else have none.
        """
        now = cpu.rdtsc()
        passed = max(now - self._started, 1)
        print("%-14s %-8s %4s %7s %7s %9s %12s %12s" % (
            "NAME", "STATE", "PRIO", "GUEST%", "HOST%", "WAKE-UPS", "LATE(MEAN)", "LATE(MAX)",
        ))  # fmt: skip
        for vcpu in self.vcpus:
            vm, scheduled = vcpu.vm, vcpu.scheduled
            name = vm.name if len(vm.vcpus) == 1 else "%s/%d" % (vm.name, vcpu.number)
            guest, host, wakes, timed, late, latest = scheduled.used()
            print("%-14s %-8s %4d %7.2f %7.2f %9d %12d %12d" % (
                name, scheduled.state, vm.priority, 100 * guest / passed, 100 * host / passed,
                wakes, late // max(timed, 1), latest,
            ))  # fmt: skip
        self._started = now
