"""One guest under gdb: stopping it, letting it go on, whole or by vCPU, and stepping it.

Steps are those of vmm/policies/stepper.py: interrupts are held meanwhile. An instruction that exits is complete after
its exit, so the end of the step is checked between the turns.
"""

import cpu
from micropython import const

from vmm import verdict
from vmm.debug.gdb.points import Points
from vmm.debug.gdb.registers import pc
from vmm.gone import Gone
from vmm.scheduling import states
from vmm.scheduling.preemption import hold

WHY = "stopped by gdb"
CONTINUE = const(1)
STEP = const(2)
_TRIES = const(64)  # entries for one step: exits in which the instruction has not been executed

TRAP = b"05"  # signals
INTERRUPTED = b"02"
FAILED = b"06"


class Step:
    """A step under way. first, end: linear addresses between which it goes on (a range step), else first is end."""

    def __init__(self, start, first, end):
        self.start = start
        self.first = first
        self.end = end
        self.tries = 0


class Guest:
    """vm; pid. stopped: gdb knows that it stands still. event: (vCPU, signal, words) of a stop to be reported."""

    def __init__(self, vm, pid, notice):
        """notice(): called when look() is due."""
        self.vm = vm
        self.pid = pid
        self.stopped = True
        self.event = None
        self.points = Points(vm, self._point)
        self.catch = True  # a triple fault stops it
        self._notice = notice
        self._held = []  # frames of the vCPUs that do not go on
        self._steps = {}  # vCPU's number: Step
        self._unsure = False  # a step has ended by an exit
        self._ours = False  # it stands still because gdb has stopped it
        self._quiet = 0  # host TSC until which its console is not told of a stop

    @property
    def gone(self):
        """Whether the guest has been destroyed."""
        return isinstance(self.vm.vcpus[0], Gone)

    def attach(self):
        """Stop it; one that is off is loaded, and stands at its first instruction.

        LoadError and others of VM.start().
        """
        vm = self.vm
        vm.debugger = self
        self._ours = vm.state not in (states.PAUSED, states.STOPPED)  # else detach() leaves it stopped
        if vm.state == states.OFF:
            try:
                vm.start()
            except BaseException:
                vm.debugger = None
                raise
        else:
            vm.stand_for(WHY)
        vm.stands("stopped by gdb")

    def detach(self):
        """Remove its breakpoints, and let it go on if gdb has stopped it."""
        if self.gone:
            return
        vm = self.vm
        vm.debugger = None
        self._end_steps()
        self.points.clear()
        if vm.state == states.PAUSED and not self._ours:
            vm.why = "by pause()"
        elif vm.state == states.PAUSED:
            vm.resume()

    def said(self, vcpu):
        """Report a stop that gdb has got on the guest's console, too, but not each of many stops."""
        now = cpu.rdtsc()
        if now > self._quiet:
            self.vm.stands("stopped by gdb at %#x%s" % (pc(vcpu), self.vm.name_of(pc(vcpu))))
        self._quiet = now + cpu.tsc_hz

    # -- standing still

    def _stand(self):
        """Stop it now, in the middle of an exit, too."""
        self._ours = True
        self.vm.stand_for(WHY)

    def stop(self, vcpu, signal, words=b""):
        """Stop it at a breakpoint, a watchpoint or a fault; gdb gets the stop after this turn."""
        if self.event is None and not self.stopped:
            self.event = vcpu, signal, words
        self._stand()
        self._notice()

    def _point(self, vcpu, why):
        self.stop(vcpu, TRAP, why)

    def interrupt(self):
        """Stop it at gdb's request."""
        if not self.stopped:
            self._end_steps()
            self.stop(self.vm.vcpus[0], INTERRUPTED)

    def halt(self):
        """Stop it because another guest has stopped: gdb takes all for stopped then."""
        self._end_steps()
        self.event = None
        self.stopped = True
        self._stand()

    # -- called by the VM (vm.debugger)

    def stood(self):
        """The guest stands still now, for whatever reason."""
        if not self.stopped:
            self._notice()

    def started(self):
        """The guest has been loaded anew, and has not run yet."""
        self.points.restarted()
        self._steps = {}
        if self.stopped or self.event:
            self._stand()

    def triple_fault(self, vcpu):
        """Whether the guest is stopped for its triple fault."""
        if self.stopped or not self.catch:
            return False
        self.stop(vcpu, b"0b")
        return True

    def refuses(self):
        """Whether resume() at the prompt is refused: gdb takes the guest for stopped."""
        return self.stopped

    # -- going on

    def go(self, actions):
        """Let it go on. actions: {vCPU's number: CONTINUE, STEP or (first, end)}; other vCPUs stand still."""
        vm = self.vm
        self.stopped = False
        self.event = None
        if vm.state == states.OFF:
            self._notice()
            return
        for vcpu in vm.vcpus:
            action = actions.get(vcpu.number)
            if action is None:
                frame = vcpu.scheduled.frame
                hold(vm.monitor.scheduler, frame, 1)
                self._held.append(frame)
            elif action != CONTINUE:
                start = pc(vcpu)
                first, end = (start, start) if action == STEP else action
                self._steps[vcpu.number] = Step(start, first, end)
        self._run()

    def _run(self):
        self._ours = False
        vm = self.vm
        for vcpu in vm.vcpus:
            if vcpu.number in self._steps and not self._arm(vcpu):
                return
        if vm.state in (states.PAUSED, states.STOPPED):
            vm.go_on()

    def _arm(self, vcpu):
        """Let the next instruction be a step. False: the monitor has executed it already."""
        vcpu.stepper.step(done=lambda completed: self._stepped(vcpu, completed))
        if vcpu.stepper.armed:
            return True
        self.stop(vcpu, TRAP)
        return False

    def _stepped(self, vcpu, completed):
        """The step's `done`: called after the instruction, or in an exit of it."""
        step = self._steps.get(vcpu.number)
        if step is None or self.event is not None:
            return verdict.RESUME
        words = self.points.stepped(vcpu, completed)
        if words:
            self.stop(vcpu, TRAP, words)
        elif not completed:
            self._unsure = True
            self._stand()
            self._notice()
        elif self._goes_on(vcpu, step):
            return vcpu.stepper.step(done=lambda done: self._stepped(vcpu, done))
        else:
            self.stop(vcpu, TRAP)
        return verdict.YIELD

    def _goes_on(self, vcpu, step):
        """Whether a range step has not left its range."""
        at = pc(vcpu)
        return step.first <= at < step.end and not self.points.at(at)

    def _end_steps(self):
        if self._steps and not self.gone:
            for vcpu in self.vm.vcpus:
                if vcpu.number in self._steps:
                    del self._steps[vcpu.number]
                    vcpu.stepper.reset()
        self._steps = {}
        self._unsure = False
        self._release()

    def _release(self):
        for frame in self._held:
            hold(self.vm.monitor.scheduler, frame, -1)
        self._held = []

    # -- between the turns

    def look(self):
        """The stop to report to gdb now: (vCPU or None, signal, words), b"W00", b"X09", or None."""
        if self.stopped:
            return None
        if self.gone:
            return b"X09"
        if self.event is None and self._unsure:
            self._unsure = False
            self._decide()
        if self.event is None:
            state = self.vm.state
            if state == states.OFF:
                return b"W00"
            if state == states.STOPPED:
                self.event = self.vm.vcpus[0], FAILED, b""
            elif state == states.PAUSED:
                self.event = self.vm.vcpus[0], TRAP, b""
            else:
                return None
        found = self.event
        self.event = None
        self.stopped = True
        self._stand()
        self._end_steps()
        return found

    def _decide(self):
        """A step has ended by an exit: the instruction was carried out there, or is still to be executed."""
        for number, step in self._steps.items():
            vcpu = self.vm.vcpus[number]
            if vcpu.stepper.armed:
                continue
            step.tries += 1
            undone = (pc(vcpu) == step.start or vcpu.injecting()) and step.tries < _TRIES
            if not undone and not self._goes_on(vcpu, step):
                self.event = vcpu, TRAP, b""
                return
            step.start = pc(vcpu)
        self._run()
