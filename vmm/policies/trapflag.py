"""One instruction of a guest by RFLAGS.TF, for vmm/policies/stepper.py.

The guest must not see it: interrupts are held (IF is clear meanwhile), every exception exits, and the instruction's
changes to TF and IF, and copies of them that it stored, are corrected. INT n, which would store them and go on without
a trap, is injected instead; a load of SS, which no trap follows, is done here. DEBUGCTL.BTF and IA32_FMASK, which
suppress traps, are changed meanwhile. Source: SDM Vol. 3B, "Single-Step Exception Condition"; Vol. 2, POPF, IRET, CLI,
STI, SYSCALL, SYSENTER, PUSHF; Vol. 3C, "VMX-Preemption Timer".
"""

from micropython import const

from vmm import verdict
from vmm.emulation.decode import SS
from vmm.emulation.length import PREFIXES, Unknown, length
from vmm.emulation.oncpu import MOV_SREG, POP_SS, PUSHF
from vmm.fault import DB, Fault
from vmm.handlers import exception
from vmm.memory.linear import Unbacked
from vmm.scheduling.clock import AT_ONCE
from vmm.vtx import events
from vmm.vtx.vmcs import (
    GUEST_IA32_DEBUGCTL,
    GUEST_INTERRUPTIBILITY_STATE,
    GUEST_PENDING_DEBUG_EXCEPTIONS,
    GUEST_SS_ACCESS_RIGHTS,
    GUEST_SS_BASE,
)
from vmm.vtx.vmcs_bits import BLOCKING_BY_MOV_SS, BLOCKING_BY_STI, BLOCKING_BY_STI_MOV_SS, PENDING_BS
from vmm.vtx.x86 import CR0_PE, DEBUGCTL_BTF, IA32_FMASK, RFLAGS_IF, RFLAGS_TF, RFLAGS_VM

_BOTH = const(RFLAGS_TF | RFLAGS_IF)
_BREAKPOINTS = const(0xF)

_POPF = const(0x9D)
_INT = const(0xCD)
_IRET = const(0xCF)
_CLI = const(0xFA)
_STI = const(0xFB)
_SYSCALL = const(0x0F05)
_SYSRET = const(0x0F07)
_SYSENTER = const(0x0F34)


def find_opcode(code, bits):
    """(opcode, offset behind it) of an instruction's bytes: two bytes where the first is 0Fh; (0, 0) for none."""
    at = 0
    while at < len(code) and (code[at] in PREFIXES or (bits == 64 and code[at] & 0xF0 == 0x40)):
        at += 1
    if at + 1 >= len(code):
        return (code[at], at + 1) if at < len(code) else (0, 0)
    if code[at] == 0x0F:
        return 0x0F00 | code[at + 1], at + 2
    return code[at], at + 1


