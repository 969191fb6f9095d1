"""The host's network card, an Intel 82540EM, as in Bochs, QEMU and older PCs.

Its rings, with a buffer of 2 KiB for each descriptor, are in the monitor's memory (vmm/host/e1000_rings.py). The card
receives all addresses, since each guest has its own. It does checksum and TCP segmentation offload. Source: Intel,
"PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual".
"""

from array import array

import cpu
import uctypes
from micropython import const
from vmx import bind

from vmm.host import e1000_rings as rings
from vmm.host.buffers import BUFFER, COUNT
from vmm.host.e1000_rings import (
    BUFFERS,
    BYTES,
    CARD_WORDS,
    ENTRY,
    ICR,
    IMC,
    REGISTERS,
    RING,
    RINGS,
    RX_TAIL,
    RXT0,
)
from vmm.network.words import NEEDS_CSUM, NEEDS_TSO4, NEEDS_TSO6

DEVICES = ((0x8086, 0x100E), (0x8086, 0x100F))

# Registers
_CTRL = const(0x0000)
_ITR = const(0x00C4)
_RCTL = const(0x0100)
_TCTL = const(0x0400)
_TIPG = const(0x0410)
_RDBAL = const(0x2800)
_TDBAL = const(0x3800)
_MTA = const(0x5200)
_RAL0 = const(0x5400)

_RESET = const(1 << 26)
_LINK_UP = const(1 << 6)
_SPEED = const(1 << 5)  # detected
_RECEIVES = const(1 << 1 | 1 << 3 | 1 << 4 | 1 << 15 | 1 << 26)  # on, all addresses, broadcast, without the checksum
_SENDS = const(1 << 1 | 1 << 3 | 0x10 << 4 | 0x40 << 12)
_GAP = const(0x0060200A)
_APART = const(80)  # least interval of interrupts, in 256 ns


class E1000:
    """function: of vmm.host.pci; take(size): host memory. mac: its own address. can: bits of vmm.network.words.
    ValueError if it does not come out of reset.

    put(), take(), peek(), keep(), tell(), listen(), answered(), has(), has_frame(): vmm/host/e1000_rings.py.
    """

    can = NEEDS_CSUM | NEEDS_TSO4 | NEEDS_TSO6

    def __init__(self, function, take):
        self.line = function.line
        registers, hpa = function.memory(0), take(BYTES)
        self.words = array("I", [0] * CARD_WORDS)
        for word, value in ((REGISTERS, registers), (RINGS, hpa)):
            self.words[word], self.words[word + 1] = value & 0xFFFFFFFF, value >> 32
        at = self._at = uctypes.addressof(self.words)
        cpu.zero(hpa, BYTES)
        self._reset()
        low, high = self._read(_RAL0), self._read(_RAL0 + 4)
        self.mac = low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")
        for n in range(128):
            self._write(_MTA + 4 * n, 0)
        for n in range(COUNT):
            uctypes.bytearray_at(hpa + n * ENTRY, 8)[:] = (hpa + BUFFERS + n * BUFFER).to_bytes(8, "little")
        self._ring(_RDBAL, hpa)
        self._ring(_TDBAL, hpa + RING)
        self._write(RX_TAIL, COUNT - 1)
        self._write(_TIPG, _GAP)
        self._write(_ITR, _APART)
        self._write(_TCTL, _SENDS)
        self._write(_RCTL, _RECEIVES)
        self.put = bind(rings.put, at)
        self.take = bind(rings.take, at)
        self.peek = bind(rings.peek, at)
        self.keep = bind(rings.keep, at)
        self.tell = bind(rings.tell, at)
        self.listen = bind(rings.listen, at)
        self.answered = bind(rings.answered, at)
        self.has = bind(rings.has, at)
        self.has_frame = bind(rings.has_frame, at)

    def _reset(self):
        self._write(IMC, 0xFFFFFFFF)
        self._write(_CTRL, self._read(_CTRL) | _RESET)
        for _ in range(1000):
            if not self._read(_CTRL) & _RESET:
                break
        else:
            raise ValueError("the machine's network card, an e1000, does not come out of reset")
        self._write(IMC, 0xFFFFFFFF)
        self._read(ICR)
        self._write(_CTRL, self._read(_CTRL) | _LINK_UP | _SPEED)

    def _ring(self, base, hpa):
        self._write(base, hpa & 0xFFFFFFFF)
        self._write(base + 4, hpa >> 32)
        self._write(base + 8, RING)
        self._write(base + 0x10, 0)
        self._write(base + 0x18, 0)

    def _read(self, register):
        return rings.read(self._at, register)

    def _write(self, register, value):
        rings.write(self._at, register, value)

    def close(self):
        self._write(IMC, RXT0)
        self._write(_RCTL, 0)
        self._write(_TCTL, 0)
