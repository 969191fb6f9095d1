"""A VM's life: start, pause, reset, power, its end; and what follows when the exit loop returns."""

import cpu
from micropython import const

from vmm import loaders, processors, verdict
from vmm.debug.debugged import GOES_ON
from vmm.gone import Gone
from vmm.policies import policy
from vmm.scheduling import states
from vmm.vtx import reasons
from vmm.vtx.vmcs_bits import CONTROL_WBINVD_EXITING

# What a destroyed VM no longer has.
_PARTS = (
    "memory",
    "ept",
    "rights",
    "clock",
    "msrs",
    "spec_msrs",
    "ports",
    "mmio",
    "walker",
    "linear",
    "pc",
    "console",
    "lapic",
    "exits",
    "events",
    "arming",
    "apic_bus",
)
_ENDS = verdict.TRIPLE_FAULT | verdict.RESET
_AGAIN = ": again and again; it is held in reset for longer each time, until it stays up"


_ENDS_KEPT = const(8)


class End:
    """How a run of a guest ended. start: its number; seconds since it; death: of a triple fault, or None
    (vmm.debug.explain.Death)."""

    def __init__(self, start, seconds, why, death):
        self.start = start
        self.seconds = seconds
        self.why = why
        self.death = death

    def __repr__(self):
        return "<run %d ended after %.6f s: %s>" % (self.start, self.seconds, self.why)


