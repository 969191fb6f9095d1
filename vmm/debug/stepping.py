"""Steps of a paused guest: vm.step(), vm.next(), vm.finish(), vm.until().

Each lets the guest run, waits until the vCPU is there, and returns a Stop, which prints as the place. step() runs one
vCPU and holds the others; no interrupt is delivered meanwhile, a pending one is delivered when the guest goes on.
next() over a call, finish() and until() let all vCPUs run and interrupts be delivered. They stop where a vCPU arrives
with the same stack (next, finish; the task may have moved to another vCPU), or where any, or the named one, arrives
(until). Ctrl-C, a breakpoint, or `seconds` end the wait: the guest then stands where it is. Other stops (breakpoints,
policies) count as usual. Source: vmm/policies/stepper.py, vmm/debug/hidden.py.
"""

import time

import cpu
from micropython import const

from vmm import verdict
from vmm.debug import breakpoints, instructions, places
from vmm.debug.machine import Machine, namer
from vmm.memory.ept import R, X
from vmm.scheduling import states
from vmm.vtx.x86 import INSTRUCTION_BYTES, PAGE_MASK

_STACK = const(0x10000)  # bytes: stack pointers further apart belong to two stacks
_DELIVERIES = const(4)
_HERE = "by a step"


class Stop:
    """Where a vCPU stands: vcpu, gva of RIP; prints as `rip name+offset: instruction`, and why it stopped there."""

    def __init__(self, vcpu, note=""):
        vm = vcpu.vm
        self.vcpu = vcpu
        self.gva = places.linear_rip(vcpu)
        self.note = note
        behind = namer(vm)
        code = instructions.disassemble(Machine(vcpu), self.gva, 1, behind, self.gva)
        who = "vCPU %d at " % vcpu.number if len(vm.vcpus) > 1 else ""
        lines = ["%s%#x%s" % (who, self.gva, behind(self.gva))] + [repr(code).split("\n")[-1]]
        if note:
            lines.append(note)
        self._text = "\n".join(lines)

    def __repr__(self):
        return self._text

    __str__ = __repr__


