"""The bridges that firmware and kernels expect on bus 0: 440FX host bridge, PIIX3 ISA bridge, PIIX4 power management.

Source: Intel 82441FX, 82371SB and 82371AB data sheets.
"""

from micropython import const

from vmm.devices.pci_header import HEADER_TYPE, INTERRUPT_PIN
from vmm.pci.function import Function

_INTEL = const(0x8086)
_PAM = const(0x59)  # to 0x5F
_PIRQ = const(0x60)  # to 0x63
_PMBASE = const(0x40)
_PMREGMISC = const(0x80)
_DEVACTB = const(0x58)
_APMC_EN = const(1 << 25)  # an SMI at a write to port B2h


class HostBridge(Function):
    """440FX. Its PAM registers are stored without an effect: memory from 0xC0000 to 0xFFFFF is RAM."""

    def __init__(self):
        Function.__init__(self, _INTEL, 0x1237, 0x060000, 2)
        for i in range(_PAM - 1, _PAM + 7):
            self._writable[i] = 0xFF
        self.config[_PAM] = 0x10  # the firmware's code is in RAM already


class IsaBridge(Function):
    """PIIX3. lines: the interrupt lines of PIRQA to PIRQD. The routing registers are stored without an effect."""

    def __init__(self, lines):
        Function.__init__(self, _INTEL, 0x7000, 0x060100)
        self.config[HEADER_TYPE] = 0x80  # more functions follow
        for i, line in enumerate(lines):
            self.config[_PIRQ + i] = line
            self._writable[_PIRQ + i] = 0x8F


class PowerManagement(Function):
    """PIIX4's function 3. base: first port of the PM block, which cannot be moved. There is no SMM: firmware finds SMI
    enabled, and does not set it up again."""

    def __init__(self, base):
        Function.__init__(self, _INTEL, 0x7113, 0x068000, 3)
        self.config[_PMBASE : _PMBASE + 4] = (base | 1).to_bytes(4, "little")
        self.config[_PMREGMISC] = 1
        self._writable[_PMREGMISC] = 1
        self.config[_DEVACTB : _DEVACTB + 4] = _APMC_EN.to_bytes(4, "little")
        self.config[INTERRUPT_PIN] = 1
