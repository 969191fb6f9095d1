"""Null-modem cables: a UART of one guest wired to a UART of another.

    [[link]]                 in a guest's file (docs/guests.md)
    uart = "com2"
    to = "rtos:com2"

Crossed are data, RTS to CTS, DTR to DSR and DCD. There is no baud rate: a character moves at once into the far end's
receive FIFO. Where that is full it stays in the sender's transmit FIFO until the receiver has emptied its FIFO, and 1.4
ms longer. So nothing is lost while the far end is paused or does not read: the sender waits. The 1.4 ms let a driver
leave its loop that reads until the FIFO is empty. A far end without power (destroyed, off, never created) is an
unplugged cable: its lines are low, and what is sent is lost and counted in `lost`.

A guest may run while a handler of another is preempted (vmm/scheduling/sched.py), perhaps a handler of the far UART.
The far UART is not touched then: the character waits as if there were no room, and settle() moves it later. The methods
here are not preempted themselves.
"""

from array import array

import cpu
import micropython

from vmm.devices.uart16550_registers import LCR_BREAK, MCR_DTR, MCR_RTS, MSR_CTS, MSR_DCD, MSR_DSR
from vmm.scheduling.states import WAITS
from vmm.ties import checks
from vmm.vtx.frame import SLICE_END, STATE


class End:
    """One end of a cable. name, number: the guest and the UART (0: COM1) that it belongs in."""

    def __init__(self, name, number, scheduler):
        self.name = name
        self.number = number
        self.scheduler = scheduler
        self.far = None
        self.vm = self.uart = None  # None while there is no guest
        self.powered = False
        # Sent, lost, SLICE_END of the sender's turn that last called preempt_soon() for the far guest.
        self._counts = array("I", (0, 0, 1))
        self._here = self._there = 0  # frames (hpa) of the guests at both ends
        self._nested = scheduler.depth
        self._accept = None  # the far UART's accept() while it has power
        self._break = 0

    def __repr__(self):
        return "%s (%d sent, %d lost%s)" % (self.place(), self.sent, self.lost, "" if self.powered else ", off")

    def place(self):
        """In the form of a guest's description: 'rtos:com2'."""
        return "%s:com%d" % (self.name, self.number + 1)

    @property
    def sent(self):
        """Characters that the far end has taken, modulo 2**32."""
        return self._counts[0]

    @property
    def lost(self):
        """Characters sent while there was no far end."""
        return self._counts[1]

    def lines(self):
        """The far UART's modem inputs, as this end's outputs make them."""
        if not self.powered:
            return 0
        pins = self.uart.pins
        return (MSR_CTS if pins & MCR_RTS else 0) | (MSR_DSR | MSR_DCD if pins & MCR_DTR else 0)

    def plug(self, vm):
        """Connect to the UART of a guest that has been created."""
        self.vm = vm
        self._here = self.far._there = vm.vcpus[0].frame_hpa
        self.uart = vm.pc.com(self.number)
        self.uart.connect(self.tx, self.modem, self.drained, self.bulk, self.far.lines(), vm.clock)

    def unplug(self):
        """Disconnect: the guest or the cable is removed."""
        self.power(False)
        if self.uart:
            self.uart.connect(_gone, _nothing, _nothing, None, 0, self.vm.clock)
            self.vm = self.uart = None

    def power(self, on):
        """Follow the guest's power: it is started, or switched off."""
        on = on and self.uart is not None
        if on != self.powered:
            self.powered = on
            self.far._accept = self.uart.accept if on else None
            self.far.lines_changed()
            if on:
                self.uart.modem_in(self.far.lines())

    def lines_changed(self):
        """Put the far end's lines, which may have changed, on this end's UART."""
        if self.powered and self._may():
            cpu.hold(1)
            try:
                self.uart.modem_in(self.far.lines())
                self.uart.poll()
                self.vm.preempt_soon()
            finally:
                cpu.hold(-1)

    def send_waiting(self):
        """Send what waits in the transmit FIFO: the far end has room."""
        if self.powered and self._may():
            cpu.hold(1)
            try:
                self.uart.poll()
                self.vm.preempt_soon()
            finally:
                cpu.hold(-1)

    def settle(self):
        """Do what was deferred while a handler was preempted, at this end and towards the far one."""
        if self.powered:
            self.modem(self.uart.pins)
            self.send_waiting()

    def _may(self):
        if self.scheduler.nested:
            self.scheduler.defer()
            return False
        return True

    # -- what the UART calls

    # 900 ticks without the far UART's part.
    @micropython.viper
    def tx(self, byte: int) -> bool:
        """The guest sends a character; False while the far end has no room."""
        counts = ptr32(self._counts)
        nested = ptr32(self._nested)
        accept = self._accept
        if accept:
            if nested[0]:
                self.scheduler.defer()
                return False
            if not accept(byte):
                return False
            counts[0] += 1
            there = ptr32(int(self._there))
            if there[STATE] == WAITS:
                here = ptr32(int(self._here))
                if here[SLICE_END] != counts[2]:
                    self.far.vm.preempt_soon()
                    counts[2] = here[SLICE_END]
        else:
            counts[1] += 1
        return True

    def bulk(self, uart):
        """Move this end's transmit FIFO to the far end, as far as there is room."""
        if self.far.powered and self._may():
            self._counts[0] += self.far.uart.pull(uart)

    def modem(self, pins):
        """Pass on DTR, RTS and break of this end: one has changed, or loopback has ended."""
        if not self.powered or not self._may():
            return
        if pins & LCR_BREAK and not self._break and self.far.powered:
            cpu.hold(1)
            try:
                self.far.uart.rx_break()
            finally:
                cpu.hold(-1)
        self._break = pins & LCR_BREAK
        self.far.lines_changed()

    def drained(self):
        """The guest has emptied its FIFO: let the far end send after a pause.

        Without the pause a driver that reads until the FIFO is empty would never leave its interrupt handler.
        """
        if self.far.powered and self.far.uart.pending():
            self.uart.pace(self.far.send_waiting)


