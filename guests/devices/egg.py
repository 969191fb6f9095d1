"""An egg timer on PCI, the example of docs/devices.md: BAR 0 has three registers of 32 bits.

0: how often it has rung. 4: a write of n arms it to ring in n microseconds. 8: 1 while it rings; any write stops it. It
rings by INTA.
"""

from vmm.pci.function import Function


class Egg(Function):
    def __init__(self, vm):
        Function.__init__(self, 0x1234, 0x0E66, 0x088000, pin=1)
        self.clock = vm.clock
        self.timer = vm.clock.timer(self.ring)
        self.bar(0, "memory", 4096, ((0, 4096, Registers(self)),))
        self.rung = 0

    def ring(self, now):
        self.rung += 1
        self.interrupt(1)

    def was_reset(self):
        self.rung = 0
        self.timer.cancel()

    def save(self):
        return {"function": Function.save(self), "rung": self.rung, "deadline": self.timer.deadline}

    def load(self, saved):
        Function.load(self, saved["function"])
        self.rung = saved["rung"]
        self.timer.arm(saved["deadline"])


class Registers:
    def __init__(self, egg):
        self.egg = egg

    def read(self, offset, size):
        return self.egg.rung if offset == 0 else self.egg.level if offset == 8 else 0

    def write(self, offset, size, value):
        clock = self.egg.clock
        if offset == 4:
            self.egg.timer.arm(clock.now() + value * clock.hz // 1_000_000)
        elif offset == 8:
            self.egg.interrupt(0)
