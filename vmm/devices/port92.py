"""System control port A, 92h: fast A20 gate and fast reset."""

from vmm.devices import saved


def _ignore(_):
    """An output that leads nowhere."""


class Port92:
    """`a20(on)` is called when bit 1 changes, `reset_cpu()` when bit 0 is set."""

    def __init__(self, reset_cpu, a20=_ignore):
        self.reset_cpu = reset_cpu
        self.a20 = a20
        self.value = 0
        self.reset()

    def reset(self):
        """The A20 gate is open, as firmware leaves it."""
        self.value = 0x02

    def save(self):
        return {"value": self.value}

    def load(self, state):
        saved.need(self, ("value",), state)
        changed = self.value ^ state["value"]
        self.value = state["value"]
        if changed & 0x02:
            self.a20(self.value >> 1 & 1)

    def read(self, offset, size):
        """Bit 1 the A20 gate, bit 0 as written."""
        return self.value

    def write(self, offset, size, value):
        """Bit 1 opens the A20 gate; bit 0, going from 0 to 1, resets the processor."""
        changed = self.value ^ value
        self.value = value & 0x03
        if changed & 0x02:
            self.a20(value >> 1 & 1)
        if changed & value & 0x01:
            self.reset_cpu()
