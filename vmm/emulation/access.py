"""A guest's instruction that touched memory which is no RAM, or that a policy answers: executed here.

`GuestCpu` is what vmm/emulation/emulate.py asks for: registers, segments and linear memory of one vCPU.
"""

from micropython import const

from vmm import verdict
from vmm.emulation import decode, emulate
from vmm.memory import paging
from vmm.vtx import events
from vmm.vtx.vmcs import GUEST_CS_BASE, GUEST_ES_BASE, GUEST_ES_SELECTOR, GUEST_SS_ACCESS_RIGHTS

GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi") + tuple("r%d" % i for i in range(8, 16))
_MAX_LENGTH = const(15)
_PAGE = const(0x1000)


class GuestFault(Exception):
    """The guest's own page tables refuse: args are gva and what Walker.translate answered."""


def deliver_fault(vcpu, gva, code):
    """Inject the exception for what Walker.translate answered below zero; returns a verdict."""
    if code == paging.NOT_CANONICAL:
        return events.general_protection(vcpu)
    if code == paging.UNBACKED:
        vcpu.vm.report(vcpu, "the page tables for gva %#x lie outside guest memory" % gva)
        return verdict.STOP
    vcpu.cr2 = gva & 0xFFFFFFFFFFFFFFFF
    return events.inject(vcpu, events.PF, ~code)


class GuestCpu:
    """One vCPU as the emulator sees it; load() it at each exit."""

    def __init__(self, vm):
        self.vm = vm
        self.vcpu = None
        self.user = 0
        self.bits = 64
        self._answer = None
        self.emulator = emulate.Emulator(self)
        self.instruction = decode.Instruction()

    def load(self, vcpu):
        self.vcpu = vcpu
        self.bits = vcpu.bits
        self.user = paging.USER if vcpu.cpl == 3 else 0
        self.walker = self.vm.load_walker(vcpu)

    def execute(self, vcpu, answer=None):
        """Execute the instruction at RIP; returns a verdict.

        answer: the value that its memory operand reads, or that is written instead.
        """
        try:
            self.load(vcpu)
            instruction = self.decode(vcpu)
            self._answer = answer
            done = self.emulator.execute(instruction)
        except GuestFault as fault:
            return deliver_fault(vcpu, fault.args[0], fault.args[1])
        except decode.DecodeError as error:
            self.vm.report(vcpu, "cannot execute the instruction at %#x for the guest: %s" % (vcpu.rip, error))
            return verdict.STOP
        finally:
            self._answer = None
        if done:
            self.finish(vcpu, instruction.length)
        return self.vm.ports.outcome & ~1

    def decode(self, vcpu):
        """Return the decoded instruction at RIP."""
        return self.instruction.decode(self.fetch(vcpu), self.bits)

    def finish(self, vcpu, length):
        """RIP moves past the instruction by the shim's advance, which knows about TF and blocking."""
        vcpu.length = length
        vcpu.advance()

    def fetch(self, vcpu):
        """Return up to 15 bytes of code at RIP."""
        gva = vcpu.rip
        if self.bits != 64:
            gva = gva + vcpu.read(GUEST_CS_BASE) & 0xFFFFFFFF
        code = self.vm.physical_read(self._gpa(gva, paging.FETCH), min(_MAX_LENGTH, _PAGE - (gva & (_PAGE - 1))))
        if len(code) < _MAX_LENGTH:
            gpa = self.walker.translate(gva + len(code), paging.FETCH | self.user)
            if gpa >= 0:
                code += self.vm.physical_read(gpa, _MAX_LENGTH - len(code))
        return code

    def _gpa(self, gva, access):
        gpa = self.walker.translate(gva, access | self.user)
        if gpa < 0:
            raise GuestFault(gva, gpa)
        return gpa

    # -- what the emulator asks for

    @property
    def rip(self):
        return self.vcpu.rip

    @property
    def rflags(self):
        return self.vcpu.rflags

    @rflags.setter
    def rflags(self, value):
        self.vcpu.rflags = value

    @property
    def stack_size(self):
        if self.bits == 64:
            return 8
        return 4 if self.vcpu.read(GUEST_SS_ACCESS_RIGHTS) & 1 << 14 else 2

    def reg(self, n):
        return getattr(self.vcpu, GPRS[n])

    def set_reg(self, n, value):
        setattr(self.vcpu, GPRS[n], value)

    def segment_base(self, n):
        return self.vcpu.read(GUEST_ES_BASE + 2 * n)

    def selector(self, n):
        return self.vcpu.read(GUEST_ES_SELECTOR + 2 * n)

    def read(self, gva, size):
        """Linear memory, RAM or device; GuestFault where the guest's tables refuse."""
        gpa = self._gpa(gva, 0)
        first = _PAGE - (gva & (_PAGE - 1))
        if first < size:
            second = self._gpa(gva + first, 0)
            data = self.vm.physical_read(gpa, first) + self.vm.physical_read(second, size - first)
            return int.from_bytes(data, "little")
        if self._answer is not None and self._watched(gpa):
            return self._answer & (1 << 8 * size) - 1
        return self.vm.physical_load(gpa, size)

    def write(self, gva, size, value):
        gpa = self._gpa(gva, paging.WRITE)
        first = _PAGE - (gva & (_PAGE - 1))
        if first < size:
            second = self._gpa(gva + first, paging.WRITE)
            data = value.to_bytes(size, "little")
            self.vm.physical_write(gpa, data[:first])
            self.vm.physical_write(second, data[first:])
            return
        if self._answer is not None and self._watched(gpa):
            value = self._answer & (1 << 8 * size) - 1
        self.vm.physical_store(gpa, size, value)

    def _watched(self, gpa):
        """An answer is for the operand that exited, not for a string's other end."""
        return gpa >> 12 == self.vcpu.gpa >> 12
