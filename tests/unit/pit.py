"""A model of the 8254 that is clocked pulse by pulse, and a bench for the device."""

from clock import Clock, Line

from vmm.devices.i8254 import FREQUENCY, I8254

HZ = 4 * FREQUENCY


class Counter:
    """One counter as the data sheet's timing diagrams have it: `clk()` is a pulse of CLK."""

    def __init__(self, gate):
        self.gate = gate
        self.ce = 0
        self.modulus = 65536
        self.control(3, 0)

    def control(self, mode, bcd):
        self.mode = mode
        self.modulus = 10000 if bcd else 65536
        self.cr = 0
        self.loaded = self.load = self.trigger = self.strobe = 0
        self.null = 1
        self.odd = 0
        self.out = int(mode != 0)

    def first_byte(self):
        if self.mode == 0:
            self.loaded = self.load = self.out = 0

    def count(self, cr):
        self.cr = cr
        self.null = 1
        if self.mode in (0, 4) or (self.mode in (2, 3) and not self.loaded):
            self.load = 1
        if self.mode == 0:
            self.out = 0

    def set_gate(self, level):
        rise = level and not self.gate
        self.gate = level
        if self.mode in (1, 2, 3, 5):
            if rise and self.cr:
                self.trigger = 1
            if not level and self.mode in (2, 3):
                self.out = 1

    def take(self):
        self.ce = self.cr & ~1 if self.mode == 3 else self.cr
        self.odd = self.cr & 1
        self.load = self.trigger = self.null = 0
        self.loaded = 1

    def clk(self):
        mode = self.mode
        if self.load or self.trigger:
            self.take()
            self.strobe = 1
            self.out = int(mode not in (0, 1))
        elif self.loaded and (self.gate or mode in (1, 5)):
            if mode == 3:
                if self.ce:
                    self.ce -= 2
                    if self.ce or (self.odd and self.out):
                        return
                self.out ^= 1
                self.take()
                return
            self.ce = (self.ce - 1) % self.modulus
            if mode < 2:
                if self.ce == 0:
                    self.out = 1
            elif mode == 2:
                if self.ce == 1:
                    self.out = 0
                elif self.ce == 0:
                    self.take()
                    self.out = 1
            else:
                self.out = int(not (self.ce == 0 and self.strobe))
                if self.ce == 0:
                    self.strobe = 0

    def shown(self):
        value = self.ce % self.modulus
        return int(str(value), 16) if self.modulus == 10000 else value


class Bench:
    def __init__(self, irq=None):
        self.clock = Clock(HZ)
        self.line = Line()
        self.pit = I8254(irq or self.line, self.clock)

    def put(self, offset, value):
        self.pit.write(offset, 1, value)

    def get(self, offset):
        return self.pit.read(offset, 1)

    def program(self, counter, mode, count, bcd=0):
        self.put(3, counter << 6 | 0x30 | mode << 1 | bcd)
        self.put(counter, count & 0xFF)
        self.put(counter, count >> 8)

    def step(self, pulses):
        self.clock.advance(4 * pulses)

    def latched(self, counter):
        self.put(3, counter << 6)
        low = self.get(counter)
        return low | self.get(counter) << 8
