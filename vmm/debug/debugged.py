"""What a VM has of the debugger: vm.explain(), vm.walk(), vm.gdt(), vm.idt(), vm.tss(), vm.cr(), vm.disassemble().

`where` is a gva, or the name of a symbol, "name+0x10" too. `vcpu` is the number of a vCPU, or the vCPU itself; without,
the first. Everything is imported at its first use.
"""


class Debugged:
    """The part of vmm.vm.VM that a debugger's user asks."""

    def explain(self):
        """Why the guest died, loops or hangs, in words: after a triple fault the exceptions that led to it."""
        from vmm.debug import explain

        return explain.explain(self)

    def record_faults(self, most=64):
        """Record every exception from now on, the last `most` of them: printed they are a table; stop() ends it."""
        from vmm.debug import faults

        return faults.FaultRecord(self, most)

    def walk(self, where, access="r", cpl=None, vcpu=None, cr3=None):
        """The page tables' entries on the way to a gva, and why an access faults. access: "r", "w" or "x"; cpl: 0 to 3,
        the vCPU's own without; cr3: of another task."""
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
