"""fw_cfg: the description of the machine for its firmware: numbers and files behind a selector, read byte by byte or by
DMA.

Integers among the items are little-endian, the directory and DMA's structure are big-endian. Reads beyond an item's
end, and of an unknown item, return 0. Nothing can be written. Source: QEMU, docs/specs/fw_cfg.rst.
"""

import struct

from micropython import const

# Keys
SIGNATURE = const(0)
FEATURES = const(1)
FILE_DIRECTORY = const(0x19)
_FILE_FIRST = const(0x20)

# Offsets from 510h
_SELECTOR = const(0)
_DATA = const(1)
_DMA_HIGH = const(4)
_DMA_LOW = const(8)
PORTS = ((0x510, 2, 0, 2), (0x514, 8, 4, 4))  # (port, how many, offset, widest)

_WITH_DMA = const(3)  # of FEATURES: the traditional interface, and DMA
_NAME = const(56)
_FILES_MOST = const(64)

# Control of DMA's structure {control, length: u32, address: u64}
_ERROR = const(1)
_READ = const(2)
_SKIP = const(4)
_SELECT = const(8)
_WRITE = const(16)

_ZEROS = bytes(4096)
_IDENTITY = 0x51454D5520434647  # what the DMA address reads: "QEMU CFG"


class FwCfg:
    """memory: the guest's RAM; refused(what) counts. Items are bytes."""

    def __init__(self, memory, refused):
        self._memory = memory
        self._refused = refused
        self._items = {}
        self._names = []
        self.clear()
        self.reset()

    def clear(self):
        """Remove all items but the signature and the features."""
        self._items = {SIGNATURE: b"QEMU", FEATURES: struct.pack("<I", _WITH_DMA)}
        self._names = []

    def reset(self):
        self._item = b""
        self._offset = 0
        self._dma = 0

    def put(self, key, data):
        """Add an item by its key, or replace it."""
        self._items[key] = data

    def put_file(self, name, data):
        """Add a file. ValueError if the directory has no room for it, or the name is too long."""
        key = _FILE_FIRST + len(self._names)
        if len(name) >= _NAME or len(self._names) == _FILES_MOST:
            raise ValueError("fw_cfg has no room for the file %s" % name)
        self._names.append((name, key))
        self._items[key] = data

    def files(self):
        """[(name, bytes), ...]."""
        return [(name, self._items[key]) for name, key in self._names]

    def _directory(self):
        entries = [struct.pack(">I", len(self._names))]
        for name, key in self._names:
            entries.append(struct.pack(">IHH56s", len(self._items[key]), key, 0, name.encode()))
        return b"".join(entries)

    def _select(self, key):
        self._item = self._directory() if key == FILE_DIRECTORY else self._items.get(key, b"")
        self._offset = 0

    def read(self, offset, size):
        """The item's next byte, or the signature of the DMA address."""
        if offset == _DATA:
            at = self._offset
            if at >= len(self._item):
                return 0
            self._offset = at + 1
            return self._item[at]
        if offset >= _DMA_HIGH:
            data = _IDENTITY.to_bytes(8, "big")[offset - _DMA_HIGH : offset - _DMA_HIGH + size]
            return int.from_bytes(data, "little")
        return 0

    def write(self, offset, size, value):
        """The key of an item, or half of the address of DMA's structure; the lower half starts the transfer."""
        if offset == _SELECTOR and size == 2:
            self._select(value)
        elif size == 4 and offset in (_DMA_HIGH, _DMA_LOW):
            half = int.from_bytes(value.to_bytes(4, "little"), "big")
            if offset == _DMA_HIGH:
                self._dma = half << 32
            else:
                gpa, self._dma = self._dma | half, 0
                self._transfer(gpa)

    def _transfer(self, gpa):
        """Carry out the structure at gpa. Afterwards bit 0 of its control is 1 where that failed, all others are 0."""
        try:
            control, length, target = struct.unpack(">IIQ", self._memory.read(gpa, 16))
        except ValueError:
            self._refused("fw_cfg structure outside RAM")
            return
        if control & _SELECT:
            self._select(control >> 16)
        failed = 0
        if control & _READ:
            failed = self._copy(target, length)
        elif control & _WRITE:
            failed = _ERROR
        elif control & _SKIP:
            self._offset = min(self._offset + length, len(self._item))
        self._memory.write(gpa, struct.pack(">I", failed))

    def _copy(self, gpa, length):
        """Copy the next `length` bytes to gpa, zeros beyond the item's end; returns the control word."""
        if not self._memory.has(gpa, length):
            self._refused("fw_cfg transfer outside RAM")
            return _ERROR
        data = self._item[self._offset : self._offset + length]
        self._offset += len(data)
        self._memory.write(gpa, data)
        at = len(data)
        while at < length:
            piece = min(len(_ZEROS), length - at)
            self._memory.write(gpa + at, _ZEROS[:piece])
            at += piece
        return 0

    # -- state as data; the items are created at each start

    def save(self):
        """Plain data."""
        return {"item": bytes(self._item), "offset": self._offset, "dma": self._dma}

    def load(self, saved):
        self._item, self._offset, self._dma = saved["item"], saved["offset"], saved["dma"]
