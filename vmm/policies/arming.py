"""The control and bitmap bits that attached policies need (vmm.policies.event.Needs), and what they were before.

One class for each place that such bits lie in. CPUID and VMCALL always exit, and so does every port.
"""

from vmm.vtx.controls import ProcBased, ProcBased2
from vmm.vtx.vmcs import EXCEPTION_BITMAP, SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS
from vmm.vtx.x86 import PAGE


class Counted:
    """Bits of one word, each set while somebody needs it."""

    def __init__(self):
        self._needed = {}  # bit: by how many

    def add(self, bits, count=1):
        """`count` more, or less, need these bits; returns those that none needed before, or none needs now."""
        changed = 0
        while bits:
            bit = bits & -bits
            bits ^= bit
            before = self._needed.get(bit, 0)
            self._needed[bit] = before + count
            if not before or not before + count:
                changed |= bit
        return changed

    @property
    def bits(self):
        return sum([bit for bit, count in self._needed.items() if count])


class Arming:
    """One VM's: all its vCPUs are armed alike. vcpus: a list. base: exception bitmap without policies."""

    def __init__(self, vm, vcpus, base):
        self.vm = vm
        self._vcpus = vcpus
        self._base = base
        self._exceptions = Counted()
        self._primary = Counted()
        self._secondary = Counted()
        self._msrs = {}  # (index, write): how many policies

    def check(self, event, needs):
        """ValueError where this CPU does not have what an event needs."""
        found = self.vm.monitor.caps.found
        for group, names in (("proc", needs.primary), ("proc2", needs.secondary)):
            for name in names:
                if not getattr(found[group], name):
                    raise ValueError("this CPU lacks %s, which a policy on %s needs" % (name, event.name))

    def arm(self, policy):
        """Let the exits that `policy` needs happen."""
        needs = policy.needs
        if needs.pages:
            self._end_steps()
            try:
                for page in needs.pages:
                    self.vm.rights.take(page << 12, policy, needs.rights)
            except MemoryError:
                self._release(policy)
                raise
            self.vm.flush()
        self._change(policy, 1)

    def disarm(self, policy):
        """Put back what only `policy` needed."""
        self._change(policy, -1)
        if policy.needs.pages:
            self._release(policy)

    def _release(self, policy):
        """The rights that a policy has taken are the pages' again."""
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

    def exceptions(self):
        """The exception bitmap that the attached policies need."""
        return self._base | self._exceptions.bits

    def _change(self, policy, count):
        """What is no memory: needed by `count` more policies."""
        needs = policy.needs
        on = count > 0
        if self._exceptions.add(needs.exceptions, count):
            for vcpu in self._vcpus:
                vcpu.write(EXCEPTION_BITMAP, self.exceptions())
        for msr in needs.msrs:
            users = self._msrs[msr] = self._msrs.get(msr, 0) + count
            if users == (1 if on else 0):
                for vcpu in self._vcpus:
                    vcpu.msr_bitmap.watch(msr[0], msr[1], on)
            if not users:
                del self._msrs[msr]
        changed = self._primary.add(_bits(ProcBased, needs.primary), count)
        if changed:
            for vcpu in self._vcpus:
                vcpu.events.set_primary(changed if on else 0, 0 if on else changed)
        changed = self._secondary.add(_bits(ProcBased2, needs.secondary), count)
        if changed:
            for vcpu in self._vcpus:
                controls = vcpu.read(SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS)
                controls = controls | changed if on else controls & ~changed
                vcpu.write(SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, controls)


def _bits(register, names):
    """Fields of a register by their names, or-ed."""
    fields = dict(register.fields)
    return sum([fields[name].mask for name in names])