class Links:
    """All cables of a monitor."""

    def __init__(self, scheduler):
        self._scheduler = scheduler
        scheduler.defer(self._settle)
        self.cables = []  # [(owners, end, end)]; owners: names of the guests whose files have it

    def __repr__(self):
        return "\n".join(["%r - %r" % (a, b) for _, a, b in self.cables]) or "no links"

    def _settle(self):
        for _, *ends in self.cables:
            for end in ends:
                if end.vm:  # charged to the sender
                    self._scheduler.on_behalf(end.vm, end.settle)

    def ends(self, name):
        """The ends that belong in a guest's UARTs."""
        return [end for _, a, b in self.cables for end in (a, b) if end.name == name]

    def at(self, name, number):
        """The end in a guest's UART (0: COM1), or None."""
        for end in self.ends(name):
            if end.number == number:
                return end
        return None

    def add(self, name, wanted):
        """Add the cables of a guest's description, all or none. ValueError for an end that has a cable."""
        checks.links(name, wanted)
        new = []
        shared = []  # cables that another guest's file has too
        for i in range(len(wanted)):
            guest, uart = checks.far_end(wanted[i]["to"])
            here, there = (name, port(wanted[i]["uart"])), (guest, port(uart))
            same = None
            for cable in self.cables + new:
                ends = [(end.name, end.number) for end in cable[1:]]
                if here in ends and there in ends:
                    same = cable
                elif here in ends or there in ends:
                    text = "[%d]: %s to %s: one of them has a link already"
                    raise ValueError(text % (i, wanted[i]["uart"], wanted[i]["to"]))
            if same:
                shared.append(same)
                continue
            a, b = End(*here, self._scheduler), End(*there, self._scheduler)
            a.far, b.far = b, a
            new.append(([name], a, b))
        for owners, _, _ in shared:
            if name not in owners:
                owners.append(name)
        self.cables += new

    def wire(self, machines):
        """Plug in the guests that exist now. machines: vmm.monitor.Machines."""
        for _, a, b in self.cables:
            for end in (a, b):
                if end.uart is None and end.name in machines:
                    vm = machines[end.name]
                    end.plug(vm)
                    end.power(vm.powered)

    def remove(self, name):
        """A guest is removed: unplug it, and remove the cables that only its file had."""
        for end in self.ends(name):
            end.unplug()
        kept = []
        for owners, a, b in self.cables:
            if name in owners:
                owners.remove(name)
            if owners:
                kept.append((owners, a, b))
            else:
                a.unplug()
                b.unplug()
        self.cables = kept


def port(name):
    """0 to 3 for 'com1' to 'com4'; ValueError."""
    return checks.UARTS.index(name)


def _gone(byte):
    """tx() of an unplugged UART: the character is accepted and lost."""
    return True


def _nothing(_=None):
    """A callback that does nothing."""
