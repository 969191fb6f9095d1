"""The virtio-pci transport, as a modern device: its structures in one BAR, interrupts by MSI-X or INTx.

Each structure has a page of its own, so that exits by notifications have a key of their own. Source: virtio 1.2,
"Virtio Over PCI Bus".
"""

import struct
from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.virtio.pci_layout import (
    COMMON,
    CONFIG_ACCESS,
    CONFIG_VECTOR,
    DEVICE,
    DEVICES,
    DRIVER_FEATURE,
    DRIVER_SELECT,
    FEATURE,
    FEATURE_SELECT,
    GENERATION,
    ISR,
    NOTIFY,
    NUM_QUEUES,
    QUEUE_ADDRESSES,
    QUEUE_ADDRESSES_END,
    QUEUE_ENABLE,
    QUEUE_NOTIFY_OFF,
    QUEUE_SELECT,
    QUEUE_SIZE,
    QUEUE_VECTOR,
    STATUS,
    VENDOR,
    VENDOR_CAPABILITY,
)
from vmm.pci.function import Function
from vmm.pci.msix import Msix
from vmm.vtx.x86 import MASK32, PAGE

_BAR = const(4)
_BAR_SIZE = const(8 * PAGE)

_NOTIFY_PAGE = const(3)
_MSIX_PAGE = const(4)
_NOTIFY_STEP = const(4)  # bytes of a queue's notification register

_NO_VECTOR = const(0xFFFF)
_QUEUE_ISR = const(1)
_CONFIG_ISR = const(2)

# Base class, sub-class, interface by device ID
_CLASSES = {1: 0x020000, 2: 0x018000, 3: 0x078000, 4: 0x00FF00, 8: 0x010000}


class VirtioPci(Function):
    """A virtio device as a PCI function. deliver: sends messages to local APICs (vmm/pci/msix.py)."""

    def __init__(self, device, deliver):
        kind = device.kind
        Function.__init__(
            self, VENDOR, DEVICES + kind, _CLASSES.get(kind, 0x00FF00), 1, (VENDOR, DEVICES + kind), pin=1
        )
        self.device = device
        device.changed = self._changed
        self._common = Common(self)
        self.pending = array("I", [0])  # the ISR status; INTx is high while it is not 0
        self.bar(_BAR, "memory", _BAR_SIZE, ())
        for kind, page, length, more in (
            (COMMON, 0, QUEUE_ADDRESSES_END, b""),
            (ISR, 1, 1, b""),
            (DEVICE, 2, PAGE, b""),
            (NOTIFY, _NOTIFY_PAGE, _NOTIFY_STEP * len(device.queues), struct.pack("<I", _NOTIFY_STEP)),
        ):
            body = struct.pack("<BBB3xII", 16 + len(more), kind, _BAR, page * PAGE, length) + more
            self.capability(VENDOR_CAPABILITY, body)
        # Source: "PCI configuration access capability"
        mask = b"\x00\x00\xff\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
        body = struct.pack("<BBB3xIII", 20, CONFIG_ACCESS, 0, 0, 0, 0)
        self._access = self.capability(VENDOR_CAPABILITY, body, mask)
        self.msix = Msix(self, _BAR, _MSIX_PAGE * PAGE, len(device.queues) + 1, deliver)
        self.bars[_BAR].pieces = (
            (0, PAGE, self._common),
            (PAGE, PAGE, Isr(self)),
            (2 * PAGE, PAGE, Config(device)),
            (_NOTIFY_PAGE * PAGE, PAGE, Notify(device)),
            (_MSIX_PAGE * PAGE, PAGE, self.msix),
        )
        self.vectors = array("I", [_NO_VECTOR] * len(device.queues))
        self.config_vector = _NO_VECTOR
        vectors = uctypes.addressof(self.vectors)
        device.signal = bind(_signal, vectors, self.msix.enabling, self.msix.quick, bind(VirtioPci._signal, self))

    def was_reset(self):
        self.msix.reset()
        self.reset_device()

    def reset_device(self):
        """Status 0, or the reset line."""
        self.pending[0] = 0
        for n in range(len(self.vectors)):
            self.vectors[n] = _NO_VECTOR
        self.config_vector = _NO_VECTOR
        self.device.reset()
        self.interrupt(0)

    def read(self, offset, size):
        if offset == self._access + 16:
            window, at, length = self._window()
            if window:
                struct.pack_into("<I", self.config, self._access + 16, window.read(at, length))
        return Function.read(self, offset, size)

    def wrote(self, offset, size):
        if self.msix.wrote(offset, size):
            self._drive()
        if offset == self._access + 16:
            window, at, length = self._window()
            if window:
                window.write(at, length, Function.read(self, offset, length))

    def _window(self):
        """(device of the page, offset in it, bytes) that the configuration access capability selects."""
        bar, at, length = struct.unpack_from("<B3xII", self.config, self._access + 4)
        if bar != _BAR or length not in (1, 2, 4) or at % length:
            return None, 0, 0
        for offset, size, device in self.bars[_BAR].pieces:
            if offset <= at < offset + size:
                return device, at - offset, length
        return None, 0, 0

    # -- interrupts

    def _signal(self, n):
        if not self.msix.enabled:
            self._intx(_QUEUE_ISR)
        elif self.vectors[n] != _NO_VECTOR:
            self.msix.raise_(self.vectors[n])

    def _changed(self):
        self.device.generation = self.device.generation + 1 & 0xFF
        if self.msix.enabled:
            if self.config_vector != _NO_VECTOR:
                self.msix.raise_(self.config_vector)
        else:
            self._intx(_CONFIG_ISR)

    def _intx(self, why):
        self.pending[0] |= why
        self.interrupt(1)

    # -- state as data

    def save(self):
        saved = Function.save(self)
        saved["isr"], saved["vectors"], saved["config_vector"] = self.pending[0], list(self.vectors), self.config_vector
        saved["selected"] = self._common.selected()
        saved["msix"] = self.msix.save()
        saved["device"] = self.device.save()
        return saved

    def load(self, saved):
        Function.load(self, saved)
        self.pending[0], self.config_vector = saved["isr"], saved["config_vector"]
        for n, vector in enumerate(saved["vectors"]):
            self.vectors[n] = vector
        self._common.select(saved["selected"])
        self.msix.load(saved["msix"])
        self._drive()
        self.device.load(saved["device"])

    def resume(self):
        self.device.resume()


