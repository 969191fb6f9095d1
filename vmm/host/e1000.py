"""The machine's network card, an Intel 82540EM: Bochs has it, QEMU has it, PCs have had it.

Frames are moved by rings in the monitor's memory. The card is polled, and raises no interrupts. It hears all addresses,
since each guest has its own. Source: Intel, "PCI/PCI-X Family of Gigabit Ethernet
Controllers Software Developer's Manual".
"""

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

DEVICES = ((0x8086, 0x100E), (0x8086, 0x100F))

# Registers
_CTRL = const(0x0000)
_ICR = const(0x00C0)
_IMC = const(0x00D8)
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

_COUNT = const(64)  # descriptors of a ring
_ENTRY = const(16)
_BUFFER = const(2048)
_RING = const(_COUNT * _ENTRY)
_RX_BUFFERS = const(2 * _RING)
_TX_BUFFERS = const(_RX_BUFFERS + _COUNT * _BUFFER)
_BYTES = const(_TX_BUFFERS + _COUNT * _BUFFER)

_DONE = const(1)
_LAST = const(1)  # commands of a transmit descriptor
_FCS = const(2)
_REPORT = const(8)


class E1000:
    """registers: hpa of BAR 0; take(size): host memory. mac: its own address."""

    def __init__(self, registers, take):
        self._registers = registers
        self.hpa = take(_BYTES)
        cpu.zero(self.hpa, _BYTES)
        self._write(_IMC, 0xFFFFFFFF)
        self._write(_CTRL, self._read(_CTRL) | _RESET)
        for _ in range(1000):
            if not self._read(_CTRL) & _RESET:
                break
        else:
            raise OSError("the e1000 does not come out of reset")
        self._write(_IMC, 0xFFFFFFFF)
        self._read(_ICR)
        self._write(_CTRL, self._read(_CTRL) | _LINK_UP | _SPEED)
        low, high = self._read(_RAL0), self._read(_RAL0 + 4)
        self.mac = low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")
        for n in range(128):
            self._write(_MTA + 4 * n, 0)
        for n in range(_COUNT):
            at = self.hpa + _RX_BUFFERS + n * _BUFFER
            uctypes.bytearray_at(self.hpa + n * _ENTRY, 8)[:] = at.to_bytes(8, "little")
        self._ring(_RDBAL, self.hpa)
        self._ring(_TDBAL, self.hpa + _RING)
        self._write(_RDBAL + 0x18, _COUNT - 1)
        self._write(_TIPG, _GAP)
        self._write(_TCTL, _SENDS)
        self._write(_RCTL, _RECEIVES)
        self._next = 0  # receive descriptor that is looked at next
        self._free = 0  # transmit descriptor that is used next
        self.dropped = 0  # frames for which its ring had no room
        self.ready = bind(_ready, self)

    def _ring(self, base, hpa):
        self._write(base, hpa & 0xFFFFFFFF)
        self._write(base + 4, hpa >> 32)
        self._write(base + 8, _RING)
        self._write(base + 0x10, 0)
        self._write(base + 0x18, 0)

    @micropython.viper
    def _read(self, at: int) -> int:
        return int(ptr32(int(self._registers) + at)[0])

    @micropython.viper
    def _write(self, at: int, value: int):
        ptr32(int(self._registers) + at)[0] = value

    def send(self, frame):
        """Send one frame, or drop it where the ring is full."""
        n = self._free
        at = self.hpa + _RING + n * _ENTRY
        entry = uctypes.bytearray_at(at, _ENTRY)
        size = len(frame)
        if entry[11] & _REPORT and not entry[12] & _DONE or size > _BUFFER:
            self.dropped += 1
            return
        buffer = self.hpa + _TX_BUFFERS + n * _BUFFER
        cpu.copy(buffer, uctypes.addressof(frame), size)
        entry[:8] = buffer.to_bytes(8, "little")
        entry[8] = size & 0xFF
        entry[9] = size >> 8
        entry[10] = entry[12] = entry[13] = entry[14] = entry[15] = 0
        entry[11] = _LAST | _FCS | _REPORT
        self._free = n + 1 & _COUNT - 1
        self._write(_TDBAL + 0x18, self._free)

    def receive(self):
        """The next frame, a bytearray, or None."""
        n = self._next
        entry = uctypes.bytearray_at(self.hpa + n * _ENTRY, _ENTRY)
        if not entry[12] & _DONE:
            return None
        size = entry[8] | entry[9] << 8
        frame = bytearray(uctypes.bytearray_at(self.hpa + _RX_BUFFERS + n * _BUFFER, min(size, _BUFFER)))
        entry[8:] = bytes(8)
        self._next = n + 1 & _COUNT - 1
        self._write(_RDBAL + 0x18, n)
        return frame

    def close(self):
        self._write(_IMC, 0xFFFFFFFF)
        self._write(_RCTL, 0)
        self._write(_TCTL, 0)


@micropython.viper
def _ready(card) -> int:
    """Whether a frame has come."""
    entry = ptr32(int(card.hpa) + int(card._next) * _ENTRY)
    return int(entry[3]) & _DONE
