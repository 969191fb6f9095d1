"""The replay of a triple fault: the exceptions that led to it, with their error codes and addresses.

At a triple fault the CPU reports only the state before the instruction (SDM Vol. 3C, "Saving Non-Register State",
"Other Causes of VM Exits"). So the instruction runs again with every exception exiting; each is delivered by the
monitor, and the next one exits again, up to the last. Where the instruction does not fault, the interrupt that the last
entry delivered is tried, then one that virtual-interrupt delivery has put in service. Afterwards registers are as
before; the instruction has accessed memory twice. Limits: a delivery through a task gate ends it; an instruction that
accesses ports or devices is not repeated. The other vCPUs stand still meanwhile.
"""

import micropython
from micropython import const

from vmm import verdict
from vmm.fault import MC, PF
from vmm.handlers import exception
from vmm.loaders.state import GPRS
from vmm.policies.stepper import Diverted
from vmm.vtx import reasons
from vmm.vtx.events import (
    ERROR_CODE,
    EXTERNAL_INTERRUPT,
    HARDWARE_EXCEPTION,
    NMI,
    SOFTWARE_EXCEPTION,
    SOFTWARE_INTERRUPT,
    VALID,
)
from vmm.vtx.frame import ENTRY_INFO
from vmm.vtx.vmcs import (
    GUEST_DR7,
    GUEST_IA32_DEBUGCTL,
    GUEST_INTERRUPTIBILITY_STATE,
    GUEST_PENDING_DEBUG_EXCEPTIONS,
)
from vmm.vtx.vmcs_bits import BLOCKING_BY_STI_MOV_SS
from vmm.vtx.x86 import RFLAGS_IF

_MOST = const(8)  # events of a chain
_EXITS = const(64)  # exits of a replay at most
# Exits of instructions that have effects outside the CPU and RAM, or that cannot fault any more.
_EFFECTS = (
    reasons.IO_INSTRUCTION, reasons.HLT, reasons.VMCALL, reasons.PAUSE, reasons.CPUID, reasons.TASK_SWITCH,
    reasons.TRIPLE_FAULT, reasons.APIC_ACCESS, reasons.APIC_WRITE,
)  # fmt: skip
_FIELDS = (
    GUEST_INTERRUPTIBILITY_STATE, GUEST_PENDING_DEBUG_EXCEPTIONS, GUEST_DR7, GUEST_IA32_DEBUGCTL,
)  # fmt: skip


class Step:
    """One event of a chain. during: the vector whose delivery raised it, None: the instruction did; software: that was
    by INT n, INT3 or INTO. address: of #PF."""

    def __init__(self, vector, error, address, during, software):
        self.vector = vector
        self.error = error
        self.address = address
        self.during = during
        self.software = software


