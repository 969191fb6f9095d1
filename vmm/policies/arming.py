"""The control and bitmap bits that attached policies need, and what they were before.

Exceptions: bits of the exception bitmap. MSRs: bits of the MSR bitmaps. Memory: rights of
EPT entries (vmm/memory/rights.py). CPUID and VMCALL always exit, and so does every port.
"""

from micropython import const

from vmm.policies.filters import ANY, EXCEPTION, MEMORY, RDMSR, WRMSR, rights_of
from vmm.vtx.vmcs import EXCEPTION_BITMAP
from vmm.vtx.x86 import PAGE

_ALL = const(0xFFFFFFFF)


class Arming:
    """One VM's. base: exception bitmap without policies."""

    def __init__(self, vm, base):
        self.vm = vm
        self._base = base
        self._attached = []  # policies of EXCEPTION
        self._msrs = {}  # (index, write): how many policies

    def arm(self, policy):
        """Let the exits that `policy` needs happen."""
        if policy.event == EXCEPTION:
            self._attached.append(policy)
            self._exceptions()
        elif policy.event in (RDMSR, WRMSR):
            key = (policy.keys[0], policy.event == WRMSR)
            if key not in self._msrs:
                self._msrs[key] = 0
                self.vm.msrs.bitmap.watch(key[0], key[1], True)
            self._msrs[key] += 1
        elif policy.event == MEMORY:
            self.vm.stepper.reset()
            self._pages(policy, rights_of(policy.filters.get("access", "rwx")))
            self.vm.flush()

    def disarm(self, policy):
        """Put back what only `policy` needed."""
        if policy.event == EXCEPTION:
            self._attached.remove(policy)
            self._exceptions()
        elif policy.event in (RDMSR, WRMSR):
            key = (policy.keys[0], policy.event == WRMSR)
            self._msrs[key] -= 1
            if not self._msrs[key]:
                del self._msrs[key]
                self.vm.msrs.bitmap.watch(key[0], key[1], False)
        elif policy.event == MEMORY:
            self.vm.stepper.reset()
            self._pages(policy, 0)
            for region in range(policy.keys[0] >> 9, (policy.keys[-1] >> 9) + 1):
                if self.vm.ept.walk(region << 21)[1] == PAGE:
                    self.vm.ept.join(region << 21)
            self.vm.flush()

    def _pages(self, policy, rights):
        for page in policy.keys:
            self.vm.rights.take(page << 12, policy, rights)

    def exceptions(self):
        """The exception bitmap that the attached policies need."""
        bits = self._base
        for policy in self._attached:
            for vector in policy.keys:
                bits |= _ALL if vector == ANY else 1 << vector
        return bits

    def _exceptions(self):
        self.vm.vcpu.write(EXCEPTION_BITMAP, self.exceptions())
