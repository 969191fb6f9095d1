"""Local APIC of one processor (SDM Vol. 3A, "Advanced Programmable Interrupt Controller (APIC)").

The registers are in a buffer, at the offsets of the memory-mapped page (lapic_registers.py). Without APIC
virtualization every access comes by `read` and `write` (offsets) or `read_msr` and `write_msr` (x2APIC).
With it the first 4096 bytes are the virtual-APIC page: the CPU reads and writes it, and trap-like
APIC-write exits are reported to `written(offset)`. Where virtual-interrupt delivery is on, the CPU moves
bits between VIRR and VISR itself, and `accept` and `eoi` are not called; then `pending_vector` is RVI,
`service_vector` SVI, `level_vectors` the EOI-exit bitmap, and `eoi_exit` handles the exit.

Version 14h with six LVT entries (no CMCI), no EOI-broadcast suppression. The page's hot paths are in lapic_page.py and
lapic_vectors.py, the timer in lapic_timer.py. The rest is one file, since what a register does is a few lines that
mostly use other registers.
"""

from micropython import const

from vmm.devices import saved
from vmm.devices.lapic_page import LapicPage
from vmm.devices.lapic_registers import (
    APIC_ID,
    APR,
    DEADLINE,
    DFR,
    ENABLED,
    END,
    EOI,
    ESR,
    EXTINT,
    FIXED,
    FRAME_AT,
    ICR,
    ICR_HIGH,
    ICR_WRITABLE,
    ID,
    INIT,
    IO_EXTINT,
    ISR,
    LDR,
    LEVELS_CHANGED,
    LINT0_LEVEL,
    LOGICAL,
    LOWEST,
    LVT_ERROR,
    LVT_LINT0,
    LVT_LINT1,
    LVT_MASKED,
    LVT_PERF,
    LVT_THERMAL,
    LVT_TIMER,
    NMI,
    PPR,
    REMOTE_IRR,
    RRD,
    SELF_IPI,
    STARTUP,
    SVR,
    SVR_ENABLED,
    TIMER_CURRENT,
    TIMER_DIVIDE,
    TIMER_INITIAL,
    TPR,
    TPR_KNOWN,
    TRIGGER_LEVEL,
    VERSION,
    VIRTUAL_DELIVERY,
    X2APIC,
)
from vmm.devices.lapic_timer import LapicTimer

_VERSION = const(0x00050014)

_ERROR_SEND_VECTOR = const(0x20)
_ERROR_REGISTER = const(0x80)

# Bits that software may set, by offset.
_WRITABLE = {
    TPR: 0xFF,
    LDR: 0xFF000000,
    DFR: 0xF0000000,
    SVR: 0x1FF,
    ICR: ICR_WRITABLE,
    ICR_HIGH: 0xFF000000,
    LVT_TIMER: 0x700FF,
    LVT_THERMAL: 0x107FF,
    LVT_PERF: 0x107FF,
    LVT_LINT0: 0x1A7FF,
    LVT_LINT1: 0x1A7FF,
    LVT_ERROR: 0x100FF,
    TIMER_INITIAL: 0xFFFFFFFF,
    TIMER_DIVIDE: 0xB,
}
# The words behind the registers that save() includes.
_WORDS = (
    ("id", APIC_ID), ("enabled", ENABLED), ("x2apic", X2APIC), ("deadline_low", DEADLINE),
    ("deadline_high", DEADLINE + 4), ("io_extint", IO_EXTINT), ("lint0", LINT0_LEVEL), ("lint1", LINT0_LEVEL + 4),
)  # fmt: skip
_LVTS = (LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR)


def _ignore(_=None, __=None):
    """An output that leads nowhere."""


