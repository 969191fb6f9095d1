"""The value of the operand whose access has caused an EPT violation: before the instruction, and after it.

The value after it is what vmm/emulation/emulate.py computes on a copy of the registers, with stores that are not
made. It is None for instructions that it does not know (SSE, x87, XSAVE), and where another operand is a device's.
"""

from vmm.emulation.decode import DecodeError, Instruction
from vmm.emulation.emulate import Emulator
from vmm.fault import Fault
from vmm.loaders.state import GPRS
from vmm.memory.linear import Unbacked
from vmm.vtx.x86 import PAGE_MASK


def old(vcpu):
    """A number of the operand's size, of 8 bytes where that is not known. ValueError: not in RAM."""
    size = vcpu.vm.mmio.operand_size(vcpu) or 8
    return int.from_bytes(vcpu.vm.memory.read(vcpu.gpa, size), "little")


def new(vcpu):
    """The number that will be written; None where that is not computed."""
    guest = vcpu.vm.mmio.cpu
    trial = _Trial(guest, vcpu)
    try:
        guest.take(vcpu)
        trial.bits = guest.bits
        Emulator(trial).execute(Instruction().decode(guest.fetch(vcpu), guest.bits))
    except (DecodeError, Fault, Unbacked, ValueError):
        return None
    return trial.written


class _Trial:
    """vmm.emulation.access.GuestCpu for one instruction that is not executed. written: the operand's new value."""

    iterations = 1

    def __init__(self, guest, vcpu):
        self.written = None
        self.rip = vcpu.rip
        self.rflags = vcpu.rflags
        self._guest = guest
        self._vcpu = vcpu
        self._changed = {}
        self.selector = guest.selector
        self.operand = guest.operand

    @property
    def stack_size(self):
        return self._guest.stack_size

    def reg(self, n):
        return self._changed.get(n, getattr(self._vcpu, GPRS[n]))

    def set_reg(self, n, value):
        self._changed[n] = value

    def load(self, operand):
        """ValueError where a device would be read."""
        pieces, _ = operand
        for gpa, size in pieces:
            self._vcpu.vm.memory.hpa(gpa, size)
        return self._guest.memory.get(pieces)

    def store(self, operand, value):
        pieces, size = operand
        if self._vcpu.gpa & PAGE_MASK in [gpa & PAGE_MASK for gpa, _ in pieces]:
            self.written = value & (1 << 8 * size) - 1
