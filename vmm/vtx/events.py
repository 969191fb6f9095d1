"""Injection of events into a guest: exceptions, NMIs and interrupts, with the SDM's priorities.

Exceptions are written to the entry fields at once (`inject`). NMIs and interrupts wait here
until the guest can take them; `kick` sets the frame's pending word, and the exit loop then
calls slot PENDING before the entry. With virtual-interrupt delivery, the CPU delivers the
local APIC's interrupts (vmm/vtx/apicv.py), and only 8259 interrupts and NMIs are injected
here. Source: SDM Vol. 3C, "Event Injection", "Interrupt-Window Exiting".

One file, since the three kinds share the entry fields and have priorities among each other.
"""

import micropython
from micropython import const
from vmx import bind

from vmm import verdict
from vmm.devices.lapic_registers import (
    ENABLED,
    IO_EXTINT,
    IRR,
    ISR,
    LEVELS_CHANGED,
    LINT0_EXTINT,
    LINT0_LEVEL,
    LVT_LINT0,
    LVT_MODE,
    PPR,
    TPR,
    TPR_KNOWN,
    TPR_LIMIT,
    TPR_SHADOW,
    VIRTUAL_DELIVERY,
)
from vmm.devices.lapic_vectors import reprioritize
from vmm.fault import BP, DB, DE, DF, GP, MC, NP, OF, PF, SS, TS, UD, WITH_ERROR
from vmm.vtx.frame import (
    APIC_PAGE,
    COMPLETED,
    CONTROLS,
    DIRTY,
    DIRTY_CONTROLS,
    DIRTY_ENTRY,
    DIRTY_RVI,
    ENTRY_INFO,
    INTERRUPTIBILITY,
    NMIS,
    PENDING,
    PENDING_DEBUG,
    RFLAGS,
    RVI,
)
from vmm.vtx.vmcs import GUEST_INTERRUPTIBILITY_STATE, GUEST_PENDING_DEBUG_EXCEPTIONS
from vmm.vtx.vmcs_bits import (
    BLOCKING_BY_MOV_SS,
    BLOCKING_BY_NMI,
    BLOCKING_BY_STI,
    CONTROL_INTERRUPT_WINDOW,
    CONTROL_NMI_WINDOW,
)
from vmm.vtx.x86 import RFLAGS_IF, RFLAGS_RF, RFLAGS_TF

VALID = const(1 << 31)
ERROR_CODE = const(1 << 11)
NMI_BLOCKED = const(1 << 12)  # "NMI unblocking due to IRET" in exit information
TYPE_VECTOR = const(0x7FF)  # interruption type and vector of an event's information

# Interruption types
EXTERNAL_INTERRUPT = const(0)
NMI = const(2)
HARDWARE_EXCEPTION = const(3)
SOFTWARE_INTERRUPT = const(4)
PRIVILEGED_SOFTWARE_EXCEPTION = const(5)
SOFTWARE_EXCEPTION = const(6)

_NO_FAULT = const(1 << DB | 1 << BP | 1 << OF | 1 << DF | 1 << MC)  # traps and aborts
_CONTRIBUTORY = const(1 << DE | 1 << TS | 1 << NP | 1 << SS | 1 << GP)

_DEBUG_TRAP = const(1 << 12 | 1 << 14)  # enabled breakpoint, BS


def inject(vcpu, vector, error=0, first=0):
    """Inject exception `vector` at the next entry, instead of the exiting instruction: reflect(), then policies on
    INJECTION are called. Returns a verdict."""
    answer = reflect(vcpu, vector, error, first)
    asked = vcpu.injections
    return asked(vcpu) if asked and answer == verdict.RESUME else answer


def reflect(vcpu, vector, error=0, first=0):
    """Inject exception `vector`, which the guest itself has caused, at the next entry.

    first: information on the event whose delivery caused it; 0: the event that is to be injected at the next entry. As
    on the CPU, an exception during the delivery of another becomes a double fault, or shuts the guest down (SDM Vol.
    3A, "Interrupt 8 - Double Fault Exception"); any other event is lost. Returns a verdict.
    """
    first = first or vcpu.injecting()
    if first & VALID and first >> 8 & 7 == HARDWARE_EXCEPTION:
        old = first & 0xFF
        if old == DF:
            return verdict.TRIPLE_FAULT
        benign = not (
            (old == PF and (vector == PF or _CONTRIBUTORY >> vector & 1))
            or (_CONTRIBUTORY >> old & 1 and _CONTRIBUTORY >> vector & 1)
        )
        if not benign:
            vector, error = DF, 0
    info = VALID | HARDWARE_EXCEPTION << 8 | vector
    if WITH_ERROR >> vector & 1 and vcpu.cr0 & 1:
        info |= ERROR_CODE
    else:
        error = 0
    if not _NO_FAULT >> vector & 1:
        vcpu.rflags |= RFLAGS_RF  # so that a breakpoint on the instruction is not raised twice
    vcpu.event(info, error)
    return verdict.RESUME