class Life:
    """The part of vmm.vm.VM that starts and stops it.

    For users: destroy, pause, power_off, reset, resume, start.
    """

    _stands = False  # its console has been told that it does

    def start(self):
        """Load the guest's images and let it run. loaders.LoadError says what is wrong with one."""
        self.check_whole("started")
        self.steadily(self._start_anew)

    def _start_anew(self):
        self.backoff.forgive()
        self._start()

    def _start(self):
        try:
            self._stand(states.OFF, "not started")  # guests of higher priority may run meanwhile, it may not
            cpu.uncounted(self._load)  # a policy may ask for it
        except BaseException:
            cpu.shield(self._not_started)
            raise
        cpu.shield(self._started)

    def _not_started(self):
        self._stand(states.OFF, "not started")
        self._power(False)

    def _started(self):
        self.catch_up()
        for vcpu in self.vcpus:
            vcpu.scheduled.state = states.WAIT_FOR_SIPI if vcpu.number else states.RUNNING
        self.why = ""
        self._power(True)
        if self.debugger:
            self.debugger.started()

    def _load(self):
        """Set memory, devices and the vCPUs as they are at the start."""
        segments = self.memory.segments
        for _, length, hpa in segments:
            cpu.zero(hpa, length)
        self.starts += 1
        self._stands = False
        self.backoff.release()
        for vcpu in self.vcpus:
            vcpu.stepper.reset()
        self._init = None
        if self.interleave:
            self.interleave.restart()
        self.uncover()
        if self.demand_paging:
            for gpa, length, hpa in segments:
                self.ept.defer(gpa, hpa, length)
        for side in self.windows:
            side.acknowledge()
        self.pc.reset()
        for vcpu in self.vcpus:
            self.msrs.reset(vcpu)
            self.pc.apic_msrs.reset(vcpu)
            self.spec_msrs.reset(vcpu)
            vcpu.clock.skew = 0
        rsdp = self.pc.tables()
        state = loaders.load(self.memory, self.config, self.blobs, self.e820, rsdp)
        if state is not None and state.bios:
            self._start_bios()
        skew = -self.clock.now()
        for vcpu in self.vcpus:
            vcpu.clock.skew = skew  # their TSCs agree
            processors.power_up(vcpu, None if vcpu.number else state)
        self.ports.reset()
        policy.restarted(self)
        if self._hidden is not None:
            self._hidden.restarted()
        self.flush()
        self.backoff.started()

    def _start_bios(self):
        """BIOS services for a program that is entered in real mode."""
        if self.bios is None:
            from vmm.handlers.bios import Bios

            self.bios = Bios(self)
        self.bios.start()

    def _power(self, on):
        """The cables of its UARTs: a guest that is off holds no line up."""
        self.powered = on
        if self.expansion:
            self.expansion.power_on() if on else self.expansion.power_off()
        if self.firmware and not on:
            self.firmware.power_off()
        for end in self.monitor.links.ends(self.name):
            end.power(on)

    def pause(self):
        """Let the guest stand still; its clock runs on, unless vm.hide_stops is set."""
        self.steadily(self._pause)

    def _pause(self):
        if self.state in (states.RUNNING, states.HALTED):
            self._stopped = None
            self._stand(states.PAUSED, "by pause()")

    def resume(self):
        """Let a paused or stopped guest go on from where it stands."""
        self.steadily(self._resume)

    def stands(self, why):
        """Say on the guest's console that it stands still, since it would look hung there; and that it goes on."""
        self._stands = True
        self.console.notice("%s is %s" % (self.name, why))

    def _resume(self):
        if self.debugger and self.debugger.refuses():
            raise RuntimeError("guest %s is stopped by gdb: continue there, or monitor.gdb.detach()" % self.name)
        self.go_on()

    def go_on(self):
        """As resume(), for the debugger that has stopped it."""
        if self._stands and self.state in (states.PAUSED, states.STOPPED):
            self._stands = False
            self.console.notice("%s goes on" % self.name)
        if self.state in (states.PAUSED, states.STOPPED):
            self.catch_up()
            for vcpu in self.vcpus:
                vcpu.scheduled.go()
            if self.stops is not None:
                self.stops.go_on()
            for vcpu in self.vcpus:
                vcpu.clock.expire()  # timers that came due meanwhile are not late: none could have been served
            self.why = ""

    def reset(self):
        """Start again from the images, as the reset button does; policies stay attached."""
        self.start()

    def power_off(self):
        """Switch the guest off; start() boots it anew."""
        self.steadily(self._power_off)

    def _power_off(self):
        if self.state != states.OFF:
            self._stand(states.OFF, "by power_off()")
            self._power(False)

    def destroy(self):
        """Free everything that the guest had. Later calls of the object's methods are refused."""
        self.check_whole("destroyed")
        if self.monitor.scheduler.inside is self:
            raise RuntimeError("guest %s is in an exit of its own: it cannot be destroyed there" % self.name)
        self.hold(1)  # to its end
        try:
            cpu.shield(self._destroy)
        except BaseException:
            if self.name in self.monitor.vms:
                self.hold(-1)
            raise

    def _destroy(self):
        for attached in list(self.policies):
            attached.detach()
        if self._hidden is not None:
            self._hidden.close()
        self._stand(states.OFF, "destroyed")
        self.starts = 0  # programs on the host that read its memory see by its frames that it has gone
        self.monitor.forget(self)
        self.memory.forget()
        self.release()
        self.unschedule()
        gone = Gone(self.name)
        for part in _PARTS:
            setattr(self, part, gone)
        self.vcpus = [gone]
        if self.debugger:
            self.debugger.stood()

    def check_whole(self, what):
        """RuntimeError where something is half done for it: it cannot be `what` there."""
        if isinstance(self.vcpu, Gone):
            raise RuntimeError("guest %s has been destroyed" % self.name)
        if any([self.monitor.scheduler.interrupts(scheduled.frame) for scheduled in self._scheduled]):
            raise RuntimeError("guest %s is in the middle of an exit: it cannot be %s there" % (self.name, what))
        if self.held:
            raise RuntimeError("guest %s is in the middle of a change: it cannot be %s there" % (self.name, what))

    def release(self):
        """Free host memory."""
        if self.expansion:
            self.expansion.close()  # its devices have timers in a vCPU's frame
        if self.firmware:
            self.firmware.close()
        for vcpu_ in self.vcpus:
            vcpu_.retire()  # no CPU knows its VMCS and its frame any more
        if getattr(self, "ept", None) is not None:
            self.ept.release()
        self.monitor.windows.leave(self)
        for hpa in self._taken:
            self.monitor.pages.give(hpa)
        self._taken = []

    # -- for the scheduler

    def below(self, others):
        """Whether there are others of a higher priority: then WBINVD of this one must not hold them up."""
        if others != self._below and self.monitor.caps.found["proc2"].WBINVD_EXITING:
            self._below = others
            self.arming.secondary(CONTROL_WBINVD_EXITING, 1 if others else -1)

    def runs(self, vcpu):
        """Whether the vCPU may be entered again."""
        return vcpu.scheduled.state == states.RUNNING

    def apply(self, answer, vcpu):
        """Handle the verdict of a vCPU's exit loop. A guest that was paused, or switched off, in that exit stays so."""
        repeated = self.deaths is not None and self.deaths.over(vcpu)
        if answer & _ENDS and not self.backoff.held and not repeated:
            answer = self._ends(answer, vcpu)
        state = self.state
        if state == states.OFF:
            pass
        elif answer & verdict.RESET and self.backoff.held:
            self._reset_itself(self.why)
        elif answer & verdict.TRIPLE_FAULT and self.debugger and self.debugger.triple_fault(vcpu):
            self.log("triple fault at %#x%s: gdb has it" % (vcpu.rip, self.name_of(vcpu.rip)))
        elif answer & verdict.TRIPLE_FAULT:
            if repeated or not self._repeats(vcpu):
                self._died(vcpu)
        elif answer & verdict.RESET:
            self._ended("on_reset", "reset", "reset by the guest")
        elif answer & verdict.POWER_OFF:
            self._ended("on_power_off", "power-off", "powered off by the guest")
        elif answer & verdict.STOP:
            self._stand(states.STOPPED, "see the report")
            self.stands("stopped; the prompt has the report")
        elif answer & verdict.PAUSE or state == states.PAUSED:
            if answer & verdict.PAUSE:
                self._pauses(vcpu)
            if answer & verdict.WAIT:
                vcpu.scheduled.before = states.HALTED
        elif answer & verdict.WAIT and vcpu.scheduled.state == states.RUNNING and not vcpu.scheduled.wakes():
            vcpu.scheduled.state = states.HALTED
        if state == states.PAUSED:
            self._pause()
        if self.state == states.OFF:
            self._power(False)

    def _pauses(self, vcpu):
        """A vCPU's exit has paused the guest, unless it was paused in the middle of that: its console says why."""
        why, adds = self._pausing or ("by a policy", GOES_ON)
        self._pausing = None
        if vcpu.scheduled.state != states.PAUSED:
            self._stopped = vcpu
            self._stand(states.PAUSED, why)
            if adds and not self._stands:
                self.stands("paused: %s; %s" % (why, adds))

    def reset_soon(self, why):
        """Reset the machine after the current exit."""
        self._init = why
        self.monitor.scheduler.defer()

    def settle(self):
        """Carry out reset_soon()."""
        why, self._init = self._init, None
        if why and self.state != states.OFF:
            answer = self._ends(verdict.RESET, self.vcpu)
            if not answer & verdict.RESET:
                self.apply(answer, self.vcpu)
                return
            self._ended("on_reset", "reset", why)
            if self.state == states.OFF:
                self._power(False)

    def _repeats(self, vcpu):
        """Whether the vCPU runs its triple fault once more, to find out how it came to it (vmm/debug/replay.py)."""
        if self.interleave or vcpu.scheduled.state != states.RUNNING:
            return False
        try:
            if self.deaths is None:
                from vmm.debug.explain import Deaths

                self.deaths = Deaths(self)
            self.deaths.begin(vcpu)
        except MemoryError:  # a full heap: the guest ends without an explanation
            self.deaths = None
            return False
        return True

    def _died(self, vcpu):
        self._stopped = vcpu
        death = self.deaths.last if self.deaths is not None else None
        why = "triple fault at %#x%s" % (vcpu.rip, self.name_of(vcpu.rip))
        told = ": %s; vm.explain() tells more" % death.short if death is not None else ""
        self._ended("on_triple_fault", "stop", why, told, death)

    def _ends(self, answer, vcpu):
        """Call the policies on a triple fault or a reset; returns the verdict."""
        end = reasons.SHUTDOWN if answer & verdict.TRIPLE_FAULT else reasons.RESET_REQUEST
        if end not in self.chains or self.state == states.OFF:
            return answer
        return answer & ~_ENDS | self.exits.handler(end, vcpu)(vcpu)

    def _stand(self, state, why):
        """Stand still; from a stop or a pause resume() lets it run."""
        self.why = why
        for vcpu in self.vcpus:
            vcpu.scheduled.stand(state)
        if self.stops is not None:
            self.stops.end() if state == states.OFF else self.stops.begin()
        if self.debugger:
            self.debugger.stood()

    def stand_for(self, why):
        """A debugger lets it stand still."""
        if self.state in (states.RUNNING, states.HALTED, states.WAIT_FOR_SIPI):
            self._stand(states.PAUSED, why)
        elif self.state == states.PAUSED:
            self.why = why

    def fail(self, why):
        """Stop it, for a reason that is not its own fault."""
        if self.state != states.OFF:
            self._stand(states.STOPPED, why)
            self.log("stopped: " + why)

    def _ended(self, key, default, why, told="", death=None):
        """The guest has ended its run: the description says what follows. told: the text after `why` in
        the line."""
        when = death.when if death is not None else self.clock.now()
        self.ends.append(End(self.starts, when / self.clock.hz, why, death))
        del self.ends[:-_ENDS_KEPT]
        response = self.config.get(key) or default
        if response == "reset":
            self._reset_itself(why, told)
        else:
            self.log(why + told)
            self._stand(states.STOPPED if response == "stop" else states.OFF, why)

    def _reset_itself(self, why, told=""):
        held = self.backoff.held
        ms = 0 if held else self.backoff.wait_ms()
        if not held and self.backoff.says():
            self.log(why + told + (_AGAIN if ms else ""))
        if ms:
            self.backoff.hold(ms)
            return
        self._stand(states.OFF, why)
        try:
            self._start()
        except Exception as error:  # its images have become bad: no other guest is affected
            self.log("does not start again: %s: %s" % (type(error).__name__, error))
