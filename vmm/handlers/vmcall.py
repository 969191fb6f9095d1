"""VMCALL: hypercalls. RAX is the number, RBX, RCX, RDX, RSI the arguments, RAX the answer.

An unknown number answers ~0 and is counted (docs/hypercalls.md).
"""

import micropython
from micropython import const

from vmm.tally import count

_RAX = const(0x000 // 4)


class Hypercalls:
    """One guest's hypercalls. calls {number: f(vcpu) -> value of RAX}; unclaimed {number: count}."""

    def __init__(self):
        self.calls = {}
        self.unclaimed = {}

    def add(self, number, call):
        """Claim a number. ValueError where it is claimed already."""
        if number in self.calls:
            raise ValueError("hypercall %d is claimed already" % number)
        self.calls[number] = call

    @micropython.viper
    def exit(self, vcpu) -> int:
        """Handler of VMCALL."""
        f = ptr32(vcpu)  # noqa: F821
        number = int(f[_RAX])
        calls = self.calls
        call = calls.get(number)
        if call:
            vcpu.rax = call(vcpu)
            return 1
        count(self.unclaimed, number)
        f[_RAX] = -1
        f[_RAX + 1] = -1
        return 1