def deliver(vcpu, fault):
    """Inject a vmm.fault.Fault at the next entry. Returns a verdict."""
    if fault.vector == PF:
        vcpu.cr2 = fault.gva
    return inject(vcpu, fault.vector, fault.error)


def general_protection(vcpu):
    """Inject #GP(0). Returns a verdict."""
    return inject(vcpu, GP, 0)


def undefined(vcpu):
    """Inject #UD. Returns a verdict."""
    return inject(vcpu, UD)


def again(vcpu):
    """Let a REP instruction go on at the next entry: as between two iterations on the CPU, a single step is due and
    blocking by STI ends."""
    length, vcpu.length = vcpu.length, 0
    vcpu.advance()
    vcpu.length = length
    vcpu.rflags |= RFLAGS_RF  # no second breakpoint on the same instruction


def requeue(vcpu):
    """If this exit has occurred during the delivery of an event, inject the event again.

    For reasons that read the vectoring words (WANT_VECTORING). Source: SDM Vol. 3C, "Information
    for VM Exits That Occur During Event Delivery".
    """
    info = vcpu.vectoring_info
    if info & VALID:
        kind = info >> 8 & 7
        length = vcpu.length if kind in (4, 5, 6) else 0
        if kind == NMI:
            state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
            vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state & ~BLOCKING_BY_NMI)
        vcpu.event(info & ~NMI_BLOCKED, vcpu.vectoring_error, length)


@micropython.viper
def window(vcpu) -> int:
    """Handler of interrupt-window and NMI-window exits: slot PENDING is called before the next entry."""
    f = ptr32(vcpu)
    f[PENDING] = 1
    return 0


@micropython.viper
def raise_nmi(vcpu):
    """Raise an NMI. At most one waits while another is delivered or handled (SDM Vol. 3A, "Handling Multiple NMIs")."""
    f = ptr32(vcpu)
    most = 2
    if int(vcpu.read(GUEST_INTERRUPTIBILITY_STATE)) & BLOCKING_BY_NMI:
        most = 1
    elif f[DIRTY] & DIRTY_ENTRY and f[ENTRY_INFO] & VALID and (f[ENTRY_INFO] >> 8) & 7 == NMI:
        most = 1
    waiting = int(f[NMIS]) + 1
    f[NMIS] = waiting if waiting < most else most
    f[PENDING] = 1


def _nothing():
    pass


