"""The slow path of an instruction that accessed device memory, or whose access a policy answers.

`GuestCpu` gives vmm/emulation/emulate.py the registers and operands of one vCPU. An instruction that the emulator does
not know is executed by the CPU itself, on pages that stand in for the devices' (vmm/emulation/oncpu.py).
"""

from micropython import const

from vmm import verdict
from vmm.emulation import decode, emulate
from vmm.fault import Fault
from vmm.loaders.state import GPRS
from vmm.memory import paging
from vmm.memory.linear import Unbacked
from vmm.vtx import events
from vmm.vtx.vmcs import GUEST_CS_BASE, GUEST_ES_SELECTOR, GUEST_SS_ACCESS_RIGHTS
from vmm.vtx.x86 import INSTRUCTION_BYTES, PAGE, RFLAGS_TF

_ITERATIONS = const(64)  # of a REP instruction in one exit


class GuestCpu:
    """One vCPU as the emulator sees it; call take() at each exit."""

    def __init__(self, vm):
        self.vm = vm
        self.vcpu = None
        self.bits = 64
        self.iterations = _ITERATIONS
        self.memory = vm.linear
        self._answer = None
        self.emulator = emulate.Emulator(self)
        self.instruction = decode.Instruction()
        self._on_cpu = None

    def take(self, vcpu):
        """Load the vCPU's current mode."""
        self.vcpu = vcpu
        self.bits = self.memory.load(vcpu).bits

    def execute(self, vcpu, answer=None):
        """Execute the instruction at RIP; returns a verdict.

        answer: the value that its memory operand reads, or that is written instead.
        """
        try:
            return self._execute(vcpu, answer)
        except Fault as fault:
            vcpu.stepper.reset()  # the guest's handler is not stepped, and finds the guest's own flags
            return events.deliver(vcpu, fault)
        except (decode.DecodeError, Unbacked) as error:
            vcpu.stepper.reset()
            self.vm.report(vcpu, "cannot execute the instruction at %#x for the guest: %s" % (vcpu.rip, error))
            return verdict.STOP
        finally:
            self._answer = None

    def _execute(self, vcpu, answer):
        self.take(vcpu)
        code = self.fetch(vcpu)
        try:
            instruction = self.instruction.decode(code, self.bits)
        except decode.DecodeError:
            return self._by_cpu(vcpu, code, answer)
        self._answer = answer
        self.iterations = 1 if vcpu.rflags & RFLAGS_TF or vcpu.breakpoints.armed else _ITERATIONS
        if self.emulator.execute(instruction):
            self.finish(vcpu, instruction.length)
        else:
            events.again(vcpu)
        return self.vm.ports.outcome & ~1

    def _by_cpu(self, vcpu, code, answer):
        if self._on_cpu is None:
            from vmm.emulation import oncpu  # few guests need it: loaded on first use

            self._on_cpu = oncpu.OnCpu(self)
        return self._on_cpu.execute(vcpu, code, answer)

    def finish(self, vcpu, length):
        """Advance RIP as the shim does, which also handles TF and the blocking by STI and MOV SS."""
        vcpu.length = length
        vcpu.advance()

    def fetch(self, vcpu):
        """Return up to 15 bytes of code at RIP."""
        gva = vcpu.rip
        if self.bits != 64:
            gva = gva + vcpu.read(GUEST_CS_BASE) & 0xFFFFFFFF
        access = paging.FETCH | self.memory.explicit
        code = self.vm.physical_read(self.memory.gpa(gva, access), min(INSTRUCTION_BYTES, PAGE - (gva & (PAGE - 1))))
        if len(code) < INSTRUCTION_BYTES:
            try:
                gpa = self.memory.gpa(gva + len(code), access)
            except Fault:
                return code  # the instruction may end before that page
            if self.vm.memory.has(gpa, INSTRUCTION_BYTES):
                code += self.vm.memory.read(gpa, INSTRUCTION_BYTES - len(code))
        return code

    # -- the interface of vmm/emulation/emulate.py

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

    def selector(self, n):
        return self.vcpu.read(GUEST_ES_SELECTOR + 2 * n)

    def operand(self, segment, offset, size, access):
        """(pieces, size) of an operand; Fault where the guest's segmentation or paging denies the access."""
        return self.memory.operand(segment, offset, size, access), size

    def load(self, operand):
        """The value of an operand: from RAM, a device, or the policy's answer."""
        pieces, size = operand
        if self._answer is not None and self._watched(pieces):
            return self._answer & (1 << 8 * size) - 1
        return self.memory.get(pieces)

    def store(self, operand, value):
        """Write a value, or the policy's answer, to an operand in RAM or a device."""
        pieces, size = operand
        if self._answer is not None and self._watched(pieces):
            value = self._answer & (1 << 8 * size) - 1
        self.memory.put(pieces, value)

    def _watched(self, pieces):
        """Whether this is the operand that exited: an answer does not apply to a string instruction's other operand."""
        for gpa, _ in pieces:
            if gpa >> 12 == self.vcpu.gpa >> 12:
                return True
        return False
