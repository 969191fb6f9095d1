"""MSI: messages of a function to local APICs instead of INTx, all of them to one address.

All registers are in the function's configuration space, and are saved with it. Source: PCI Local Bus Specification 3.0,
"MSI Capability Structure", with 64-bit addresses and per-vector masks.
"""

import struct

from micropython import const

from vmm.pci.msix import message

IDENTITY = const(0x05)
MOST = const(32)

# Offsets from the capability
_CONTROL = const(2)
_ADDRESS = const(4)
_DATA = const(12)
_MASK = const(16)
_PENDING = const(20)
_END = const(24)

# Of the message control
_ENABLE = const(0x0001)
_ASKED_SHIFT = const(1)  # Multiple Message Capable: log2 of the messages that the function can send
_GIVEN_SHIFT = const(4)  # Multiple Message Enable: log2 of the messages that the guest has allotted
_LOGARITHM = const(7)
_64_BITS = const(0x0080)
_MASKS = const(0x0100)


class Msi:
    """The MSI capability of one function. messages: the number that it can send, a power of two up to 32."""

    def __init__(self, function, messages):
        asked = 0
        while 1 << asked < messages:
            asked += 1
        if 1 << asked != messages or messages > MOST:
            raise ValueError("MSI with %d messages" % messages)
        self._function = function
        self._asked = asked
        body = struct.pack("<H20x", asked << _ASKED_SHIFT | _64_BITS | _MASKS)
        mask = struct.pack(
            "<HIIHHI", _ENABLE | _LOGARITHM << _GIVEN_SHIFT, 0xFFFFFFFC, 0xFFFFFFFF, 0xFFFF, 0, (1 << messages) - 1
        )
        self.at = function.capability(IDENTITY, body, mask)

    def _get(self, code, offset):
        return struct.unpack_from(code, self._function.config, self.at + offset)[0]

    @property
    def enabled(self):
        """Whether MSI is enabled; then INTx is not driven."""
        return self._get("<H", _CONTROL) & _ENABLE != 0

    @property
    def given(self):
        """The number of messages that the guest has allotted."""
        return 1 << min(self._get("<H", _CONTROL) >> _GIVEN_SHIFT & _LOGARITHM, self._asked)

    def send(self, n):
        """Send message n, or set its pending bit while it is masked. Beyond the allotted ones, the last is sent."""
        if not self.enabled:
            return
        n = min(n, self.given - 1)
        if self._get("<I", _MASK) >> n & 1:
            self._keep(self._get("<I", _PENDING) | 1 << n)
            return
        words = message(self._get("<Q", _ADDRESS), self._get("<H", _DATA) & -self.given | n)
        if words:
            self._function.board.deliver(*words)

    def wrote(self, offset, size):
        """The guest has written to the function's configuration space: send pending messages that are unmasked."""
        if offset < self.at + _END and offset + size > self.at + _CONTROL and self.enabled:
            ready = self._get("<I", _PENDING) & ~self._get("<I", _MASK)
            self._keep(self._get("<I", _PENDING) & ~ready)
            for n in range(self.given):
                if ready >> n & 1:
                    self.send(n)

    def _keep(self, pending):
        struct.pack_into("<I", self._function.config, self.at + _PENDING, pending)
