"""The local APIC's page: its registers, and their hot paths (SDM Vol. 3A, "Advanced Programmable Interrupt
Controller (APIC)"). lapic.py has the rest.

No part of IRR, ISR, TMR, TPR or PPR is kept outside the page, which may be a virtual-APIC page.
"""

import micropython
import uctypes

from vmm.devices.lapic_registers import (
    DEADLINE,
    ENABLED,
    END,
    EOI,
    ESR_RECEIVE_VECTOR,
    EXTINT,
    FRAME_AT,
    ICR,
    ICR_HIGH,
    ICR_UNUSUAL,
    ICR_WRITABLE,
    ID,
    IO_EXTINT,
    IRR,
    ISR,
    LEVELS_CHANGED,
    LINT0_LEVEL,
    LVT_LINT0,
    LVT_MASKED,
    PPR,
    SELF,
    SELF_IPI,
    SVR,
    SVR_ENABLED,
    TIMER_CURRENT,
    TMR,
    TPR,
    TPR_KNOWN,
    TPR_LIMIT,
    VIRTUAL_DELIVERY,
)
from vmm.devices.lapic_vectors import end, highest_bit, post, receive, reprioritize
from vmm.vtx.frame import PENDING


def _no_ipi(frame, low, destination):
    """LapicPage.ipi() where there is one processor."""
    return 0


