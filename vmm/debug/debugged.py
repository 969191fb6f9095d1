"""The debugger's methods of a VM: vm.explain(), vm.break_at(), vm.watch(), vm.step(), vm.backtrace(), vm.walk(), ...

`where` is a gva, or the name of a symbol, "name+0x10" too. `vcpu` is the number of a vCPU, or the vCPU itself; without,
the one that paused the guest, or the first. Everything is imported at its first use.
"""

import cpu

from vmm.scheduling.states import PAUSED, STOPPED

GOES_ON = "resume() at the prompt goes on"


class Debugged:
    """The part of vmm.vm.VM for debugging.

    For users: args, backtrace, break_at, breakpoints, cr, disassemble, explain, finish, gdt, hide_stops, idt, next,
    record_faults, result, step, stopped, tss, until, walk, watch.
    """

    # Attributes of the class: in an object whose dict is full, each look-up of a method takes 1,000 ticks more.
    stops = None  # vmm.scheduling.stops.Stops while hide_stops is set
    _points = None
    _steps = None
    _pausing = None  # (why the exit at hand pauses it, what its console adds to that); None there: no report
    _stopped = None  # the vCPU that paused or ended it

    @property
    def stopped(self):
        """The vCPU that paused the guest or came to a triple fault, where it stands; else the first one."""
        at = self._stopped
        return at if at in self.vcpus and self.state in (PAUSED, STOPPED) else self.vcpu

    @property
    def hide_stops(self):
        """Whether the guest's clocks, its TSCs among them, stand still while it is stopped; it can be set.

        vm.hide_stops = True hides breakpoints, steps, gdb, pause() and policies from RDTSC (vmm/scheduling/stops.py).
        """
        return self.stops is not None

    @hide_stops.setter
    def hide_stops(self, on):
        if not isinstance(on, bool):
            raise ValueError("hide_stops %r: True or False" % (on,))
        if on and self.stops is None:
            from vmm.scheduling import stops

            self.steadily(cpu.shield, stops.Stops(self).open)
        elif not on and self.stops is not None:
            self.steadily(cpu.shield, self.stops.close)

    # -- breakpoints and steps

    @property
    def breakpoints(self):
        """The breakpoints and watches: a table; breakpoints[3] is one, breakpoints.remove() takes all away."""
        if self._points is None:
            from vmm.debug.breakpoints import Points

            self._points = Points(self)
        return self._points

    def break_at(self, where, when=None, once=False, pid=None, comm=None, cpl=None):
        """A breakpoint that the guest does not see: it pauses there, before the instruction. Returns the Breakpoint.

        when: when(vcpu) says whether it pauses; once: it is removed after one hit; pid, comm: of a process, or the name
        of a task, of its Linux; cpl: 0 to 3.
        """
        from vmm.debug import breakpoints

        return breakpoints.break_at(self, where, once, dict(when=when, pid=pid, comm=comm, cpl=cpl))

    def watch(self, where, size=8, access="w", when=None, once=False, pid=None, comm=None, cpl=None):
        """Pause behind an instruction that reads or writes these bytes, and print their value before and after.

        access: letters of rwx; the others as break_at().
        """
        from vmm.debug import breakpoints

        return breakpoints.watch(self, where, size, access, once, dict(when=when, pid=pid, comm=comm, cpl=cpl))

    def step(self, count=1, vcpu=None, seconds=10):
        """Execute `count` instructions of one vCPU of the paused guest; the others stand still."""
        return self._stepping().step(count, vcpu, seconds)

    def next(self, vcpu=None, seconds=10):
        """As step(), but a call is executed with all that it calls; the other vCPUs run then."""
        return self._stepping().next(vcpu, seconds)

    def finish(self, vcpu=None, seconds=10):
        """Let the guest run until this function returns."""
        return self._stepping().finish(vcpu, seconds)

    def until(self, where, vcpu=None, seconds=10):
        """Let the guest run until the vCPU arrives at an address or a symbol."""
        return self._stepping().until(where, vcpu, seconds)

    def _stepping(self):
        if self._steps is None:
            from vmm.debug.stepping import Steps

            self._steps = Steps(self)
        return self._steps

    def backtrace(self, vcpu=None):
        """The callers: by the Linux kernel's ORC, by frame pointers, or by a scan of the stack."""
        from vmm.debug import backtrace, places

        return backtrace.backtrace(self, places.vcpu(self, vcpu))

    def args(self, vcpu=None):
        """Arguments of the function at whose first instruction a vCPU stands: args()[0] is the first one."""
        from vmm.debug import places
        from vmm.debug.abi import Args

        return Args(places.vcpu(self, vcpu))

    def result(self, vcpu=None):
        """The value of a function that has just returned: RAX in the code's width."""
        from vmm.debug import places

        return places.vcpu(self, vcpu).result

    def pausing(self, vcpu, what, text):
        """Note why the exit at hand pauses the guest, and report it. what: the cause; text: details, None: no line."""
        place = "%#x%s" % (vcpu.rip, self.name_of(vcpu.rip))
        if len(self.vcpus) > 1:
            place += " on vCPU %d" % vcpu.number
        why = "%s at %s" % (what, place)
        self._pausing = why, GOES_ON
        if text:
            self.log("%s on %s: paused at %s, resume() goes on" % (what, text, place))
        elif text is not None:
            self.log("%s: paused, resume() goes on" % why)

    def failing(self, why):
        """Note that the exit at hand pauses the guest for a failure, which has been reported at the prompt."""
        self._pausing = why, "the prompt has the report"

    def pause_quietly(self, why):
        """Note that the exit at hand pauses the guest for a short time: no report, neither here nor on its console."""
        self._pausing = why, None

    @property
    def silent(self):
        """Whether the pause at hand is not reported."""
        return self._pausing is not None and self._pausing[1] is None

    # -- what its state means

    def explain(self):
        """Why the guest died, loops or hangs, in words: after a triple fault the exceptions that led to it."""
        from vmm.debug import explain

        return explain.explain(self)

    def record_faults(self, most=64):
        """Record every exception from now on, the last `most` of them: printed they are a table; stop() ends it."""
        from vmm.debug import faults

        return faults.FaultRecord(self, most)

    def walk(self, where, access="r", cpl=None, vcpu=None, cr3=None):
        """The page tables' entries on the way to a gva, and why an access faults.

        access: "r", "w" or "x"; cpl: 0 to 3, None: the vCPU's own; cr3: of another task.
        """
        from vmm.debug import pagewalk, places

        found = places.vcpu(self, vcpu)
        if access not in pagewalk.ACCESSES:
            raise ValueError('access %r: one of "r", "w", "x"' % (access,))
        if cpl is not None and cpl not in (0, 1, 2, 3):
            raise ValueError("cpl %r: 0 to 3" % (cpl,))
        gva = places.resolve(self, where)
        level = found.cpl if cpl is None else cpl
        done = pagewalk.walk(self.memory, pagewalk.mode_of(found, cr3), gva, pagewalk.ACCESSES[access], level)
        if done.gpa is not None:
            done.behind = pagewalk.behind(self, done.gpa)
        return done

    def gdt(self, vcpu=None):
        """The GDT, a table."""
        from vmm.debug import descriptors, places

        return descriptors.gdt(places.vcpu(self, vcpu))

    def idt(self, vcpu=None):
        """The IDT, a table: handlers by name, and what is wrong with a gate."""
        from vmm.debug import descriptors, places

        return descriptors.idt(places.vcpu(self, vcpu))

    def tss(self, vcpu=None):
        """The TSS, a table: the stacks, and whether they can be written."""
        from vmm.debug import descriptors, places

        return descriptors.tss(places.vcpu(self, vcpu))

    def cr(self, vcpu=None):
        """CR0, CR2, CR3, CR4, CR8, EFER, RFLAGS and XCR0, decoded."""
        from vmm.debug import places, registers

        return registers.control_registers(places.vcpu(self, vcpu))

    def disassemble(self, where=None, count=8, vcpu=None):
        """`count` instructions from a gva on, or from RIP: a list of lines that prints as text."""
        from vmm.debug import instructions, places
        from vmm.debug.machine import Machine, namer

        found = places.vcpu(self, vcpu)
        rip = places.linear_rip(found)
        gva = rip if where is None else places.resolve(self, where)
        if not isinstance(count, int) or count < 1:
            raise ValueError("count %r: a number from 1 up" % (count,))
        return instructions.disassemble(Machine(found), gva, count, namer(self), rip)