class Steps:
    """The steps of one guest; debugged.py describes them. which: a vCPU or its number; seconds: the longest wait."""

    def __init__(self, vm):
        self._vm = vm
        self._there = False

    def _ready(self, which):
        vm = self._vm
        found = places.vcpu(vm, which)
        if vm.state not in (states.PAUSED, states.STOPPED):
            raise ValueError("guest %s is %s: pause() it, or let a breakpoint do so" % (vm.name, vm.state))
        if found.scheduled.before == states.WAIT_FOR_SIPI:
            raise ValueError("vCPU %d waits for SIPI: it executes nothing" % found.number)
        return found

    def step(self, count, which, seconds):
        """VM.step(); returns a Stop."""
        if not isinstance(count, int) or count < 1:
            raise ValueError("step(%r): a number from 1 up" % (count,))
        vcpu = self._ready(which)
        note = ""
        for _ in range(count):
            note = self._one(vcpu, seconds)
            if note:
                break
        return Stop(vcpu, note)

    def _one(self, vcpu, seconds):
        """Step one instruction, and the delivery of its exception, if any; a note where something else stopped it."""
        vm = self._vm
        for _ in range(_DELIVERIES):
            before = vcpu.injecting()
            note = self._go(vcpu, seconds, lambda: vm.steadily(self._arm, vcpu), lambda: self._let(vcpu))
            if note or not vcpu.injecting() or before:
                return note
        return ""

    def _arm(self, vcpu):
        """Let the next instruction be a step. True: the monitor has executed it already."""
        self._there = False
        gpa = self._hidden(vcpu)
        page = None if gpa is None else gpa & PAGE_MASK
        vcpu.stepper.step(page, R | X, lambda completed: self._stepped(vcpu))
        return not vcpu.stepper.armed

    def _hidden(self, vcpu):
        """The gpa of RIP where a hidden breakpoint is there, which is not asked: the instruction itself is stepped."""
        hidden = self._vm._hidden
        if hidden is None or vcpu.injecting():
            return None
        try:
            gpa = vcpu.translate(places.linear_rip(vcpu))
        except ValueError:
            return None
        if gpa not in hidden.table:
            return None
        for policy in hidden.at(gpa).policies:
            policy.passes = None
        return gpa

    def _stepped(self, vcpu):
        self._there = True
        self._vm.pausing(vcpu, _HERE, None)
        return verdict.PAUSE

    def _let(self, vcpu):
        """Let this vCPU run; the others stand still."""
        vcpu.scheduled.go()
        if self._vm.stops is not None:
            self._vm.stops.go_on()
        self._vm.why = ""

    def _go(self, vcpu, seconds, arm, go):
        """arm(), go(), and wait until the guest stands again; what stopped it, "" where it is what was armed."""
        vm = self._vm
        if arm():
            return ""
        starts = vm.starts
        end = cpu.rdtsc() + int(seconds * cpu.tsc_hz)
        vm.steadily(go)
        try:
            while vcpu.scheduled.state in (states.RUNNING, states.HALTED, states.WAIT_FOR_SIPI):
                if cpu.rdtsc() > end:
                    vm.steadily(self._stand)
                    return "it was not there after %g s: paused where it is" % seconds
                time.sleep_ms(1)
        except KeyboardInterrupt:
            vm.steadily(self._stand)
            raise
        finally:
            for each in vm.vcpus:
                each.stepper.reset()
        if vm.starts != starts or vm.state == states.OFF:
            return "the guest has started anew, or is off: %s" % vm.why
        if self._there:
            return ""
        return "stopped before: %s" % vm.why

    def _stand(self):
        for each in self._vm.vcpus:
            each.scheduled.stand(states.PAUSED)
        if self._vm.stops is not None:
            self._vm.stops.begin()
        self._vm.why = "by a step that was interrupted"

    def run_to(self, vcpu, gva, test, seconds):
        """Let all vCPUs run until one arrives at gva and test(that vCPU) holds; returns (the vCPU, note)."""
        vm = self._vm
        self._there = False
        at = [vcpu]

        def there(found):
            if not test(found):
                return None
            self._there = True
            at[0] = found
            vm.pausing(found, _HERE, None)
            return verdict.PAUSED

        handle = breakpoints.insert(vm, gva, there, vcpu)
        try:
            note = self._go(vcpu, seconds, lambda: None, vm._resume)
            return (at[0] if self._there else vm.stopped), note
        finally:
            handle.remove()

    def next(self, which, seconds):
        """VM.next(); returns a Stop."""
        vcpu = self._ready(which)
        gva = places.linear_rip(vcpu)
        m = Machine(vcpu)
        try:
            line = instructions.decode(instructions.read(m, gva, INSTRUCTION_BYTES), vcpu.bits, gva)
        except ValueError:
            line = None
        rep = line is not None and line.name[:3] == "rep"
        if line is None or not (line.name.startswith("call") or rep or line.name in ("syscall", "int")):
            return Stop(vcpu, self._one(vcpu, seconds))
        rsp = vcpu.rsp
        return Stop(*self.run_to(vcpu, gva + len(line.code), lambda v: _same(v.rsp, rsp), seconds))

    def finish(self, which, seconds):
        """VM.finish(); returns a Stop. ValueError where the caller is not known."""
        from vmm.debug import backtrace

        vcpu = self._ready(which)
        trace = backtrace.backtrace(self._vm, vcpu)
        if len(trace) < 2:
            raise ValueError("the caller is not known: %s" % trace.end)
        rsp = vcpu.rsp
        caller = trace[1]  # which may be on another stack: the handler of an interrupt has its own
        at, note = self.run_to(
            vcpu, caller.pc, lambda v: v.rsp == caller.sp or rsp < v.rsp < rsp + _STACK, seconds
        )  # fmt: skip
        return Stop(at, note or "returned %#x" % at.rax)

    def until(self, where, which, seconds):
        """VM.until(); returns a Stop."""
        vcpu = self._ready(which)
        gva = places.code(self._vm, where)
        return Stop(*self.run_to(vcpu, gva, lambda v: which is None or v is vcpu, seconds))


def _same(rsp, before):
    """Whether a stack pointer is of the same frame: in a call it is lower, in another task far away."""
    return before <= rsp < before + _STACK
