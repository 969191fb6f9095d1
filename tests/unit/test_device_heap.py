"""A millisecond of a board with all interrupts served. Only MicroPython has a heap to lock:
tests/monitor/test_steady_state.py shows that devices allocate nothing there."""

import micropython
from clock import Clock

from vmm.devices.acpi_pm import AcpiPm
from vmm.devices.gsi import Gsi
from vmm.devices.i8042 import I8042
from vmm.devices.i8254 import I8254
from vmm.devices.i8259 import I8259
from vmm.devices.ioapic import IoApic
from vmm.devices.lapic import Lapic
from vmm.devices.lapic_registers import SIZE
from vmm.devices.mc146818 import Mc146818
from vmm.devices.uart16550 import Uart16550


class Board:
    """The chips, wired as a PC's."""

    def __init__(self):
        self.kicks = 0
        self.clock = clock = Clock(100000000, 1000)
        self.page = bytearray(SIZE)
        self.apic = Lapic(self.page, clock, 0, self.kick, eoi_broadcast=self.broadcast)
        self.io = IoApic(self.apic.receive)
        self.gsi = Gsi(self.io, self.apic)
        self.pic = self.gsi.pic = I8259(self.gsi.intr)
        self.pit = I8254(self.gsi.line(0), clock)
        self.rtc = Mc146818(self.gsi.line(8), clock, 1700000000)
        self.pm = AcpiPm(self.gsi.line(9), clock, self.kick)
        self.kbc = I8042(self.gsi.line(1), self.gsi.line(12), self.kick)
        self.uart = Uart16550(self.tx, self.gsi.line(4))

    def kick(self):
        self.kicks += 1

    def broadcast(self, vector):
        self.io.eoi(vector)

    def tx(self, byte):
        return True


def setup(b):
    for offset, value in ((0, 0x11), (1, 0x20), (1, 4), (1, 1), (2, 0x11), (3, 0x28), (3, 2), (3, 1)):
        b.pic.write(offset, 1, value)
    b.apic.write(0xF0, 4, 0x1FF)
    b.apic.write(0x350, 4, 0x700)
    b.apic.write(0x320, 4, 0x20040)
    b.apic.write(0x3E0, 4, 0xB)
    b.apic.write(0x380, 4, 200000)
    b.io.write(0, 4, 0x10 + 2 * 20)
    b.io.write(0x10, 4, 0x8061)
    b.pit.write(3, 1, 0x34)
    b.pit.write(0, 1, 0xA9)
    b.pit.write(0, 1, 0x04)
    b.rtc.write(0, 1, 11)
    b.rtc.write(1, 1, 0x52)
    b.uart.write(2, 1, 1)
    b.uart.write(4, 1, 8)
    b.uart.write(1, 1, 1)


def turn(b, level_line):
    """A millisecond in the life of a guest: all interrupts served, some registers read."""
    b.clock.advance(100000)
    while b.apic.extint():
        vector = b.pic.ack()
        if vector == 0x28:
            b.rtc.write(0, 1, 12)
            b.rtc.read(1, 1)
        elif vector == 0x24:
            b.uart.read(2, 1)
            while b.uart.read(5, 1) & 1:
                b.uart.read(0, 1)
        if vector >= 0x28:
            b.pic.write(2, 1, 0x20)
        b.pic.write(0, 1, 0x20)
    level_line(1)
    while True:
        vector = b.apic.highest()
        if vector < 0:
            break
        b.apic.accept(vector)
        level_line(0)
        b.apic.eoi()
    b.uart.write(0, 1, 65)
    b.uart.rx(66)
    b.pit.write(3, 1, 0)
    b.pit.read(0, 1)
    b.pit.read(0, 1)
    b.pit.read(4, 1)
    b.pm.read(8, 4)
    b.pm.read(0, 2)
    b.apic.read(0x390, 4)
    b.apic.write(0x80, 4, 0)
    b.apic.write(0x300, 4, 0x40077)
    b.io.read(0x10, 4)
    b.rtc.write(0, 1, 0)
    b.rtc.read(1, 1)
    b.kbc.read(4, 1)


def test_steady_state_allocates_nothing():
    b = Board()
    setup(b)
    level_line = b.gsi.line(20)
    turn(b, level_line)
    error = None
    micropython.heap_lock()
    try:
        for _ in range(500):
            turn(b, level_line)
    except MemoryError as caught:
        error = caught
    micropython.heap_unlock()
    if error:
        raise error
    assert b.kicks > 500 and b.clock.fired > 600