class Common:
    """The common configuration structure. Registers are accessed by their own size, those of 8 bytes also by halves."""

    def __init__(self, function):
        self._function = function
        self._device = function.device
        self.select((0, 0, 0))

    def selected(self):
        return [self._feature_page, self._driver_page, self._queue]

    def select(self, selected):
        self._feature_page, self._driver_page, self._queue = selected

    def read(self, offset, size):
        device, function = self._device, self._function
        if offset == STATUS:
            return device.status
        if offset == FEATURE:
            return device.features >> 32 * self._feature_page & MASK32 if self._feature_page < 2 else 0
        if offset == DRIVER_FEATURE:
            return device.accepted >> 32 * self._driver_page & MASK32 if self._driver_page < 2 else 0
        if offset == FEATURE_SELECT:
            return self._feature_page
        if offset == DRIVER_SELECT:
            return self._driver_page
        if offset == CONFIG_VECTOR:
            return function.config_vector
        if offset == NUM_QUEUES:
            return len(device.queues)
        if offset == GENERATION:
            return device.generation
        if offset == QUEUE_SELECT:
            return self._queue
        if self._queue >= len(device.queues):
            return 0
        queue = device.queues[self._queue]
        if offset == QUEUE_SIZE:
            return queue.size
        if offset == QUEUE_VECTOR:
            return function.vectors[self._queue]
        if offset == QUEUE_ENABLE:
            return 1 if queue.enabled else 0
        if offset == QUEUE_NOTIFY_OFF:
            return self._queue
        if QUEUE_ADDRESSES <= offset < QUEUE_ADDRESSES_END:
            return queue.addresses[offset - QUEUE_ADDRESSES >> 3] >> 8 * (offset & 7)
        return 0

    def write(self, offset, size, value):
        device, function = self._device, self._function
        if offset == STATUS:
            if value:
                device.write_status(value)
            else:
                function.reset_device()
        elif offset == FEATURE_SELECT:
            self._feature_page = value
        elif offset == DRIVER_SELECT:
            self._driver_page = value
        elif offset == DRIVER_FEATURE:
            device.accept(self._driver_page, value)
        elif offset == CONFIG_VECTOR:
            function.config_vector = self._vector(value)
        elif offset == QUEUE_SELECT:
            self._queue = value
        elif self._queue < len(device.queues):
            self._write_queue(offset, size, value)

    def _write_queue(self, offset, size, value):
        queue = self._device.queues[self._queue]
        if offset == QUEUE_VECTOR:
            self._function.vectors[self._queue] = self._vector(value)
        elif offset == QUEUE_ENABLE:
            if value & 1 and not queue.enabled:
                self._device.enable(self._queue)
        elif queue.enabled:
            return
        elif offset == QUEUE_SIZE:
            queue.size = value
        elif QUEUE_ADDRESSES <= offset < QUEUE_ADDRESSES_END:
            which, at = offset - QUEUE_ADDRESSES >> 3, offset & 7
            if size == 8 and at == 0:
                queue.set_address(which, 0, value)
                queue.set_address(which, 32, value >> 32)
            elif size == 4 and at in (0, 4):
                queue.set_address(which, 8 * at, value)

    def _vector(self, value):
        """The vector that is stored for a written one: _NO_VECTOR if there is no such message."""
        return value if value < self._function.msix.vectors else _NO_VECTOR


class Isr:
    """The ISR status: read(offset, size) clears it, and lowers INTx."""

    def __init__(self, function):
        self.read = bind(_isr, uctypes.addressof(function.pending), function)

    def write(self, offset, size, value):
        pass


class Config:
    """The device's own configuration structure."""

    def __init__(self, device):
        self._device = device

    def read(self, offset, size):
        config = self._device.config()
        return int.from_bytes(config[offset : offset + size], "little")

    def write(self, offset, size, value):
        self._device.configure(offset, value.to_bytes(size, "little"))


class Notify:
    """The notification registers, one for each queue. write(offset, size, value): the offset selects the queue."""

    def __init__(self, device):
        self.write = bind(_notify, device.kicks)

    def read(self, offset, size):
        return 0


# SeaBIOS reads it after each request, although it uses no interrupt: 12,000 ticks in bytecode.
@micropython.viper
def _isr(pending: ptr32, function, offset: int, size: int) -> int:
    value = int(pending[0])
    if offset or value == 0:
        return 0
    pending[0] = 0
    function.interrupt(0)
    return value


@micropython.viper
def _notify(kicks, offset: int, size: int, value: int):
    n = offset >> 2
    if n < int(len(kicks)):
        kicks[n]()


# VirtioPci._signal and Msix.raise_ take 4,000 ticks.
@micropython.viper
def _signal(vectors: int, enabling: int, send, slow, n: int):
    """Interrupt for queue n. enabling: address of Msix's word that is 1 while MSI-X is enabled; slow(n): other
    cases."""
    vector = int(ptr32(vectors)[n])
    if ptr32(enabling)[0] == 0 or vector == _NO_VECTOR or int(send(vector)) == 0:
        slow(n)