class TrapFlag:
    """A step: arm() before the entry, disarm() at the next exit that is not an interruption."""

    traps_advance = True  # the shim's advance makes the single step due

    def __init__(self, vcpu):
        self.vm = vcpu.vm
        self._flags = 0  # the guest's TF and IF
        self._opcode = 0
        self._next = 0  # RIP behind the instruction
        self._owns = False  # the instruction may change IF
        self._btf = False  # the guest itself steps by branches
        self._fmask = None  # IA32_FMASK where the step has changed it
        self._held = 0  # pending debug exceptions that MOV SS delays until the instruction has ended
        self._delivery = False

    def fits(self, vcpu):
        """Always: every CPU has RFLAGS.TF."""
        return True

    def instead(self, vcpu):
        """Execute an instruction that cannot be stepped; returns a verdict, or None where it can, or is an INT n."""
        if vcpu.injecting():
            return None
        code, bits = self._fetch(vcpu)
        opcode, at = find_opcode(code, bits)
        if opcode == _INT and at < len(code):
            vcpu.event(events.VALID | events.SOFTWARE_INTERRUPT << 8 | code[at], 0, at + 1)
            return None
        if opcode == MOV_SREG and at < len(code) and code[at] >> 3 & 7 == SS:
            if code[at] >= 0xC0:
                rex = code[at - 2] if bits == 64 and at > 1 and code[at - 2] & 0xF0 == 0x40 else 0
                return self._mov_ss(vcpu, code, code[at] & 7 | (rex & 1) << 3)
            return self.vm.mmio.cpu.execute(vcpu)
        if opcode == POP_SS and bits != 64:
            return self.vm.mmio.cpu.execute(vcpu)
        return None

    def _mov_ss(self, vcpu, code, register):
        """Execute MOV SS from a general register; the emulator executes it from memory."""
        from vmm.emulation.oncpu import load_ss  # few guests need it: loaded on first use

        cpu = self.vm.mmio.cpu
        try:
            load_ss(vcpu, cpu.memory, cpu.reg(register) & 0xFFFF)
            cpu.finish(vcpu, length(code, cpu.bits))
        except Fault as fault:
            return events.deliver(vcpu, fault)
        vcpu.write(GUEST_INTERRUPTIBILITY_STATE, vcpu.read(GUEST_INTERRUPTIBILITY_STATE) | BLOCKING_BY_MOV_SS)
        return verdict.RESUME

    def arm(self, vcpu):
        """Let one instruction run, or the delivery of the event that waits to be injected.

        Returns whether the preemption timer ends the step: it does so after a delivery, before the next instruction.
        """
        self._delivery = bool(vcpu.injecting())
        if self._delivery:
            vcpu.clock.slice_end = AT_ONCE
            vcpu.min_run = 0
            return True
        code, bits = self._fetch(vcpu)
        self._opcode = find_opcode(code, bits)[0]
        try:
            self._next = vcpu.rip + length(code, bits)
        except Unknown:
            self._next = 0
        flags = vcpu.rflags
        self._flags = flags & _BOTH
        self._owns = not vcpu.cr0 & CR0_PE or (3 if flags & RFLAGS_VM else vcpu.cpl) <= flags >> 12 & 3
        vcpu.rflags = flags & ~RFLAGS_IF | RFLAGS_TF
        self._held = 0
        state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
        if state & BLOCKING_BY_STI_MOV_SS:
            if state & BLOCKING_BY_MOV_SS:
                self._held = vcpu.read(GUEST_PENDING_DEBUG_EXCEPTIONS) & ~PENDING_BS
                vcpu.write(GUEST_PENDING_DEBUG_EXCEPTIONS, 0)
            vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state & ~BLOCKING_BY_STI_MOV_SS)
        self.again(vcpu)
        debugctl = vcpu.read(GUEST_IA32_DEBUGCTL)
        self._btf = bool(debugctl & DEBUGCTL_BTF)
        if self._btf:
            vcpu.write(GUEST_IA32_DEBUGCTL, debugctl & ~DEBUGCTL_BTF)
        self._fmask = vcpu.msr(IA32_FMASK) if self._opcode == _SYSCALL else None
        if self._fmask is not None:
            vcpu.msr(IA32_FMASK, self._fmask & ~RFLAGS_TF)
        self.vm.arming.all_exceptions(vcpu)
        return False

    def disarm(self, vcpu):
        """Restore the guest's flags, DEBUGCTL.BTF and IA32_FMASK."""
        if self._delivery:
            return
        self.vm.arming.own_exceptions(vcpu)
        if self._btf:
            vcpu.write(GUEST_IA32_DEBUGCTL, vcpu.read(GUEST_IA32_DEBUGCTL) | DEBUGCTL_BTF)
        if self._fmask is not None:
            vcpu.msr(IA32_FMASK, self._fmask)
        if self.ended(vcpu):
            self._correct(vcpu)
        else:
            self.again(vcpu)
            vcpu.rflags = vcpu.rflags & ~_BOTH | self._flags
            if self._held:
                pending = vcpu.read(GUEST_PENDING_DEBUG_EXCEPTIONS)
                vcpu.write(GUEST_PENDING_DEBUG_EXCEPTIONS, pending | self._held)

    def again(self, vcpu):
        """The instruction exited before its end: no trap is due (Bochs 2.7 sets one pending all the same)."""
        pending = vcpu.read(GUEST_PENDING_DEBUG_EXCEPTIONS)
        if pending & PENDING_BS:
            vcpu.write(GUEST_PENDING_DEBUG_EXCEPTIONS, pending & ~PENDING_BS)

    def ended(self, vcpu):
        """Whether this exit is the trap after the instruction."""
        if self._delivery or vcpu.reason:
            return False
        return vcpu.intr_info & 0xFF == DB and bool(vcpu.qualification & PENDING_BS)

    def deliver_others(self, vcpu):
        """After ended(): deliver the trap's other causes, a breakpoint or the guest's own step; returns a verdict."""
        q = vcpu.qualification | self._held & _BREAKPOINTS
        if not self._flags & RFLAGS_TF or (self._btf and vcpu.rip == self._next):
            q &= ~PENDING_BS
        vcpu.qualification = q
        if q & (PENDING_BS | _BREAKPOINTS):
            return exception.deliver(vcpu)
        return 0

    def _fetch(self, vcpu):
        """(code at RIP, its width); no bytes where they cannot be read."""
        cpu = self.vm.mmio.cpu
        try:
            cpu.take(vcpu)
            return cpu.fetch(vcpu), cpu.bits
        except (Fault, Unbacked):
            return b"", cpu.bits

    def _correct(self, vcpu):
        """Set TF and IF to their values after the instruction without a step, also in the copies that it stored."""
        opcode = self._opcode
        flags = self._flags
        now = vcpu.rflags & _BOTH
        if opcode == _SYSRET:
            flags = now
        elif opcode == _POPF or opcode == _IRET:
            flags = now if self._owns else now & RFLAGS_TF | flags & RFLAGS_IF
        elif opcode == _CLI:
            if self._owns:
                flags &= ~RFLAGS_IF
        elif opcode == _STI:
            self._sti(vcpu, now)
            flags |= now & RFLAGS_IF
        elif opcode == _SYSENTER:
            flags &= ~RFLAGS_IF
        elif opcode == _SYSCALL:
            vcpu.r11 = vcpu.r11 & ~_BOTH | flags
            flags &= ~self._fmask
        elif opcode == PUSHF:
            self._patch(vcpu, flags)
        vcpu.rflags = vcpu.rflags & ~_BOTH | flags

    def _sti(self, vcpu, now):
        """STI blocks interrupts only where IF was clear."""
        if now & self._flags & RFLAGS_IF:
            state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
            vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state & ~BLOCKING_BY_STI)

    def _patch(self, vcpu, flags):
        """Correct the flags that PUSHF stored. In virtual-8086 mode with VME the stored IF is VIF, which is right."""
        mask = _BOTH if self._owns or not vcpu.rflags & RFLAGS_VM else RFLAGS_TF
        gva = vcpu.rsp
        if vcpu.bits != 64:
            if not vcpu.read(GUEST_SS_ACCESS_RIGHTS) & 1 << 14:
                gva &= 0xFFFF
            gva = gva + 1 + vcpu.read(GUEST_SS_BASE) & 0xFFFFFFFF
        else:
            gva += 1
        gpa = self.vm.find_gpa(vcpu, gva)
        if gpa is not None and self.vm.memory.has(gpa):
            stored = self.vm.memory.read_u8(gpa)  # bits 8 to 15: no page ends between them
            self.vm.memory.write_u8(gpa, stored & ~(mask >> 8) | flags >> 8 & mask >> 8)