class Replay(Diverted):
    """The replay of one vCPU's triple fault. After begin(), done(self) is called: `chain` has the Steps, `interrupt`
    the vector of the interrupt that began it, or None. The vCPU's exit loop ends with the triple fault."""

    def __init__(self, vcpu, done):
        self.vcpu = vcpu
        self.chain = []
        self.interrupt = None
        self._vm = vcpu.vm
        self._done = done
        self._handler = self._exit
        self._way = None
        self._exits = 0
        self._saved = None
        self._tries = []

    def begin(self):
        """Save the vCPU's state, hold the other vCPUs, and let the instruction run again."""
        vcpu = self.vcpu
        self._saved = (
            [getattr(vcpu, name) for name in GPRS], vcpu.rip, vcpu.rflags, vcpu.cr2, vcpu.segment("cs"),
            vcpu.segment("ss"), [vcpu.read(field) for field in _FIELDS], vcpu.debug()[4], vcpu.reason,
        )  # fmt: skip
        self._tries = [None]
        blocked = vcpu.read(GUEST_INTERRUPTIBILITY_STATE) & BLOCKING_BY_STI_MOV_SS
        if vcpu.rflags & RFLAGS_IF and not blocked:
            last = _entry(vcpu, 0)
            if last & VALID and last >> 8 & 7 == EXTERNAL_INTERRUPT:
                self._tries.append(last & 0xFF)
            if vcpu.apicv and vcpu.lapic.service_vector() >= 0:
                self._tries.append(vcpu.lapic.service_vector())
        self.alone(vcpu)
        self._try()

    def _try(self):
        """Run the instruction, or deliver the next candidate among the interrupts."""
        self.interrupt = self._tries.pop(0)
        self.chain = []
        if self.interrupt is not None:
            self._restore()
            self.vcpu.event(VALID | EXTERNAL_INTERRUPT << 8 | self.interrupt)
        self._arm()

    def _arm(self):
        vcpu = self.vcpu
        self._way = vcpu.stepper.way()
        delivery = self._way.arm(vcpu)
        self._vm.arming.all_exceptions(vcpu)
        self.divert(vcpu, self._handler, delivery)

    def _exit(self, vcpu):
        """Handler of all other exits."""
        reason = vcpu.reason
        self._exits += 1
        kind = vcpu.intr_info >> 8 & 7
        if reason == reasons.EXCEPTION_OR_NMI and kind == NMI:
            return exception.exit(vcpu)
        ended = self._way.ended(vcpu)
        self._way.disarm(vcpu)
        if ended or self._exits > _EXITS:
            return self._next()
        if reason == reasons.EXCEPTION_OR_NMI:
            return self._exception(vcpu)
        return self._other(vcpu, reason)

    def _exception(self, vcpu):
        info = vcpu.intr_info
        vector = info & 0xFF
        if vector == MC:
            return self._end() | exception.exit(vcpu)
        first = vcpu.vectoring_info
        during = first & 0xFF if first & VALID else None
        software = during is not None and first >> 8 & 7 in (SOFTWARE_INTERRUPT, SOFTWARE_EXCEPTION)
        error = vcpu.intr_error if info & ERROR_CODE else None
        self.chain.append(Step(vector, error, vcpu.qualification if vector == PF else None, during, software))
        answer = exception.deliver(vcpu)
        return self._continue(answer)

    def _continue(self, answer):
        if answer & verdict.TRIPLE_FAULT or len(self.chain) >= _MOST:
            return self._end()
        self._arm()
        return verdict.RESUME

    def _other(self, vcpu, reason):
        """An instruction that exits: its handler may raise the exception."""
        if reason in _EFFECTS:
            return self._next()
        answer = self._vm.exits.handler(reason, vcpu)(vcpu)
        info = vcpu.injecting()
        if answer & verdict.BEYOND & ~verdict.TRIPLE_FAULT or (answer & verdict.ADVANCE and not info):
            return self._next()
        if info >> 8 & 7 == HARDWARE_EXCEPTION and not self.chain:
            vector = info & 0xFF
            error = _entry(vcpu, 2) if info & ERROR_CODE else None
            self.chain.append(Step(vector, error, vcpu.cr2 if vector == PF else None, None, False))
        return self._continue(answer)

    def _next(self):
        """Try the next candidate, or end without a chain."""
        if self._tries:
            self._try()
            return verdict.RESUME
        self.chain, self.interrupt = [], None
        return self._end()

    def _restore(self):
        vcpu = self.vcpu
        gprs, rip, rflags, cr2, cs, ss, fields, dr6, reason = self._saved
        vcpu.event(0)
        for name, value in zip(GPRS, gprs):
            setattr(vcpu, name, value)
        vcpu.rip, vcpu.rflags, vcpu.cr2, vcpu.reason = rip, rflags, cr2, reason
        vcpu.set_segment("cs", *cs)
        vcpu.set_segment("ss", *ss)
        vcpu.debug()[4] = dr6
        for field, value in zip(_FIELDS, fields):
            vcpu.write(field, value)

    def _end(self):
        """Restore the state of the triple fault, and report; returns its verdict."""
        vcpu, vm = self.vcpu, self._vm
        self._restore()
        vm.arming.own_exceptions(vcpu)
        self.rejoin(vcpu)
        self._done(self)
        return verdict.TRIPLE_FAULT


@micropython.viper
def _entry(vcpu, word: int) -> int:
    """A word of what the last entry injected: 0 the information, 2 the error code."""
    f = ptr32(vcpu)
    return f[ENTRY_INFO + word]
