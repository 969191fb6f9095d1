"""Interrupt messages between the local APICs of one guest, and from the I/O APIC to them.

Physical and logical destinations, shorthands, broadcast, lowest priority, NMI, INIT and STARTUP. A message to
processors that are at HLT soon ends the turn of the sender, which may wait for them. Source: SDM
Vol. 3A, "Issuing Interprocessor Interrupts", "Determining IPI Destination", "Lowest-Priority Delivery Mode".
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.lapic_registers import (
    DFR,
    ENABLED,
    FRAME_AT,
    ICR_UNUSUAL,
    INIT,
    IRR,
    LDR,
    LEVEL_ASSERT,
    LOGICAL,
    LOWEST,
    PPR,
    SELF,
    STARTUP,
    SVR,
    SVR_ENABLED,
    TRIGGER_LEVEL,
    X2APIC,
)
from vmm.devices.lapic_vectors import post, post_level
from vmm.scheduling.clock import cut
from vmm.scheduling.preemption import GRACES
from vmm.scheduling.states import WAITS
from vmm.vtx.frame import APIC_PAGE, STATE

_ALL_BUT_SELF = const(3)  # shorthands, bits 19:18 of ICR
_UNUSUAL = const(ICR_UNUSUAL & ~LOGICAL)


class ApicBus:
    """One guest's. initialize(vcpu), start_up(vcpu, vector): what INIT and STARTUP do there."""

    def __init__(self, scheduler, vcpus, initialize, start_up):
        self._scheduler = scheduler
        self._vcpus = vcpus
        self._initialize = initialize
        self._start_up = start_up
        self._next = 0  # of equals, who gets the next message of lowest priority
        self._pages = array("I", [len(vcpus), cpu.tsc_hz // GRACES] + [vcpu.apic_page for vcpu in vcpus])
        # quick(frame, low, destination) -> 1, or 0 and nothing is done: an IPI of the vCPU with this frame (hpa).
        self.quick = bind(_quick, uctypes.addressof(self._pages))
        # message(low, destination): from the I/O APIC or a device. 0 where an edge finds its predecessor not accepted
        # yet, else 1.
        self.message = bind(_message, uctypes.addressof(self._pages), scheduler.preempt_soon, self.carry)

    def ipi(self, sender, low, destination):
        """An IPI for other processors, or INIT or STARTUP for any. low: as in ICR. destination: 8 bits, 32 in x2APIC
        mode."""
        shorthand = low >> 18 & 3
        mode = low >> 8 & 7
        if mode == INIT and low & TRIGGER_LEVEL and not low & LEVEL_ASSERT:
            return  # INIT level de-assert, which local APICs since the Pentium 4 do not know
        named = []
        for vcpu in self._vcpus:
            if vcpu is sender:
                if shorthand == _ALL_BUT_SELF or mode not in (INIT, STARTUP, LOWEST):
                    continue
            elif shorthand == SELF:
                continue
            if shorthand or vcpu.lapic.matches(destination, low & LOGICAL):
                named.append(vcpu)
        self._carry(named, low & ~TRIGGER_LEVEL)

    def carry(self, low, destination):
        """message() for any kind of message and destination."""
        return self._carry(
            [
                vcpu
                for vcpu in self._vcpus
                if vcpu.lapic.matches(destination, low & LOGICAL) or (destination == 0xFF and vcpu.lapic.enabled)
            ],
            low,
        )

    def _carry(self, named, low):
        mode = low >> 8 & 7
        if mode == LOWEST and len(named) > 1:
            named = [self._lowest(named)]
        answer = 1
        for vcpu in named:
            if mode == INIT:
                self._initialize(vcpu)
                continue
            self._scheduler.preempt_soon(vcpu.frame_hpa)
            if mode == STARTUP:
                self._start_up(vcpu, low & 0xFF)
            else:
                answer &= vcpu.lapic.take(low)
        return answer

    def _lowest(self, named):
        """Of several processors, the one with the lowest priority; round-robin among equals."""
        able = [vcpu for vcpu in named if vcpu.lapic.get(SVR) & SVR_ENABLED] or named
        for vcpu in able:
            vcpu.lapic.settle()
        least = min([vcpu.lapic.get(PPR) >> 4 for vcpu in able])
        able = [vcpu for vcpu in able if vcpu.lapic.get(PPR) >> 4 == least]
        self._next += 1
        return able[self._next % len(able)]


# What a device sends as a rule: an interrupt for one processor. By ApicBus.carry it is 30,000.
@micropython.viper
def _message(pages: int, preempt_soon, carry, low: int, destination: int) -> int:
    """ApicBus.message(). pages: as of _quick()."""
    t = ptr32(pages)
    found = 0
    if low & _UNUSUAL == 0:
        i = 0
        while i < int(t[0]):
            page = int(t[2 + i])
            r = ptr32(page)
            if r[ENABLED // 4]:
                if destination == 0xFF:
                    return int(carry(low, destination))
                one = 0
                if low & LOGICAL == 0:
                    if destination == i:
                        one = 1
                elif r[X2APIC // 4] or int(r[DFR // 4]) >> 28 & 15 != 15:
                    return int(carry(low, destination))
                elif destination & (int(r[LDR // 4]) >> 24 & 0xFF):
                    one = 1
                if one:
                    if found:
                        return int(carry(low, destination))
                    found = page
            i += 1
    if found == 0:
        return int(carry(low, destination))
    r = ptr32(found)
    vector = low & 0xFF
    if r[IRR // 4 + ((vector >> 5) << 2)] & 1 << (vector & 31):
        return int(carry(low, destination))
    if low & TRIGGER_LEVEL:
        if int(post_level(found, vector)) == 0:
            return int(carry(low, destination))
    elif int(post(found, vector)) == 0:
        return int(carry(low, destination))
    preempt_soon(int(r[FRAME_AT // 4]))
    return 1


# What Linux sends: reschedule, function call, TLB shoot-down. By ApicBus.ipi it is 30,000.
@micropython.viper
def _quick(pages: int, frame: int, low: int, destination: int) -> int:
    """A fixed interrupt by an IPI. pages: address of how many there are, a grace in ticks, and the APICs' pages."""
    if low & _UNUSUAL:
        return 0
    t = ptr32(pages)
    own = int(ptr32(frame)[APIC_PAGE])
    shorthand = low >> 18
    named = 0
    i = 0
    while i < int(t[0]):
        page = int(t[2 + i])
        r = ptr32(page)
        one = 0
        if shorthand:
            one = 1
            if shorthand == SELF and page != own:
                one = 0
            elif shorthand == _ALL_BUT_SELF and page == own:
                one = 0
        elif r[ENABLED // 4]:
            if low & LOGICAL == 0:
                if destination == i or destination == (0xFFFFFFFF if r[X2APIC // 4] else 0xFF):
                    one = 1
            elif r[X2APIC // 4]:
                if destination == 0xFFFFFFFF:
                    one = 1
                elif destination >> 16 == int(r[LDR // 4]) >> 16 and destination & int(r[LDR // 4]) & 0xFFFF:
                    one = 1
            else:
                if int(r[DFR // 4]) >> 28 & 15 != 15:
                    return 0  # cluster model
                if destination == 0xFF or destination & (int(r[LDR // 4]) >> 24 & 0xFF):
                    one = 1
        if one:
            named |= 1 << i
        i += 1
    i = 0
    wakes = 0
    while named >> i:
        if named >> i & 1:
            page = int(t[2 + i])
            if int(post(page, low & 0xFF)) == 0:
                return 0  # what has been posted waits already and is not taken twice
            if ptr32(ptr32(page)[FRAME_AT // 4])[STATE] == WAITS:
                wakes = 1
        i += 1
    if wakes:
        cut(frame, int(cpu.rdtsc()) + int(t[1]))
    return 1