class LapicPage:
    """`regs`: the page and the one behind. The subclass has `kick`, `eoi_broadcast`, `timer`, `error`, `pin_rises`,
    `received`, `write_register`, `apic_id` and `x2apic`."""

    ipi = staticmethod(_no_ipi)  # ipi(frame, low, destination): ApicBus.quick where there are several processors

    def __init__(self, regs):
        self.regs = regs

    @micropython.viper
    def get(self, offset: int) -> int:
        return ptr32(self.regs)[offset >> 2]

    @micropython.viper
    def set(self, offset: int, value: int):
        r = ptr32(self.regs)
        r[offset >> 2] = value

    def clear(self):
        """Zero the registers. The level of the LINT0 line stays, and so do the words of wire()."""
        self._clear_registers()
        for offset in (DEADLINE, DEADLINE + 4, ENABLED, IO_EXTINT, LINT0_LEVEL + 4, TPR_KNOWN):
            self.set(offset, 0)
        self.set(LEVELS_CHANGED, 1)
        if self.get(TPR_LIMIT):  # an entry fails while the threshold is above TPR
            self.kick()

    @micropython.viper
    def _clear_registers(self):
        r = ptr32(self.regs)
        i = 0
        while i < END >> 2:
            r[i] = 0
            i += 1

    # 650, except the current count.
    @micropython.viper
    def read(self, offset: int, size: int) -> int:
        """32-bit registers at multiples of 16, or 1 or 2 bytes of them. The 12 bytes behind each are 0."""
        offset &= 0xFFF
        at = offset & 0xFF0
        value = 0
        if at == TIMER_CURRENT:
            value = int(self.timer.current())
        elif at != EOI and at != SELF_IPI:
            if at == PPR:
                self.settle()
            value = ptr32(self.regs)[at >> 2]
        if size == 4 and offset == at:
            return value
        if offset & 12:
            return 0
        value >>= (offset & 15) << 3
        if size >= 4:
            return value
        return value & ((1 << (size << 3)) - 1)

    # The writes of interrupt handlers without APIC virtualization, and fixed IPIs to the processor itself.
    @micropython.viper
    def write(self, offset: int, size: int, value: int):
        """32-bit registers at multiples of 16; other offsets and sizes are ignored."""
        offset &= 0xFFF
        if size == 4:
            r = ptr32(self.regs)
            if offset == EOI:
                if int(end(r)) == 0:
                    self.eoi()
                return
            if offset == TPR:
                self.set_tpr(value & 0xFF)
                return
            if offset == ICR:
                low = value & ICR_WRITABLE
                if low & ICR_UNUSUAL == 0:
                    if low >> 18 == SELF or (low >> 18 == 0 and r[ICR_HIGH >> 2] >> 24 == r[ID >> 2] >> 24):
                        if int(post(r, low & 0xFF)):
                            r[ICR >> 2] = low
                            return
                if int(self.ipi(r[FRAME_AT >> 2], low, int(r[ICR_HIGH >> 2]) >> 24 & 0xFF)):
                    r[ICR >> 2] = low
                    return
        self.write_register(offset, size, value)

    def receive(self, low, destination):
        """A message from the I/O APIC or an IPI: `low` has vector, delivery mode, destination mode and
        trigger as ICR and redirection entries do. Returns what `deliver` does; 1 if it has another destination."""
        return receive(uctypes.addressof(self.regs), self, low, destination)

    # 590 when the vector is in IRR already; the sequence deliver, highest, accept, eoi: 3,310 with `kick`.
    @micropython.viper
    def deliver(self, vector: int, trigger: int) -> int:
        """A fixed interrupt arrives, level-triggered if `trigger`. Returns 0 if the vector is in IRR already
        (the two count as one), else 1."""
        r = ptr32(self.regs)
        if r[SVR >> 2] & SVR_ENABLED == 0:
            return 1
        vector &= 0xFF
        if vector < 16:
            self.error(ESR_RECEIVE_VECTOR)
            return 1
        at = (vector >> 5) << 2
        bit = 1 << (vector & 31)
        tmr = r[(TMR >> 2) + at]
        if trigger:
            if tmr & bit == 0:
                r[(TMR >> 2) + at] = tmr | bit
                r[LEVELS_CHANGED >> 2] = 1
        elif tmr & bit:
            r[(TMR >> 2) + at] = tmr ^ bit
            r[LEVELS_CHANGED >> 2] = 1
        irr = r[(IRR >> 2) + at]
        if irr & bit:
            return 0
        r[(IRR >> 2) + at] = irr | bit
        if r[FRAME_AT >> 2]:  # what kick() does, without the call
            ptr32(r[FRAME_AT >> 2])[PENDING] = 1
        else:
            self.kick()
        return 1

    @micropython.viper
    def highest(self) -> int:
        """The vector to inject next: the highest in IRR if its class is above PPR's, else -1."""
        r = ptr32(self.regs)
        if r[TPR >> 2] != r[TPR_KNOWN >> 2]:
            self.settle()
        vector = int(highest_bit(self.regs, IRR))
        if vector >> 4 > int(r[PPR >> 2]) >> 4 & 15:
            return vector
        return -1

    # 540
    @micropython.viper
    def accept(self, vector: int):
        """The processor takes `vector`, the result of `highest`: it moves from IRR to ISR, and PPR is its class."""
        r = ptr32(self.regs)
        vector &= 0xFF
        at = (vector >> 5) << 2
        bit = 1 << (vector & 31)
        r[(IRR >> 2) + at] = r[(IRR >> 2) + at] & (bit ^ 0xFFFFFFFF)
        r[(ISR >> 2) + at] = r[(ISR >> 2) + at] | bit
        r[PPR >> 2] = vector & 0xF0  # above TPR's class, since `highest` returned it

    @micropython.viper
    def eoi(self):
        """EOI written: ends the interrupt in service of the highest priority."""
        regs = self.regs
        r = ptr32(regs)
        if int(end(r)):
            return
        vector = int(highest_bit(regs, ISR))
        if vector < 0:
            return
        at = (vector >> 5) << 2
        bit = 1 << (vector & 31)
        r[(ISR >> 2) + at] = r[(ISR >> 2) + at] ^ bit
        if int(reprioritize(regs)):  # an interrupt has waited for this one to end
            self._pend()
        if r[(TMR >> 2) + at] & bit:
            self.eoi_broadcast(vector)

    @micropython.viper
    def _pend(self):
        """Do as kick(), without a call if the frame's address is set."""
        r = ptr32(self.regs)
        if r[FRAME_AT >> 2]:
            ptr32(r[FRAME_AT >> 2])[PENDING] = 1
        else:
            self.kick()

    @micropython.viper
    def set_tpr(self, value: int):
        """Write TPR. Interrupts that it no longer holds up may be delivered."""
        regs = self.regs
        r = ptr32(regs)
        r[TPR >> 2] = value
        if int(reprioritize(regs)) or r[TPR_LIMIT >> 2]:
            self._pend()

    @micropython.viper
    def settle(self):
        """Compute PPR after MOV to CR8 may have written TPR. A CPU that delivers virtual interrupts does so itself."""
        r = ptr32(self.regs)
        if r[VIRTUAL_DELIVERY >> 2] == 0:
            reprioritize(self.regs)

    @micropython.viper
    def held_by_tpr(self) -> int:
        """The class of the highest vector in IRR if TPR holds it up, else 0."""
        regs = self.regs
        r = ptr32(regs)
        if r[ENABLED >> 2] == 0:
            return 0
        vector = int(highest_bit(regs, IRR))
        if vector < 0 or vector >> 4 > int(r[TPR >> 2] >> 4) & 15:
            return 0
        return vector >> 4

    # 620 without `kick`.
    @micropython.viper
    def lint(self, pin: int, level: int):
        """Level of LINT0 (the 8259s' INTR) or LINT1 (NMI)."""
        r = ptr32(self.regs)
        pin &= 1
        at = (LVT_LINT0 >> 2) + (pin << 2)
        rises = level & (r[(LINT0_LEVEL >> 2) + pin] ^ 1)
        r[(LINT0_LEVEL >> 2) + pin] = level
        if level:
            if r[at] & (LVT_MASKED | 0x700) == EXTINT << 8:
                self.kick()
            else:
                self.pin_rises(pin, rises)

    @micropython.viper
    def extint(self) -> int:
        """Whether the 8259s' interrupt reaches the processor now. If so, inject the vector of their `ack`, and
        call `extint_taken`."""
        r = ptr32(self.regs)
        if r[LINT0_LEVEL >> 2]:
            if r[LVT_LINT0 >> 2] & (LVT_MASKED | 0x700) == EXTINT << 8:
                return 1
            if r[ENABLED >> 2] == 0:
                return 1
        return r[IO_EXTINT >> 2]

    # Hooks for APIC virtualization

    def pending_vector(self):
        """The highest vector in IRR regardless of PPR, or -1: RVI."""
        return highest_bit(self.regs, IRR)

    def service_vector(self):
        """The highest vector in ISR, or -1: SVI."""
        return highest_bit(self.regs, ISR)

    def level_vectors(self, group):
        """TMR as 32-bit words 0..7: two of them make one EOI_EXIT field."""
        return self.get(TMR + 16 * group)

    @micropython.viper
    def eoi_exit(self, vector: int):
        """Virtualized EOI (EOI-induced exit): the CPU has ended `vector`; broadcast the EOI if it is
        level-triggered."""
        r = ptr32(self.regs)
        if (r[(TMR >> 2) + ((vector >> 5) << 2)] >> (vector & 31)) & 1:
            self.eoi_broadcast(vector)