class Events:
    """The pending events of one vCPU, and its interrupt and NMI windows."""

    def __init__(self, vcpu, controls):
        """controls: primary processor-based controls of this vCPU."""
        self._vcpu = vcpu
        self.primary = controls
        self.extint = lambda: False  # whether an 8259 interrupt is pending and LINT0 unmasked
        self.acknowledge = lambda: 0  # its vector
        self.highest = lambda: -1  # vector of the local APIC, -1: none
        self.accept = lambda vector: None
        self.sync = self._no_sync = _nothing  # with virtual-interrupt delivery: sets RVI
        self.limit = _nothing  # with TPR shadow: sets the TPR threshold (vmm/vtx/tpr_shadow.py)

    def reset(self):
        self.nmis = 0
        _forget_completed(self._vcpu)
        self.primary = self.primary & ~(CONTROL_INTERRUPT_WINDOW | CONTROL_NMI_WINDOW)

    def delivers(self, sync):
        """sync() sets RVI for a CPU that delivers interrupts; None: interrupts are injected."""
        self.sync = sync or self._no_sync

    @micropython.viper
    def kick(self):
        """An event may have become deliverable: call slot PENDING before the next entry."""
        ptr32(self._vcpu)[PENDING] = 1

    @property
    def nmis(self):
        """The number of pending NMIs: at most two, the next one and the one that it blocks."""
        return _waiting(self._vcpu)

    @nmis.setter
    def nmis(self, value):
        _set_waiting(self._vcpu, value)

    def nmi(self):
        """raise_nmi() of this vCPU."""
        raise_nmi(self._vcpu)

    def set_primary(self, set_=0, clear=0):
        """Set and clear bits of the primary controls."""
        self.primary = (self.primary | set_) & ~clear

    @property
    def primary(self):
        """Primary processor-based controls. They are in the frame; the next entry writes them to the VMCS."""
        return _controls(self._vcpu)

    @primary.setter
    def primary(self, value):
        _set_controls(self._vcpu, value)

    @micropython.viper
    def _interrupt(self) -> int:
        """Whether an interrupt is pending that has to be injected."""
        if int(self.extint()):
            return 1
        if self.sync is self._no_sync:
            if int(self.highest()) >= 0:
                return 1
        return 0

    def injector(self, page, acknowledge):
        """Return the handler of slot PENDING, which injects the event that the guest can take now.

        page: address of the local APIC's page. acknowledge() -> vector of the 8259s' interrupt.
        """
        return bind(_pending, page, acknowledge, self)

    @micropython.viper
    def pending(self, vcpu) -> int:
        """The slow path of slot PENDING, for all cases."""
        f = ptr32(vcpu)
        f[PENDING] = 0
        self.sync()
        interrupt = int(self._interrupt())
        nmis = int(self.nmis)
        if interrupt | nmis:
            # A debug trap that is due has priority, and an injected event would displace it.
            free = int(vcpu.read(GUEST_PENDING_DEBUG_EXCEPTIONS)) & _DEBUG_TRAP == 0
            if f[DIRTY] & DIRTY_ENTRY:
                if f[ENTRY_INFO] & VALID:
                    free = False
            blocking = int(vcpu.read(GUEST_INTERRUPTIBILITY_STATE))
            info = 0
            if free:
                if nmis:
                    if blocking & (BLOCKING_BY_NMI | BLOCKING_BY_MOV_SS | BLOCKING_BY_STI) == 0:
                        nmis -= 1
                        self.nmis = nmis
                        info = VALID | NMI << 8 | 2
                if interrupt:
                    if info == 0:
                        if f[RFLAGS] & RFLAGS_IF:
                            if blocking & (BLOCKING_BY_MOV_SS | BLOCKING_BY_STI) == 0:
                                info = VALID | EXTERNAL_INTERRUPT << 8 | int(self._take())
                                interrupt = int(self._interrupt())
            if info:
                f[ENTRY_INFO] = info
                f[ENTRY_INFO + 1] = 0
                f[DIRTY] = f[DIRTY] | DIRTY_ENTRY
        windows = 0
        if interrupt:
            windows = CONTROL_INTERRUPT_WINDOW
        if nmis:
            windows |= CONTROL_NMI_WINDOW
        if int(self.primary) & (CONTROL_INTERRUPT_WINDOW | CONTROL_NMI_WINDOW) != windows:
            self.set_primary(windows, (CONTROL_INTERRUPT_WINDOW | CONTROL_NMI_WINDOW) ^ windows)
        self.limit()
        return 0

    @micropython.viper
    def _take(self) -> int:
        """Acknowledge the interrupt to inject. Returns its vector."""
        if int(self.extint()):
            return int(self.acknowledge()) & 0xFF
        vector = int(self.highest())
        self.accept(vector)
        return vector


@micropython.viper
def _controls(vcpu) -> int:
    f = ptr32(vcpu)
    return f[CONTROLS]


@micropython.viper
def _set_controls(vcpu, value: int):
    f = ptr32(vcpu)
    f[CONTROLS] = value
    f[CONTROLS + 1] = 0
    f[DIRTY] |= DIRTY_CONTROLS


@micropython.viper
def _forget_completed(vcpu):
    f = ptr32(vcpu)
    f[COMPLETED] = 0
    f[PENDING] = 0


@micropython.viper
def _waiting(vcpu) -> int:
    f = ptr32(vcpu)
    return f[NMIS]


@micropython.viper
def _set_waiting(vcpu, value: int):
    f = ptr32(vcpu)
    f[NMIS] = value


