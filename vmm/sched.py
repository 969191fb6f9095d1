"""Who runs when: guests run while the prompt waits, and in time.sleep.

The scheduler is the port's idle hook. It gives the CPU to the runnable guest with the
highest priority, in turn among equals; a halted guest costs nothing until its timer or an
interrupt wakes it. While a line of Python executes, guests stand still.
"""

import sys

import cpu
import vmx
from micropython import const

from vmm import exits, verdict

_SLICE_MS = const(10)

RUNNING = "running"
HALTED = "halted"
PAUSED = "paused"
STOPPED = "stopped"
OFF = "off"


class Scheduler:
    """machines: the VMs, in creation order."""

    def __init__(self, machines, tsc_hz):
        self.machines = machines
        self.slice_ticks = tsc_hz * _SLICE_MS // 1000
        self.switches = 0
        self.now = 0  # virtual time: the turn of the guest that ran last; who wakes up starts there
        self._last = None
        self.inside = None  # the guest whose exit loop runs
        self._others = 0  # what pick() found, besides the guest to run
        self._next_timer = 0

    def hook(self, deadline):
        """The port's idle hook: run guests until the monitor is wanted."""
        self.inside = None  # the port never nests hooks: a policy that sleeps runs no guest
        while not cpu.wanted():
            self.step(deadline)

    def step(self, deadline=0):
        """Run one guest once, or sleep until something happens. deadline: host TSC, 0: none."""
        best = self.pick()
        others, next_timer = self._others, self._next_timer
        if best is None:
            if next_timer and (not deadline or next_timer < deadline):
                deadline = next_timer
            cpu.idle(deadline)
            self.poll()
            return
        # Alone, a guest needs no slices: host interrupts and others' timers end its turn.
        end = cpu.rdtsc() + self.slice_ticks if others else 0
        if next_timer and (not end or next_timer < end):
            end = next_timer
        if deadline and (not end or deadline < end):
            end = deadline
        if best is not self._last:
            self.switches += 1
            self._last = best
        self.run(best, end)
        self.poll()

    def pick(self):
        """Return the guest to run or None; note how many more could run, and the halted ones' next timer.

        The timer is host TSC, 0 for none. (A tuple of the three would be garbage at each slice.)
        """
        best = None
        runnable = 0
        next_timer = 0
        for vm in self.machines:
            if vm.state == HALTED and not vm.wake():
                when = vm.next_timer()
                if when and (not next_timer or when < next_timer):
                    next_timer = when
            if vm.state == RUNNING:
                runnable += 1
                if (
                    best is None
                    or vm.priority > best.priority
                    or (vm.priority == best.priority and vm.turn < best.turn)
                ):
                    best = vm
        self._others, self._next_timer = runnable - 1, next_timer
        return best

    def run(self, vm, slice_end):
        """Enter `vm` until its slice ends or it gives a verdict."""
        vcpu = vm.vcpu
        start = vcpu.guest_ticks + vcpu.host_ticks
        vm.clock.slice_end = slice_end
        self.inside = vm
        try:
            answer = exits.run(vcpu, vmx.enter)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            vm.log("stopped: the monitor's handler for exit reason %d failed" % (vcpu.reason & 0xFFFF))
            sys.print_exception(error)
            answer = verdict.STOP
        finally:
            self.inside = None
            vcpu.left()
        self.now = vm.turn
        vm.turn += (vcpu.guest_ticks + vcpu.host_ticks - start) // vm.share
        vm.apply(answer)

    def poll(self):
        """Consoles: what came in, and what has room to go out."""
        for vm in self.machines:
            if vm.state is not OFF or vm.console.uart.pending():
                vm.console.poll()
