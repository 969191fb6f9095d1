"""The control and bitmap bits that attached policies need (vmm.policies.event.Needs), and what they were before.

CPUID and VMCALL always exit, and so does every port: they are not armed.
"""

from micropython import const

from vmm.fault import PF
from vmm.memory.paging import FETCH
from vmm.vtx.controls import ProcBased, ProcBased2
from vmm.vtx.counted import Counted
from vmm.vtx.vmcs import (
    EXCEPTION_BITMAP,
    PAGE_FAULT_ERROR_CODE_MASK,
    PAGE_FAULT_ERROR_CODE_MATCH,
    SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS,
)
from vmm.vtx.vmcs_bits import CONTROL_MONITOR_TRAP_FLAG
from vmm.vtx.x86 import CR4_SMEP, EFER_NXE, PAGE

# Of a page fault's error code: a fetch by the kernel; and where the CPU does not report fetches, since neither
# EFER.NXE nor CR4.SMEP is set, a read by the kernel, of a page that is not present.
_FETCH_BITS = const(1 << 4 | 1 << 2)
_READ_BITS = const(1 << 2 | 1 << 1 | 1 << 0)


class Arming:
    """The arming of one VM: all its vCPUs alike. vcpus: a list; the controls that are set now always stay set.

    base: exception bitmap without policies.
    """

    def __init__(self, vm, vcpus, base):
        self.vm = vm
        self._vcpus = vcpus
        self._exceptions = Counted(base)
        self._primary = Counted(vcpus[0].events.primary)
        self.primary_bits = self._primary.bits  # the primary controls that any vCPU needs
        self._secondary = Counted(vcpus[0].read(SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS))
        self._registers = Counted()
        self._msrs = {}  # (index, write): how many policies
        self._fetches = 0  # how many need page faults of the kernel's fetches
        self._ticker = None
        self._interrupts = None
        self._injections = None
        self._by_task = None

    def check(self, event, needs):
        """ValueError where this CPU does not have what an event needs."""
        found = self.vm.monitor.caps.found
        for group, names in (("proc", needs.primary), ("proc2", needs.secondary)):
            for name in names:
                if not getattr(found[group], name):
                    raise ValueError("this CPU lacks %s, which a policy on %s needs" % (name, event.name))
        if "MONITOR_TRAP_FLAG" in needs.primary and not self.vm.monitor.trial.mtf:
            raise ValueError("this CPU's monitor trap flag does not work, which a policy on %s needs" % event.name)

    def arm(self, policy):
        """Let the exits that `policy` needs happen."""
        needs = policy.needs
        controls, exceptions = _by_task(policy)
        if controls or exceptions:
            self.by_task.add(policy, controls, exceptions)
            self._changed_primary(controls)
        if needs.pages:
            self._end_steps()
            try:
                for page in needs.pages:
                    self.vm.rights.take(page << 12, policy, needs.rights)
            except MemoryError:
                self._release(policy)
                raise
            self.vm.flush()
        self._change(policy, 1, controls, exceptions)

    def disarm(self, policy):
        """Restore what only `policy` needed."""
        controls, exceptions = _by_task(policy)
        if controls or exceptions:
            self.by_task.remove(policy)
            self._changed_primary(controls)
        self._change(policy, -1, controls, exceptions)
        if policy.needs.pages:
            self._release(policy)

    def restarted(self):
        """Adapt to a guest that starts anew."""
        if self._by_task is not None:
            self._by_task.restarted()

    def _release(self, policy):
        """Give the rights back to the pages from which a policy has taken them."""
        pages = policy.needs.pages
        self._end_steps()
        for page in pages:
            self.vm.rights.take(page << 12, policy, 0)
        for region in range(pages[0] >> 9, (pages[-1] >> 9) + 1):
            if self.vm.ept.walk(region << 21)[1] == PAGE:
                self.vm.ept.join(region << 21)
        self.vm.flush()

    def _end_steps(self):
        for vcpu in self._vcpus:
            vcpu.stepper.reset()

    def all_exceptions(self, vcpu):
        """Let every exception exit, during a step."""
        vcpu.write(EXCEPTION_BITMAP, 0xFFFFFFFF)
        if self._fetches:
            _match(vcpu, 0, 0)

    def own_exceptions(self, vcpu):
        """Let the exceptions exit that policies need. Source: SDM Vol. 3C, "Exception Bitmap"."""
        bits = self._exceptions.bits
        if self._by_task is not None:
            bits |= self._by_task.own_exceptions(vcpu)
        if self._fetches and not bits >> PF & 1:
            bits |= 1 << PF
            reported = vcpu.efer & EFER_NXE or vcpu.cr4 & CR4_SMEP
            _match(vcpu, _FETCH_BITS if reported else _READ_BITS, FETCH if reported else 0)
        vcpu.write(EXCEPTION_BITMAP, bits)

    @property
    def ticker(self):
        """The timers of policies on TIME."""
        if self._ticker is None:
            from vmm.policies.ticker import Ticker

            self._ticker = Ticker(self.vm, self._vcpus)
        return self._ticker

    @property
    def interrupts(self):
        """The caller of policies on INTERRUPT."""
        if self._interrupts is None:
            from vmm.policies.interrupts import Interrupts

            self._interrupts = Interrupts(self.vm)
        return self._interrupts

    @property
    def injections(self):
        """The caller of policies on INJECTION."""
        if self._injections is None:
            from vmm.policies.injections import Injections

            self._injections = Injections(self.vm)
        return self._injections

    @property
    def by_task(self):
        """The controls of policies that watch one process."""
        if self._by_task is None:
            from vmm.policies.bytask import ByTask

            self._by_task = ByTask(self, self.vm, self._primary.bits)
        return self._by_task

    def own_primary(self, vcpu):
        """The primary controls that this vCPU needs now: a step leaves them on."""
        return self._primary.bits | (self._by_task.own_controls(vcpu) if self._by_task is not None else 0)

    def primary(self, bits, count):
        """Change by `count` how many parts of the monitor need these primary processor-based controls."""
        changed = self._primary.add(bits, count)
        if self._by_task is not None:
            self._by_task.always(self._primary.bits)
        self._changed_primary(changed)
        for vcpu in self._vcpus if changed else ():
            if count > 0:
                vcpu.events.set_primary(changed)
            else:
                vcpu.events.set_primary(0, changed & ~self.own_primary(vcpu))

    def _changed_primary(self, changed):
        """Update primary_bits; `changed`: the controls that are different now."""
        self.primary_bits = self._primary.bits | (self._by_task.controls if self._by_task is not None else 0)
        if changed & CONTROL_MONITOR_TRAP_FLAG:
            self._end_steps()

    def secondary(self, bits, count):
        """The same for secondary controls."""
        changed = self._secondary.add(bits, count)
        if changed:
            for vcpu in self._vcpus:
                controls = vcpu.read(SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS) & ~changed
                controls |= changed if count > 0 else 0
                vcpu.write(SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, controls)

    def _change(self, policy, count, controls, exceptions):
        """Change by `count` how many policies need what `policy` needs, except pages.

        controls, exceptions: those that ByTask arms instead.
        """
        needs = policy.needs
        on = count > 0
        if needs.ticks:
            self.ticker.change(needs.ticks, count)
        if needs.interrupts:
            self.interrupts.change(count)
        if needs.injections:
            self.injections.change(count)
        changed = self._exceptions.add(needs.exceptions & ~exceptions, count)
        if needs.fetches:
            changed |= self._fetches in (0, 1)
            self._fetches += count
        for vcpu in self._vcpus if changed else ():
            _match(vcpu, 0, 0)
            self.own_exceptions(vcpu)
        for msr in needs.msrs:
            users = self._msrs[msr] = self._msrs.get(msr, 0) + count
            if users == (1 if on else 0):
                for vcpu in self._vcpus:
                    vcpu.msr_bitmap.watch(msr[0], msr[1], on)
            if not users:
                del self._msrs[msr]
        self.primary(_bits(ProcBased, needs.primary) & ~controls, count)
        self.secondary(_bits(ProcBased2, needs.secondary), count)
        changed = self._registers.add(sum([1 << number for number in needs.registers]), count)
        for vcpu in self._vcpus if changed else ():
            vcpu.own_registers(self._registers.bits & 1, self._registers.bits >> 4 & 1)


def _by_task(policy):
    """(primary controls, exceptions) that a policy needs only while its task runs."""
    if policy.task is None:
        return 0, 0
    from vmm.policies import bytask

    needs = policy.needs
    controls = [name for name in needs.primary if name in bytask.CONTROLS]
    return _bits(ProcBased, controls), needs.exceptions & bytask.EXCEPTIONS


def _match(vcpu, mask, match):
    """Set mask and match of the page-fault error code. Where error & mask == match, bit 14 of the exception bitmap
    decides whether a page fault exits; elsewhere its complement does."""
    vcpu.write(PAGE_FAULT_ERROR_CODE_MASK, mask)
    vcpu.write(PAGE_FAULT_ERROR_CODE_MATCH, match)


def _bits(register, names):
    """Fields of a register by their names, or-ed."""
    fields = dict(register.fields)
    return sum([fields[name].mask for name in names])
