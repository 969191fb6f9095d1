"""One PCI function: its configuration space, and the places of its BARs on the guest's buses.

Source: PCI Local Bus Specification 3.0, "Configuration Space"; "Address Maps".
"""

import struct

from micropython import const

from vmm.bus import Overlap
from vmm.devices.pci_header import (
    BARS,
    CACHE_LINE,
    CAPABILITIES,
    COMMAND,
    INTERRUPT_LINE,
    INTERRUPT_PIN,
    INTX_DISABLE,
    IO_SPACE,
    MEMORY_SPACE,
    ROM,
    STATUS,
    SUBSYSTEM,
)
from vmm.pci.msi import Msi

_FIRST_CAPABILITY = const(0x40)
_SIZE = const(256)
_EXPRESS_SIZE = const(4096)
_EXTENDED = const(0x100)  # the first extended capability
_BARS_END = const(0x28)
_ROM_END = const(0x34)

_EXPRESS = const(0x10)
# Capabilities: version 2, an endpoint of the root complex. Device capabilities: role-based error reporting. Device
# control: the value after a reset.
_EXPRESS_BODY = struct.pack("<HIH50x", 0x0092, 0x8000, 0x2810)
_EXPRESS_WRITABLE = struct.pack("<HIH", 0, 0, 0x78FF)

# In a base address register
_IO = const(1)
_PREFETCHABLE = const(8)
_ROM_ENABLE = const(1)
_ROM_LEAST = const(0x800)

_COMMAND_WRITABLE = const(0x0547)  # with parity, SERR# and INTx disable
_INTERRUPT_STATUS = const(0x08)
_CAPABILITIES_LIST = const(0x10)


class Bar:
    """kind: "io" or "memory"; size: a power of two; pieces: [(offset, bytes, device)], the devices within it.

    moved(at) is called after the BAR has got an address, and with None before it loses it; ValueError refuses it.
    """

    def __init__(self, kind, size, pieces, moved=None):
        self.kind = kind
        self.size = size
        self.pieces = pieces
        self.moved = moved
        self.at = None  # address on the bus; None: the BAR is off


