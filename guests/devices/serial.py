"""A serial port of PCI Express with MSI, an example of docs/devices.md: to Linux it is a MosChip MCS9900, which its own
driver (8250_pci) serves.

`sent` has what the guest has sent last; `uart.rx(byte)` types.
"""

from vmm.devices.uart16550 import Uart16550
from vmm.pci.function import Function

_MOST = 256  # bytes of `sent`
_SERIAL_NUMBER = 3  # an extended capability


class Serial(Function):
    def __init__(self, vm):
        Function.__init__(self, 0x9710, 0x9900, 0x070002, subsystem=(0xA000, 0x1000), pin=1)
        self.express()
        self.messages()
        self.extended(_SERIAL_NUMBER, 1, b"PCANELPY")
        self.sent = bytearray()
        self.uart = Uart16550(self.tx, self.line)
        self.bar(0, "io", 8, ((0, 8, self.uart),))
        self.bar(1, "memory", 4096, ())  # the chip has them; a driver recognizes it by its BARs
        self.bar(5, "memory", 4096, ())

    def tx(self, byte):
        if len(self.sent) == _MOST:
            self.sent = self.sent[1:]
        self.sent.append(byte)
        return True

    def line(self, level):
        self.interrupt(level)
        return 1

    def was_reset(self):
        self.uart.reset()

    def save(self):
        return {"function": Function.save(self), "uart": self.uart.save()}

    def load(self, saved):
        Function.load(self, saved["function"])
        self.uart.load(saved["uart"])
