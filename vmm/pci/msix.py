"""MSI-X: a table of messages in a function's BAR, and its pending bits.

Source: PCI Local Bus Specification 3.0, "MSI-X Capability and Table Structure"; SDM Vol. 3A, "Message Signalled
Interrupts".
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.lapic_registers import LOGICAL

IDENTITY = const(0x11)
_ENABLE = const(0x8000)  # of the message control
_MASK_ALL = const(0x4000)
_MASKED = const(1)
_PAGE = const(0xFEE)  # of the address of a message
_DATA_BITS = const(0xC7FF)  # vector, delivery mode, level, trigger
_TO_LOGICAL = const(4)  # of the address
PENDING_AT = const(0x800)  # offset of the pending bits from the table

# Words of an entry
_ADDRESS = const(0)
_DATA = const(2)
_CONTROL = const(3)


def message(address, data):
    """(low, destination) of a message for the local APICs; None if the address is no local APIC's."""
    if address >> 20 != _PAGE:
        return None
    return data & _DATA_BITS | (LOGICAL if address & _TO_LOGICAL else 0), address >> 12 & 0xFF


class Msix:
    """Up to 32 messages of one function, and the device of the table's page. deliver(low, destination): as IoApic's."""

    def __init__(self, function, bar, offset, vectors, deliver):
        """bar, offset: the place of the table. vectors: the number of messages."""
        self.vectors = vectors
        self._all = 4 * vectors  # the word of `table` that masks all messages; the next word: MSI-X is enabled
        self.table = array("I", [0] * (4 * vectors + 2))
        self.enabling = uctypes.addressof(self.table) + 4 * (self._all + 1)
        self._pending = array("I", [0])
        self.quick = bind(_raise, uctypes.addressof(self.table), vectors, deliver)
        self._function = function
        body = bytearray(10)
        body[0] = vectors - 1
        body[2:6] = (offset | bar).to_bytes(4, "little")
        body[6:10] = (offset + PENDING_AT | bar).to_bytes(4, "little")
        self.at = function.capability(IDENTITY, body, b"\x00\xc0")
        self.reset()

    def reset(self):
        for i in range(self._all):
            self.table[i] = _MASKED if i & 3 == _CONTROL else 0
        self.table[self._all] = self.table[self._all + 1] = self._pending[0] = 0

    @property
    def enabled(self):
        return self.table[self._all + 1] != 0

    def wrote(self, offset, size):
        """The guest has written to configuration space. Returns whether it has written the message control."""
        if offset >= self.at + 4 or offset + size <= self.at + 2:
            return False
        control = self._function.read(self.at + 2, 2)
        self.table[self._all + 1] = 1 if control & _ENABLE else 0
        self.table[self._all] = 1 if control & _MASK_ALL else 0
        self._send_pending()
        return True

    def raise_(self, n):
        """Send message n, or set its pending bit while it is masked."""
        if not self.quick(n) and n < self.vectors:
            self._pending[0] |= 1 << n

    def _send_pending(self):
        for n in range(self.vectors):
            if self._pending[0] >> n & 1 and self.quick(n):
                self._pending[0] &= ~(1 << n)

    # The table, and the pending bits behind it.

    def read(self, offset, size):
        if offset >= PENDING_AT:
            return self._pending[0] if offset == PENDING_AT else 0
        n = offset >> 2
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        return self.table[n] if size == 4 and n < self._all else 0

    def write(self, offset, size, value):
        n = offset >> 2
        if size == 8:
            self.write(offset, 4, value & 0xFFFFFFFF)
            self.write(offset + 4, 4, value >> 32)
        elif size == 4 and n < self._all:
            self.table[n] = value & _MASKED if n & 3 == _CONTROL else value
            self._send_pending()

    def save(self):
        """Plain data."""
        return {"table": list(self.table)[: self._all], "pending": self._pending[0]}

    def load(self, saved):
        for i, word in enumerate(saved["table"]):
            self.table[i] = word
        self._pending[0] = saved["pending"]
        self.wrote(self.at, 4)


@micropython.viper
def _raise(table: int, vectors: int, deliver, n: int) -> int:
    """Send message n: 1, or 0 if it is masked. A message whose address is no local APIC's has no effect."""
    t = ptr32(table)
    if n >= vectors or t[4 * vectors]:
        return 0
    t = ptr32(table + (n << 4))
    if t[_CONTROL] & _MASKED:
        return 0
    low = int(t[_ADDRESS])
    if low >> 20 == _PAGE and t[_ADDRESS + 1] == 0:  # message(), inlined
        data = int(t[_DATA]) & _DATA_BITS
        if low & _TO_LOGICAL:
            data |= LOGICAL
        deliver(data, low >> 12 & 0xFF)
    return 1
