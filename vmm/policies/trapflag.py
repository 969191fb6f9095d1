"""One instruction of a guest by RFLAGS.TF, for vmm/policies/stepper.py.

The guest must not see it: interrupts wait (IF is off meanwhile), every exception exits, and
what the instruction itself does to the flags, or stores of them, is put right. Limits: INT n
in a watched page stores TF and IF as they are during the step. Source: SDM Vol. 3B,
"Single-Step Exception Condition"; Vol. 3C, "VMX-Preemption Timer".
"""

from micropython import const

from vmm.fault import Fault
from vmm.handlers import exception
from vmm.memory.linear import Unbacked
from vmm.vtx.vmcs import (
    EXCEPTION_BITMAP,
    GUEST_INTERRUPTIBILITY_STATE,
    GUEST_PENDING_DEBUG_EXCEPTIONS,
    GUEST_SS_BASE,
)

_TF = const(1 << 8)
_IF = const(1 << 9)
_BOTH = const(_TF | _IF)
_BS = const(1 << 14)
_DB = const(1)
_BREAKPOINTS = const(0xF)
_BLOCKING_BY_STI_MOV_SS = const(3)
_IA32_FMASK = const(0xC0000084)
_PREFIXES = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3"

_PUSHF = const(0x9C)
_POPF = const(0x9D)
_IRET = const(0xCF)
_CLI = const(0xFA)
_STI = const(0xFB)
_SYSCALL = const(0x0F05)


class TrapFlag:
    """arm() before the entry, disarm() at the next exit that is no interruption."""

    def __init__(self, vm):
        self.vm = vm
        self._flags = 0  # the guest's TF and IF
        self._opcode = 0
        self._delivery = False

    def arm(self, vcpu):
        """Let one instruction run, or the delivery of the event that waits to be injected (then True)."""
        self._delivery = bool(vcpu.injecting())
        if self._delivery:
            self.vm.clock.slice_end = 1  # the preemption timer ends it: after the delivery, before an instruction
            vcpu.owed = 0
            return True
        self._opcode = self._fetch(vcpu)
        flags = vcpu.rflags
        self._flags = flags & _BOTH
        vcpu.rflags = flags & ~_IF | _TF
        state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
        if state & _BLOCKING_BY_STI_MOV_SS:
            vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state & ~_BLOCKING_BY_STI_MOV_SS)
        vcpu.write(EXCEPTION_BITMAP, 0xFFFFFFFF)
        return False

    def disarm(self, vcpu):
        """The guest's flags and the exception bitmap are its own again."""
        if self._delivery:
            return
        vcpu.write(EXCEPTION_BITMAP, self.vm.arming.exceptions())
        if self.ended(vcpu):
            self._put_right(vcpu)
        else:
            self.again(vcpu)
            vcpu.rflags = vcpu.rflags & ~_BOTH | self._flags

    def again(self, vcpu):
        """The instruction exited before its end: no trap is due for it (Bochs notes one all the same)."""
        pending = vcpu.read(GUEST_PENDING_DEBUG_EXCEPTIONS)
        if pending & _BS and not self._flags & _TF:
            vcpu.write(GUEST_PENDING_DEBUG_EXCEPTIONS, pending & ~_BS)

    def ended(self, vcpu):
        """Whether this exit is the trap after the instruction."""
        if self._delivery or vcpu.reason & 0xFFFF:
            return False
        return vcpu.intr_info & 0xFF == _DB and bool(vcpu.qualification & _BS)

    def rest(self, vcpu):
        """After ended(): the verdict for what else the trap says, a breakpoint or the guest's own step."""
        if not self._flags & _TF:
            vcpu.qualification = vcpu.qualification & ~_BS
        if vcpu.qualification & (_BS | _BREAKPOINTS):
            return exception.deliver(vcpu)
        return 0

    def _fetch(self, vcpu):
        """The opcode at RIP, two bytes where the first is 0Fh; 0 where it cannot be read."""
        cpu = self.vm.mmio.cpu
        try:
            cpu.take(vcpu)
            code = cpu.fetch(vcpu)
        except (Fault, Unbacked):
            return 0
        at = 0
        while at < len(code) - 2 and (code[at] in _PREFIXES or (cpu.bits == 64 and code[at] & 0xF0 == 0x40)):
            at += 1
        return code[at] << 8 | code[at + 1] if code[at] == 0x0F else code[at]

    def _put_right(self, vcpu):
        opcode = self._opcode
        flags = self._flags
        if opcode in (_POPF, _IRET):
            return  # the flags are what it loaded
        if opcode == _CLI:
            flags &= ~_IF
        elif opcode == _STI:
            flags |= _IF
        elif opcode == _SYSCALL:
            vcpu.r11 = vcpu.r11 & ~_BOTH | flags
            flags &= ~vcpu.msr(_IA32_FMASK)
        elif opcode == _PUSHF:
            self._patch(vcpu, flags)
        vcpu.rflags = vcpu.rflags & ~_BOTH | flags

    def _patch(self, vcpu, flags):
        """PUSHF stored the flags of the step."""
        gva = vcpu.rsp
        if vcpu.bits != 64:
            gva = gva + vcpu.read(GUEST_SS_BASE) & 0xFFFFFFFF
        gpa = self.vm.walk(vcpu, gva)
        if gpa is not None and self.vm.memory.has(gpa, 2):
            self.vm.memory.write_u16(gpa, self.vm.memory.read_u16(gpa) & ~_BOTH | flags)