class Function:
    """A function with a header of type 0. irq(level): its INTx, set by the board; else None."""

    def __init__(self, vendor, device, klass, revision=0, subsystem=(0, 0), pin=0):
        """klass: base class, subclass, programming interface as 24 bits. pin: 1 to 4 for INTA to INTD, 0: none."""
        self.config = struct.pack("<HHHHIII", vendor, device, 0, 0, klass << 8 | revision, 0, 0)
        self.config = bytearray(self.config + bytes(_SIZE - len(self.config)))
        self._writable = bytearray(_SIZE)
        struct.pack_into("<HH", self.config, SUBSYSTEM, subsystem[0], subsystem[1])
        struct.pack_into("<H", self._writable, COMMAND, _COMMAND_WRITABLE)
        self._writable[CACHE_LINE] = self._writable[INTERRUPT_LINE] = 0xFF
        self.config[INTERRUPT_PIN] = pin
        self.bars = [None] * 6
        self.rom = None
        self.irq = None
        self.board = None  # vmm.pci.host.Host
        self.address = None  # device << 3 | function
        self.msi = None
        self.msix = None  # vmm.pci.msix.Msix, set by a subclass
        self._level = 0
        self._extended = _EXTENDED  # offset of the next extended capability; below, of the last one
        self._last_extended = 0
        self._next = _FIRST_CAPABILITY
        self._last = CAPABILITIES
        self._at_reset = None

    def bar(self, n, kind, size, pieces, prefetchable=False, moved=None):
        """Declare BAR n: 32-bit memory, or I/O. moved: of Bar. ValueError for the size."""
        self.bars[n] = Bar(kind, size, pieces, moved)
        least = 4 if kind == "io" else 16
        if size & (size - 1) or size < least:
            raise ValueError("a BAR of %d bytes" % size)
        struct.pack_into("<I", self._writable, BARS + 4 * n, -size & 0xFFFFFFFF)
        self.config[BARS + 4 * n] = _IO if kind == "io" else _PREFETCHABLE if prefetchable else 0

    def rom_bar(self, size, pieces, moved=None):
        """Declare the expansion ROM's base address register. ValueError for the size."""
        if size & (size - 1) or size < _ROM_LEAST:
            raise ValueError("a ROM of %d bytes" % size)
        self.rom = Bar("memory", size, pieces, moved)
        struct.pack_into("<I", self._writable, ROM, -size & 0xFFFFFFFF | _ROM_ENABLE)

    def capability(self, identity, body, writable=b""):
        """Add a capability. body: the bytes after its first two; writable: mask of body. Returns its offset."""
        at = self._next
        self.config[self._last] = at
        self._last = at + 1
        self.config[at] = identity
        self.config[at + 2 : at + 2 + len(body)] = body
        self._writable[at + 2 : at + 2 + len(writable)] = writable
        self._next = at + 2 + len(body) + 3 & ~3
        self.config[STATUS] |= _CAPABILITIES_LIST
        return at

    def messages(self, count=1):
        """Declare MSI with `count` messages: if it is enabled, interrupt() sends message 0, self.msi.send(n) any."""
        self.msi = Msi(self, count)

    def express(self):
        """Make it a PCI Express device: 4 KiB of configuration space, which guests access in memory
        (vmm/pci/ecam.py)."""
        more = bytes(_EXPRESS_SIZE - _SIZE)
        self.config += more
        self._writable += more
        self.capability(_EXPRESS, _EXPRESS_BODY, _EXPRESS_WRITABLE)

    def extended(self, identity, version, body, writable=b""):
        """Add an extended capability to a PCI Express device. body: the bytes after its first four; writable: mask of
        body. Returns its offset. ValueError if there is no room."""
        at = self._extended
        end = at + 4 + len(body)
        if end > len(self.config):
            raise ValueError("no room for an extended capability of %d bytes" % len(body))
        if self._last_extended:
            before = struct.unpack_from("<I", self.config, self._last_extended)[0]
            struct.pack_into("<I", self.config, self._last_extended, before | at << 20)
        struct.pack_into("<I", self.config, at, version << 16 | identity)
        self.config[at + 4 : end] = body
        self._writable[at + 4 : at + 4 + len(writable)] = writable
        self._last_extended = at
        self._extended = end + 3 & ~3
        return at

    def reset(self):
        """The state after power-on: BARs are off, nothing is enabled."""
        if self._at_reset is None:
            self._at_reset = bytes(self.config)
        self._unmap()
        self.config[:] = self._at_reset
        self.interrupt(0)
        self.was_reset()

    def was_reset(self):
        """Hook for subclasses: reset() has been called."""

    def wrote(self, offset, size):
        """Hook for subclasses: the guest has written to these bytes of the configuration space."""

    @property
    def command(self):
        return struct.unpack_from("<H", self.config, COMMAND)[0]

    def read(self, offset, size):
        """Configuration space."""
        return int.from_bytes(self.config[offset : offset + size], "little")

    def write(self, offset, size, value):
        config, writable = self.config, self._writable
        for i in range(offset, offset + size):
            mask = writable[i]
            config[i] = config[i] & ~mask | value & mask
            value >>= 8
        end = offset + size
        if offset < BARS and end > COMMAND or offset < _BARS_END and end > BARS or offset < _ROM_END and end > ROM:
            self._place()
            self._drive()
        if self.msi:
            self.msi.wrote(offset, size)
            self._drive()
        self.wrote(offset, size)

    # -- interrupts

    @property
    def level(self):
        """The level of INTx that the device drives."""
        return self._level

    def interrupt(self, level):
        """The device drives INTx. With MSI enabled, its rise sends a message."""
        if self.msi and level and not self._level:
            self.msi.send(0)
        self._level = level
        self.config[STATUS] = self.config[STATUS] & ~_INTERRUPT_STATUS | (_INTERRUPT_STATUS if level else 0)
        self._drive()

    def _drive(self):
        if self.irq:
            off = self.command & INTX_DISABLE or self.msi and self.msi.enabled or self.msix and self.msix.enabled
            self.irq(1 if self._level and not off else 0)

    # -- BARs

    def base(self, n):
        """The address in BAR n."""
        return struct.unpack_from("<I", self.config, BARS + 4 * n)[0] & ~0xF

    def places(self):
        """Yield (Bar, offset of its register) of all BARs, the ROM's last."""
        for n, bar in enumerate(self.bars):
            if bar is not None:
                yield bar, BARS + 4 * n
        if self.rom is not None:
            yield self.rom, ROM

    def _place(self):
        """Move the BARs to the addresses that the guest has written."""
        command = self.command
        moved = []
        for bar, register in self.places():
            on = command & (IO_SPACE if bar.kind == "io" else MEMORY_SPACE)
            base = struct.unpack_from("<I", self.config, register)[0]
            if register == ROM and not base & _ROM_ENABLE:
                on = 0
            base = base & -bar.size & 0xFFFFFFFF
            # Writing all ones reads back the size; 0 is no address either.
            at = base if on and base and base + bar.size < 1 << 32 else None
            if at != bar.at:
                moved.append((bar, at))
        if moved:  # the bus is rearranged once, not for each piece of each BAR
            self.board.together(lambda: self._move(moved))

    def _move(self, moved):
        for bar, _ in moved:
            self._take_off(bar)
        for bar, at in moved:
            if at is not None:
                self._put_on(bar, at)

    def _unmap(self):
        for bar, _ in self.places():
            self._take_off(bar)

    def _take_off(self, bar):
        if bar.at is not None:
            if bar.moved:
                bar.moved(None)
            bar.at = None
            for _, _, device in bar.pieces:
                self.board.release(bar.kind, device)

    def _put_on(self, bar, at):
        done = []
        try:
            for offset, size, device in bar.pieces:
                self.board.claim(bar.kind, at + offset, size, device)
                done.append(device)
            if bar.moved:
                bar.moved(at)
        except (Overlap, ValueError) as error:
            for device in done:
                self.board.release(bar.kind, device)
            self.board.overlaps(self, error)
            return
        bar.at = at

    # -- state as data

    def save(self):
        """Plain data."""
        return {"config": bytes(self.config), "level": self._level}

    def load(self, saved):
        self.reset()
        self.config[:] = saved["config"]
        self._level = saved["level"]  # no rise: messages that were sent are in the local APICs' state
        self._place()
        self._drive()

    def resume(self):
        """Hook for subclasses: all of the guest has been loaded, requests under way can go on."""