class Lapic(LapicPage):
    """`regs`: any writable buffer of lapic_registers.SIZE bytes. `apic_id`: 32 bits, 8 of them in xAPIC mode.

    Outputs: `kick()`: an interrupt may have become deliverable: `highest()` and `extint()` tell which.
    `nmi()`. `eoi_broadcast(vector)` at the end of a level-triggered interrupt, for the I/O APIC.
    `send(low, destination)`: an IPI for other processors, or an INIT or STARTUP for any; `low` as in ICR.
    `arbitrates`: whether an IPI of lowest priority is sent, too, rather than taken.
    """

    arbitrates = False
    loaded = staticmethod(_ignore)  # loaded(): load() has set another state

    def __init__(self, regs, clock, apic_id=0, kick=_ignore, nmi=_ignore, eoi_broadcast=_ignore, send=_ignore):
        super().__init__(regs)
        self.apic_id = apic_id
        self.kick = kick
        self.nmi = nmi
        self.eoi_broadcast = eoi_broadcast
        self.send = send
        self.timer = LapicTimer(regs, clock, self.deliver)
        self.set_deadline = self.timer.set_deadline
        self.deadline_low = self.timer.deadline_low
        self.deadline_high = self.timer.deadline_high
        self.set(APIC_ID, apic_id)
        self.reset()

    def reset(self):
        """State after power-up: xAPIC mode, software-disabled."""
        self._clear(False)
        self.enabled = True

    def initialize(self):
        """INIT: as after power-up, but IA32_APIC_BASE stays."""
        enabled = self.enabled
        self._clear(self.x2apic)
        self.enabled = enabled

    def _clear(self, x2apic):
        self.timer.reset()
        self._set_x2apic(x2apic)
        self.errors = 0  # collected until ESR is written
        self.clear()
        for offset in _LVTS:
            self.set(offset, LVT_MASKED)
        self._identify()
        self.set(VERSION, _VERSION)
        self.set(DFR, 0xFFFFFFFF)
        self.set(SVR, 0xFF)

    def save(self):
        """Registers, and the words behind them except those that wire() sets."""
        words = {name: self.get(offset) for name, offset in _WORDS}
        page = bytes(memoryview(self.regs)[:END])
        return {"page": page, "words": words, "errors": self.errors, "timer": self.timer.save()}

    def load(self, state):
        """ValueError for the state of another processor."""
        saved.need(self, ("page", "words", "errors", "timer"), state)
        words = state["words"]
        saved.need(self, [name for name, _ in _WORDS], words)
        if words["id"] != self.apic_id:
            raise ValueError("Lapic: the state of processor %r is not for %d" % (words["id"], self.apic_id))
        saved.fill(self, "page", memoryview(self.regs)[:END], state["page"])
        for name, offset in _WORDS:
            self.set(offset, words[name])
        self._set_x2apic(bool(words["x2apic"]))
        self.errors = state["errors"]
        self.timer.load(state["timer"])
        self.set(LEVELS_CHANGED, 1)
        self.set(TPR_KNOWN, 0x100)  # an impossible TPR, so that PPR is recomputed
        self.loaded()
        self.kick()

    def _identify(self):
        """Set ID, and LDR in x2APIC mode."""
        if self.x2apic:
            self.set(ID, self.apic_id)
            self.set(LDR, (self.apic_id >> 4) << 16 & 0xFFFF0000 | 1 << (self.apic_id & 15))
        else:
            self.set(ID, self.apic_id << 24 & 0xFFFFFFFF)

    def __repr__(self):
        from vmm.debug import chips

        return chips.lapic(self)

    @property
    def enabled(self):
        """IA32_APIC_BASE bit 11."""
        return bool(self.get(ENABLED))

    @enabled.setter
    def enabled(self, value):
        self.set(ENABLED, 1 if value else 0)

    def _set_x2apic(self, on):
        """IA32_APIC_BASE bit 10."""
        self.x2apic = on
        self.set(X2APIC, 1 if on else 0)

    def wire(self, frame, virtual_delivery):
        """Set for the fast paths the address of the vCPU frame, and whether the CPU delivers virtual interrupts."""
        self.set(FRAME_AT, frame)
        self.set(VIRTUAL_DELIVERY, 1 if virtual_delivery else 0)

    def set_base(self, enabled, x2apic):
        """IA32_APIC_BASE changed. Disabling resets; entering x2APIC mode derives ID and LDR."""
        if not enabled:
            self.reset()
            self.enabled = False
            return
        self.enabled = True
        if x2apic and not self.x2apic:
            self._set_x2apic(True)
            self._identify()
            self.set(ICR + 4, 0)

    # Interrupts in and out

    def received(self, low, destination):
        """The slow path of receive(), for any message."""
        if not self.matches(destination, low & LOGICAL):
            return 1
        return self.take(low)

    def take(self, low):
        """A message has arrived here; returns what `deliver` does."""
        return self._take(low, 1 if low & TRIGGER_LEVEL else 0)

    def matches(self, destination, logical):
        """Whether `destination` (8 bits, 32 in x2APIC mode) includes this processor."""
        if not self.enabled:
            return False
        broadcast = 0xFFFFFFFF if self.x2apic else 0xFF
        if destination == broadcast:
            return True
        if not logical:
            return destination == (self.apic_id if self.x2apic else self.apic_id & 0xFF)
        ldr = self.get(LDR)
        if self.x2apic:
            return destination >> 16 == ldr >> 16 and destination & ldr & 0xFFFF != 0
        ldr >>= 24
        if self.get(DFR) >> 28 == 0xF:
            return destination & ldr != 0
        return destination >> 4 in (ldr >> 4, 0xF) and destination & ldr & 0xF != 0

    def pin_rises(self, pin, rises):
        """LINT pin `pin` is asserted and is not an unmasked ExtINT; rises: it was not asserted before."""
        lvt = self.get(LVT_LINT1 if pin else LVT_LINT0)
        if not self.enabled:  # LINT0 and LINT1 are the processor's INTR and NMI then
            lvt = NMI << 8 if pin else EXTINT << 8
        mode = lvt >> 8 & 7
        if not lvt & LVT_MASKED and (rises or mode == EXTINT):
            if mode == EXTINT:
                self.kick()
            else:
                self._take(lvt, 1 if mode == FIXED and lvt & TRIGGER_LEVEL else 0)

    def extint_taken(self):
        """The interrupt of `extint` has been acknowledged."""
        self.set(IO_EXTINT, 0)

    def error(self, bits):
        """Collect ESR bits, and raise the error interrupt."""
        self.errors |= bits
        self._local(LVT_ERROR)

    # Registers

    def write_register(self, offset, size, value):
        """The slow path of write()."""
        if offset & 15 or size != 4:
            return
        if offset == EOI:
            self.eoi()
        elif offset == ESR:
            self._effect(ESR)
        elif offset in _WRITABLE:
            self.set(offset, value & 0xFFFFFFFF)
            self._effect(offset)
        elif not (offset in (ID, VERSION, APR, PPR, RRD, TIMER_CURRENT) or ISR <= offset < ESR):
            self.error(_ERROR_REGISTER)  # writes of read-only registers are ignored

    def written(self, offset):
        """APIC-write exit: the guest has written the page at `offset`; carry out the effects."""
        offset &= 0xFF0
        if offset == ID:
            self.set(ID, self.apic_id if self.x2apic else self.apic_id << 24 & 0xFFFFFFFF)
        elif offset == EOI:
            self.eoi()
        elif offset == SELF_IPI:
            self._take(self.get(SELF_IPI) & 0xFF, 0)
        else:
            self._effect(offset)

    def read_msr(self, index):
        """Low half of MSR `index` (800h..8FFh, x2APIC mode), or -1 for #GP."""
        offset = (index & 0xFF) << 4
        if (
            offset in (ID, VERSION, TPR, PPR, LDR, SVR, ESR, ICR, TIMER_INITIAL, TIMER_CURRENT, TIMER_DIVIDE)
            or ISR <= offset < ESR
            or offset in _LVTS
        ):
            return self.read(offset, 4)
        return -1

    def read_msr_high(self, index):
        """High half of what `read_msr` reads: the destination of ICR, else 0."""
        return self.get(ICR + 4) if index & 0xFF == ICR >> 4 else 0

    def write_msr(self, index, low, high):
        """Writes MSR `index` (800h..8FFh, x2APIC mode). Returns False for #GP."""
        offset = (index & 0xFF) << 4
        if offset == ICR:
            if low & ~ICR_WRITABLE:
                return False
            self.set(ICR + 4, high)
            self.set(ICR, low)
            self._effect(ICR)
            return True
        if high:
            return False
        if offset == EOI:
            if low:
                return False
            self.eoi()
        elif offset == SELF_IPI:
            if low >> 8:
                return False
            self._take(low, 0)
        elif offset == ESR:
            if low:
                return False
            self._effect(ESR)
        elif offset in _WRITABLE and offset not in (LDR, DFR, ICR_HIGH):
            if low & ~(_WRITABLE[offset] | (0x1000 | REMOTE_IRR if offset in _LVTS else 0)):
                return False
            self.set(offset, low)
            self._effect(offset)
        else:
            return False
        return True

    def _effect(self, offset):
        """Clear reserved bits of the register at `offset`, which the guest has written, and carry out its effects."""
        if offset == ESR:
            self.set(ESR, self.errors)
            self.errors = 0
            return
        if offset not in _WRITABLE:
            return
        value = self.get(offset) & _WRITABLE[offset]
        if offset in _LVTS:
            if not self.get(SVR) & SVR_ENABLED:
                value |= LVT_MASKED
        elif offset == DFR:
            value |= 0x0FFFFFFF
        self.set(offset, value)
        if offset == TPR:
            self.set_tpr(value)
        elif offset == SVR:
            if not value & SVR_ENABLED:
                for lvt in _LVTS:
                    self.set(lvt, self.get(lvt) | LVT_MASKED)
        elif offset == ICR:
            self._ipi(value)
        elif offset == LVT_TIMER:
            self.timer.set_mode(value >> 17 & 3)
        elif offset == TIMER_INITIAL:
            self.timer.start(value)
        elif offset == TIMER_DIVIDE:
            self.timer.divide(value)
        elif offset == LVT_LINT0:
            if self.get(LINT0_LEVEL):
                self.lint(0, 1)

    def _take(self, low, trigger):
        """Carry out a message for this processor. Returns what `deliver` does."""
        mode = low >> 8 & 7
        if mode == FIXED or mode == LOWEST:
            return self.deliver(low & 0xFF, trigger)
        if mode == NMI:
            self.nmi()
        elif mode == EXTINT:
            self.set(IO_EXTINT, 1)
            self.kick()
        elif mode == INIT or mode == STARTUP:
            self.send(low, self.apic_id)
        return 1

    def _local(self, offset):
        """An event whose LVT entry is at `offset`. Returns what `deliver` does."""
        lvt = self.get(offset)
        if lvt & LVT_MASKED:
            return 1
        if offset == LVT_ERROR and lvt & 0xFF < 16:  # its own vector is illegal: no recursion
            return 1
        return self._take(lvt, 0)

    def _ipi(self, low):
        """ICR was written: send the IPI to the targets by shorthand, destination mode and destination."""
        mode = low >> 8 & 7
        if (mode == FIXED or mode == LOWEST) and low & 0xFF < 16:
            self.error(_ERROR_SEND_VECTOR)
            return
        shorthand = low >> 18 & 3
        destination = self.get(ICR + 4) if self.x2apic else self.get(ICR_HIGH) >> 24
        if shorthand == 1:
            self._take(low, 0)
            return
        if shorthand == 2 or shorthand == 0 and self.matches(destination, low & LOGICAL):
            if mode != INIT and mode != STARTUP and not (mode == LOWEST and self.arbitrates):
                self._take(low, 0)
        self.send(low, destination)
