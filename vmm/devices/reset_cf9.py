"""Reset control register, port CF9h (Intel 82371SB data sheet)."""

from micropython import const

from vmm.devices import saved

SYSTEM = const(0x02)  # hard reset
CPU = const(0x04)  # going from 0 to 1: reset
_FULL = const(0x08)  # with a power cycle


class ResetCf9:
    """`reset_machine()` is called when bit 2 goes from 0 to 1, whether bit 1 asks for a hard reset or not."""

    def __init__(self, reset_machine):
        self.reset_machine = reset_machine
        self.value = 0

    def reset(self):
        self.value = 0

    def save(self):
        return {"value": self.value}

    def load(self, state):
        saved.need(self, ("value",), state)
        self.value = state["value"]

    def read(self, offset, size):
        """As written; bit 2 reads 0."""
        return self.value & ~CPU

    def write(self, offset, size, value):
        """Bits 1..3; bit 2 starts the reset."""
        rises = value & ~self.value & CPU
        self.value = value & (SYSTEM | CPU | _FULL)
        if rises:
            self.reset_machine()
