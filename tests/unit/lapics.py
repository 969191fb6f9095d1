"""A local APIC with lists and counters for its outputs."""

from clock import Clock

from vmm.devices import lapic_registers as apic
from vmm.devices.lapic import Lapic


class Bench:
    def __init__(self, apic_id=0, hz=100000000, ticks=1000):
        self.kicks = 0
        self.nmis = 0
        self.ended = []
        self.sent = []
        self.clock = Clock(hz, ticks)
        self.page = bytearray(apic.SIZE)
        self.apic = Lapic(
            self.page, self.clock, apic_id, self.kick, self.nmi, self.ended.append, lambda *m: self.sent.append(m)
        )
        self.put(apic.SVR, 0x1FF)

    def kick(self):
        self.kicks += 1

    def nmi(self):
        self.nmis += 1

    def put(self, offset, value):
        self.apic.write(offset, 4, value)

    def get(self, offset):
        return self.apic.read(offset, 4)

    def take(self):
        vector = self.apic.highest()
        if vector >= 0:
            self.apic.accept(vector)
        return vector

    def serve(self):
        vector = self.take()
        self.apic.eoi()
        return vector