@micropython.viper
def wakes(frame: int) -> int:
    """Whether an event wakes up a vCPU in HLT. frame: hpa of its frame."""
    f = ptr32(frame)
    r = ptr32(f[APIC_PAGE])
    flags = f[RFLAGS]
    if flags & RFLAGS_TF:
        return 1  # HLT is single-stepped, too
    if f[DIRTY] & DIRTY_ENTRY:
        if f[ENTRY_INFO] & VALID:
            return 1
    if f[NMIS]:
        if f[INTERRUPTIBILITY] & BLOCKING_BY_NMI == 0:
            return 1
    if flags & RFLAGS_IF == 0:
        return 0
    priority = int(r[PPR // 4] >> 4) & 15
    if f[DIRTY] & DIRTY_RVI:
        if int(f[RVI] >> 4) > priority:
            return 1
    if r[IO_EXTINT // 4]:
        return 1
    if r[LINT0_LEVEL // 4]:
        if r[LVT_LINT0 // 4] & LVT_MODE == LINT0_EXTINT or r[ENABLED // 4] == 0:
            return 1
    at = IRR // 4 + 28
    while r[at] == 0:
        if at == IRR // 4:
            return 0
        at -= 4
    group = int(r[at]) >> 16  # the class of the vector
    high = (at - IRR // 4) >> 1
    if group:
        high += 1
    if high > priority:
        return 1
    return 0


# The fast path of slot PENDING, for every interrupt that the CPU does not deliver itself: its only call is to the
# 8259s. With highest_bit() called, and not repeated, `late_spin` without APIC virtualization took 1,386 instead of
# 1,251. NMIs take Events.pending.
@micropython.viper
def _pending(page: int, acknowledge, events, vcpu) -> int:
    f = ptr32(vcpu)
    r = ptr32(page)
    virtual = int(r[VIRTUAL_DELIVERY // 4])
    if f[NMIS] or (virtual and r[LEVELS_CHANGED // 4]):
        return int(events.pending(vcpu))
    f[PENDING] = 0
    vector = 0
    if r[ENABLED // 4]:
        at = IRR // 4 + 28
        while r[at] == 0 and at > IRR // 4:
            at -= 4
        word = int(r[at])
        if word:
            vector = (at - IRR // 4) << 3
            if word >> 16:
                word >>= 16
                vector += 16
            if word >> 8:
                word >>= 8
                vector += 8
            if word >> 4:
                word >>= 4
                vector += 4
            if word >> 2:
                word >>= 2
                vector += 2
            vector += word >> 1
    if virtual:
        if vector:
            f[RVI] = vector
            f[DIRTY] |= DIRTY_RVI
            vector = 0
    else:
        if r[TPR // 4] != r[TPR_KNOWN // 4]:
            reprioritize(r)
        limit = 0
        if vector >> 4 <= int(r[PPR // 4] >> 4) & 15:
            if vector >> 4 <= int(r[TPR // 4] >> 4) & 15:
                limit = vector >> 4
            vector = 0  # a vector in service, or TPR, holds it up
        if r[TPR_SHADOW // 4]:
            if limit != int(r[TPR_LIMIT // 4]):
                events.limit()
    waits = int(r[IO_EXTINT // 4])
    if r[LINT0_LEVEL // 4]:
        if r[LVT_LINT0 // 4] & LVT_MODE == LINT0_EXTINT or r[ENABLED // 4] == 0:
            waits = 1
    if waits or vector:
        free = f[RFLAGS] & RFLAGS_IF
        if f[INTERRUPTIBILITY] & (BLOCKING_BY_MOV_SS | BLOCKING_BY_STI) or f[PENDING_DEBUG] & _DEBUG_TRAP:
            free = 0
        if f[DIRTY] & DIRTY_ENTRY:
            if f[ENTRY_INFO] & VALID:
                free = 0
        if free:
            if waits:
                f[ENTRY_INFO] = VALID | (int(acknowledge()) & 0xFF)
                waits = int(r[LINT0_LEVEL // 4] | r[IO_EXTINT // 4])  # one more may be pending: open the window
            else:
                f[ENTRY_INFO] = VALID | vector
                bit = 1 << (vector & 31)
                at = IRR // 4 + ((vector >> 5) << 2)
                r[at] = r[at] ^ bit
                at += (ISR - IRR) // 4
                r[at] = r[at] | bit
                r[PPR // 4] = vector & 0xF0  # no pending vector is above this class
                vector = 0
            f[ENTRY_INFO + 1] = 0
            f[DIRTY] |= DIRTY_ENTRY
    window = 0
    if waits or vector:
        window = CONTROL_INTERRUPT_WINDOW
    if f[CONTROLS] & CONTROL_INTERRUPT_WINDOW != window:
        f[CONTROLS] ^= CONTROL_INTERRUPT_WINDOW
        f[DIRTY] |= DIRTY_CONTROLS
    return 0
