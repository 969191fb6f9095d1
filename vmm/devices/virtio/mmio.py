"""The virtio-mmio transport, version 2: registers in memory and one interrupt line.

A driver finds it by ACPI (LNRO0005) or by its kernel's command line. Source: virtio 1.2, "Virtio Over MMIO".
"""

from micropython import const

from vmm.vtx.x86 import MASK32

_MAGIC = const(0x74726976)
_VERSION = const(2)
_VENDOR = const(0x594C4350)  # "PCLY"

# Registers
_MAGIC_VALUE = const(0x000)
_VERSION_AT = const(0x004)
_DEVICE_ID = const(0x008)
_VENDOR_ID = const(0x00C)
_DEVICE_FEATURES = const(0x010)
_DEVICE_FEATURES_SEL = const(0x014)
_DRIVER_FEATURES = const(0x020)
_DRIVER_FEATURES_SEL = const(0x024)
_QUEUE_SEL = const(0x030)
_QUEUE_NUM_MAX = const(0x034)
_QUEUE_NUM = const(0x038)
_QUEUE_READY = const(0x044)
_QUEUE_NOTIFY = const(0x050)
_INTERRUPT_STATUS = const(0x060)
_INTERRUPT_ACK = const(0x064)
_STATUS = const(0x070)
_QUEUE_ADDRESSES = const(0x080)  # descriptors, driver area, device area: 16 bytes each, low and high
_QUEUE_ADDRESSES_END = const(0x0B0)
_GENERATION = const(0x0FC)
_CONFIG = const(0x100)

_USED_BUFFER = const(1)
_CONFIG_CHANGE = const(2)


class Mmio:
    """A page of registers for a device. irq(level): its interrupt line."""

    def __init__(self, device, irq):
        self.device = device
        self._irq = irq
        device.signal = self._signal
        device.changed = self._changed
        self._notify = device.notify
        self.reset()

    def reset(self):
        """The reset line."""
        self._feature_page = self._driver_page = self._select = self._pending = 0
        self.device.reset()
        self._irq(0)

    def _signal(self, n):
        self._raise(_USED_BUFFER)

    def _changed(self):
        self.device.generation = self.device.generation + 1 & 0xFF
        self._raise(_CONFIG_CHANGE)

    def _raise(self, why):
        self._pending |= why
        self._irq(1)

    @property
    def _queue(self):
        queues = self.device.queues
        return queues[self._select] if self._select < len(queues) else None

    def read(self, offset, size):
        """A register is 4 bytes; the configuration space takes any size."""
        device = self.device
        if offset >= _CONFIG:
            config = device.config()
            at = offset - _CONFIG
            return int.from_bytes(config[at : at + size], "little")
        if size != 4:
            return 0
        if offset == _INTERRUPT_STATUS:
            return self._pending
        if offset == _STATUS:
            return device.status
        if offset == _MAGIC_VALUE:
            return _MAGIC
        if offset == _VERSION_AT:
            return _VERSION
        if offset == _DEVICE_ID:
            return device.kind
        if offset == _VENDOR_ID:
            return _VENDOR
        if offset == _DEVICE_FEATURES:
            return device.features >> 32 * self._feature_page & MASK32 if self._feature_page < 2 else 0
        if offset == _GENERATION:
            return device.generation
        queue = self._queue
        if queue:
            if offset == _QUEUE_NUM_MAX:
                return queue.most
            if offset == _QUEUE_READY:
                return 1 if queue.enabled else 0
        return 0

    def write(self, offset, size, value):
        device = self.device
        if offset >= _CONFIG:
            device.configure(offset - _CONFIG, value.to_bytes(size, "little"))
            return
        if size != 4:
            return
        if offset == _QUEUE_NOTIFY:
            self._notify(value)
        elif offset == _INTERRUPT_ACK:
            self._pending &= ~value
            if not self._pending:
                self._irq(0)
        elif offset == _STATUS:
            device.write_status(value)
            if value == 0:
                self.reset()
        elif offset == _DEVICE_FEATURES_SEL:
            self._feature_page = value
        elif offset == _DRIVER_FEATURES_SEL:
            self._driver_page = value
        elif offset == _DRIVER_FEATURES:
            device.accept(self._driver_page, value)
        elif offset == _QUEUE_SEL:
            self._select = value
        else:
            self._write_queue(offset, value)

    def _write_queue(self, offset, value):
        queue = self._queue
        if queue is None or queue.enabled and offset != _QUEUE_READY:
            return
        if offset == _QUEUE_NUM:
            queue.size = value
        elif offset == _QUEUE_READY:
            if value & 1 and not queue.enabled:
                self.device.enable(self._select)
            elif not value & 1 and queue.enabled:
                self.device.disable(self._select)
        elif _QUEUE_ADDRESSES <= offset < _QUEUE_ADDRESSES_END:
            which, half = offset - _QUEUE_ADDRESSES >> 4, offset & 15
            if half in (0, 4):
                queue.set_address(which, half * 8, value)

    def save(self):
        """Plain data, including the device's."""
        return {
            "pages": [self._feature_page, self._driver_page], "select": self._select, "pending": self._pending,
            "device": self.device.save(),
        }  # fmt: skip

    def load(self, saved):
        self._feature_page, self._driver_page = saved["pages"]
        self._select, self._pending = saved["select"], saved["pending"]
        self.device.load(saved["device"])
        self._irq(1 if self._pending else 0)

    def resume(self):
        self.device.resume()
