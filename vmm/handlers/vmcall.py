"""VMCALL: hypercalls. RAX is the number, RBX, RCX, RDX and RSI are the arguments, RAX is the result.

VMCALL exits at every privilege level. An unknown number, and one that the guest's CPL may not call, returns ~0 and is
counted (docs/hypercalls.md).
"""

import micropython
from micropython import const

from vmm import tally, verdict
from vmm.vtx import reasons
from vmm.vtx.frame import DATUM, RAX
from vmm.vtx.privilege import USER
from vmm.vtx.privilege import cpl as cpl_of
from vmm.vtx.x86 import MASK64

_KNOWN = const(32)  # unknown numbers that get a count and a key each
UNKNOWN = const(MASK64)  # result of an unknown hypercall


class Hypercalls:
    """The hypercalls of one guest.

    calls {number: f(vcpu) -> value of RAX}; levels {number: the highest CPL that may call it}.
    """

    def __init__(self):
        self.calls = {}
        self.levels = {}
        self._others = {}
        self._words = tally.Words(_KNOWN)
        self._exits = None

    def install(self, exits):
        """Set the handlers; an unknown number gets a key at its first call."""
        self._exits = exits
        exits.add(reasons.VMCALL, self.exit)
        exits.keyed(reasons.VMCALL, 4 * RAX, 0xFFFFFFFF, 6)

    def add(self, number, call, cpl=0):
        """Claim a number, for guest code with a CPL of up to `cpl`. ValueError if it is claimed already."""
        if cpl not in (0, 1, 2, 3):
            raise ValueError("cpl=%r: a privilege level from 0 to 3" % (cpl,))
        if number in self.calls:
            raise ValueError("hypercall %d is claimed already" % number)
        if number in self._words:
            self._exits.unkey(reasons.VMCALL, number)
        self.levels[number] = cpl
        self.calls[number] = call

    def remove(self, number):
        """Release a number. KeyError if it is not claimed."""
        del self.calls[number]
        del self.levels[number]

    @property
    def unclaimed(self):
        """Return {number: count} of unknown hypercalls."""
        counts = self._words.counts()
        counts.update(self._others)
        return counts

    def exit(self, vcpu):
        """Handler of VMCALL: any number."""
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
                return verdict.YIELD  # the call has reset the guest: discard the result
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
    """Handle a hypercall that the guest's CPL may not make: returns ~0 as an unknown one, counted as refused."""
    vcpu.vm.count_refused("hypercall at too high a CPL")
    vcpu.rax = UNKNOWN
    return verdict.ADVANCE


@micropython.viper
def _unknown(vcpu) -> int:
    """Handler of an unknown number. frame.DATUM: address of its count."""
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    count = int(w[0]) + 1
    w[0] = count
    w[1] = int(w[1]) + (count >> 32)
    f[RAX] = -1
    f[RAX + 1] = -1
    return 1
