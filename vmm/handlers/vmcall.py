"""VMCALL: hypercalls. RAX is the number, RBX, RCX, RDX, RSI the arguments, RAX the answer.

An unknown number answers ~0 and is counted (docs/hypercalls.md), and so does one that the guest's
privilege level may not call: VMCALL exits at every level.
"""

import micropython
from micropython import const

from vmm import tally, verdict
from vmm.vtx import reasons
from vmm.vtx.frame import DATUM, RAX
from vmm.vtx.privilege import USER
from vmm.vtx.privilege import cpl as cpl_of
from vmm.vtx.x86 import MASK64

_KNOWN = const(32)  # unknown numbers with a count and a key of their own
UNKNOWN = const(MASK64)  # the answer where there is no such hypercall


class Hypercalls:
    """One guest's hypercalls. calls {number: f(vcpu) -> value of RAX}; levels {number: the highest CPL that may call
    it}."""

    def __init__(self):
        self.calls = {}
        self.levels = {}
        self._others = {}
        self._words = tally.Words(_KNOWN)
        self._exits = None

    def install(self, exits):
        """Set the handlers; an unknown number gets one of its own at its first call."""
        self._exits = exits
        exits.add(reasons.VMCALL, self.exit)
        exits.keyed(reasons.VMCALL, 4 * RAX, 0xFFFFFFFF, 6)

    def add(self, number, call, cpl=0):
        """Claim a number, for guest code of privilege levels up to `cpl`. ValueError where it is claimed already."""
        if cpl not in (0, 1, 2, 3):
            raise ValueError("cpl=%r: a privilege level from 0 to 3" % (cpl,))
        if number in self.calls:
            raise ValueError("hypercall %d is claimed already" % number)
        if number in self._words:
            self._exits.unkey(reasons.VMCALL, number)
        self.levels[number] = cpl
        self.calls[number] = call

    def remove(self, number):
        """Give a number back. KeyError where it is not taken."""
        del self.calls[number]
        del self.levels[number]

    @property
    def unclaimed(self):
        """{number: count} of unknown hypercalls."""
        counts = self._words.counts()
        counts.update(self._others)
        return counts

    def exit(self, vcpu):
        """Handler of VMCALL."""
        number = vcpu.rax & 0xFFFFFFFF
        call = self.calls.get(number)
        if call:
            vm = vcpu.vm
            level = self.levels[number]
            if level < USER and cpl_of(vcpu) > level:
                return refused(vcpu)
            starts = vm.starts
            answer = call(vcpu)
            if vm.starts != starts:
                return verdict.YIELD  # it has reset the guest: the answer is obsolete
            vcpu.rax = answer
            return verdict.ADVANCE if vm.runs(vcpu) else verdict.ADVANCE | verdict.YIELD
        try:
            if number not in self._words:
                self._exits.key(reasons.VMCALL, number, _unknown, self._words.address(number))
            self._words.count(number)
        except ValueError:  # too many unknown numbers
            tally.count(self._others, number)
        vcpu.rax = UNKNOWN
        return verdict.ADVANCE


def refused(vcpu):
    """A hypercall that the guest's CPL may not make: answered as an unknown one, and counted as refused."""
    vcpu.vm.count_refused("hypercall at too high a CPL")
    vcpu.rax = UNKNOWN
    return verdict.ADVANCE


@micropython.viper
def _unknown(vcpu) -> int:
    """Handler of an unknown number whose count is at frame.DATUM."""
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    count = int(w[0]) + 1
    w[0] = count
    w[1] = int(w[1]) + (count >> 32)
    f[RAX] = -1
    f[RAX + 1] = -1
    return 1
