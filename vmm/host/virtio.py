"""The base of drivers for the host's virtio devices on PCI, such as QEMU's.

Modern devices (virtio 1.0 and later) with split rings, and their one interrupt line. Source: virtio 1.2, "Virtio Over
PCI Bus", "Split Virtqueues".
"""

from array import array

import cpu
import micropython
from micropython import const

from vmm.devices.pci_header import BUS_MASTER, CAPABILITIES, MEMORY_SPACE
from vmm.devices.virtio.device import ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, VERSION_1
from vmm.devices.virtio.pci_layout import (
    COMMON,
    DEVICE,
    DEVICES,
    DRIVER_FEATURE,
    DRIVER_SELECT,
    FEATURE,
    FEATURE_SELECT,
    ISR,
    NOTIFY,
    QUEUE_ADDRESSES,
    QUEUE_ENABLE,
    QUEUE_NOTIFY_OFF,
    QUEUE_SELECT,
    QUEUE_SIZE,
    STATUS,
    VENDOR,
    VENDOR_CAPABILITY,
)

_TRANSITIONAL = {0x1000: 1, 0x1001: 2}

_STRUCTURES = const(4)


# Words of a ring
DESC = const(0)  # hpa, low and high; likewise those that follow
AVAIL = const(2)
USED = const(4)
BELL = const(6)  # hpa of its notification register
NUMBER = const(8)
SIZE = const(9)
ADDED = const(10)  # index of the available ring, 16 bits
SEEN = const(11)  # index of the used ring up to which it has been read, 16 bits
RING_WORDS = const(12)


def kind(function):
    """The virtio device ID of a PCI function (1 network, 2 block), or 0."""
    if function.vendor != VENDOR:
        return 0
    return _TRANSITIONAL.get(function.device, max(function.device - DEVICES, 0))


class Virtio:
    """One device, after a reset. function: of vmm.host.pci; take(size): host memory. ValueError if it is not modern."""

    def __init__(self, function, take):
        self._take = take
        self.line = function.line
        self._at = [0] * (_STRUCTURES + 1)
        self._step = 0
        function.enable(MEMORY_SPACE | BUS_MASTER)
        self._find(function)
        if not all(self._at[1:]):
            raise ValueError("it is a virtio device without the modern structures")
        self.common, self.isr, self.device = self._at[COMMON], self._at[ISR], self._at[DEVICE]
        self.reset()

    def reset(self):
        """Reset the device, which ends its DMA, and begin its initialization. ValueError if it stays in reset."""
        write8(self.common + STATUS, 0)
        end = cpu.rdtsc() + cpu.tsc_hz
        while read8(self.common + STATUS):
            if cpu.rdtsc() > end:
                raise ValueError("it does not come out of reset")
        self._status = 0
        self._add(ACKNOWLEDGE)
        self._add(DRIVER)

    def _find(self, function):
        at = function.read(CAPABILITIES) & 0xFC
        for _ in range(48):
            if not at:
                return
            word = function.read(at)
            what = word >> 24
            if word & 0xFF == VENDOR_CAPABILITY and 0 < what <= _STRUCTURES and not self._at[what]:
                self._at[what] = function.memory(function.read(at + 4) & 0xFF) + function.read(at + 8)
                if what == NOTIFY:
                    self._step = function.read(at + 16)
            at = word >> 8 & 0xFC

    def _add(self, bits):
        self._status |= bits
        write8(self.common + STATUS, self._status)

    def negotiate(self, wanted):
        """Negotiate features. Returns those among `wanted` that the device has. ValueError if it refuses them."""
        common, offered = self.common, 0
        for page in (0, 1):
            write32(common + FEATURE_SELECT, page)
            offered |= read32(common + FEATURE) << 32 * page
        taken = offered & (wanted | VERSION_1)
        for page in (0, 1):
            write32(common + DRIVER_SELECT, page)
            write32(common + DRIVER_FEATURE, taken >> 32 * page & 0xFFFFFFFF)
        self._add(FEATURES_OK)
        if not taken & VERSION_1 or not read8(common + STATUS) & FEATURES_OK:
            self._add(FAILED)
            raise ValueError("a virtio device does not take the monitor's features")
        return taken

    def ring(self, number, most):
        """Create queue `number`, of `most` entries or as many as the device has: an array of RING_WORDS. ValueError."""
        common = self.common
        write16(common + QUEUE_SELECT, number)
        size = min(read16(common + QUEUE_SIZE), most)
        if not size:
            raise ValueError("a virtio device has no queue %d" % number)
        hpa = self._take(_bytes(size))
        avail = hpa + 16 * size
        used = avail + 6 + 2 * size + 63 & ~63
        bell = self._at[NOTIFY] + read16(common + QUEUE_NOTIFY_OFF) * self._step
        words = array("I", [0] * RING_WORDS)
        for i, value in enumerate((hpa, avail, used, bell)):
            words[2 * i], words[2 * i + 1] = value & 0xFFFFFFFF, value >> 32
        words[NUMBER], words[SIZE] = number, size
        self.enable(words)
        return words

    def enable(self, words):
        """Enable a queue of ring(), empty. To be called again after reset() and negotiate()."""
        common = self.common
        cpu.zero(words[DESC] | words[DESC + 1] << 32, _bytes(words[SIZE]))
        words[ADDED] = words[SEEN] = 0
        write16(common + QUEUE_SELECT, words[NUMBER])
        write16(common + QUEUE_SIZE, words[SIZE])
        for i in range(6):  # descriptors, available ring, used ring
            write32(common + QUEUE_ADDRESSES + 4 * i, words[DESC + i])
        write16(common + QUEUE_ENABLE, 1)

    def start(self):
        self._add(DRIVER_OK)

    def caused(self):
        """Whether the device has interrupted since the last call. Lowers its interrupt line."""
        return read8(self.isr)

    def stop(self):
        write8(self.common + STATUS, 0)


def _bytes(size):
    """Bytes of memory for a ring of `size` entries."""
    return 16 * size + 8 * size + 4096 + 2 * size


@micropython.viper
def read8(at: int) -> int:
    return int(ptr8(at)[0])


@micropython.viper
def read16(at: int) -> int:
    return int(ptr16(at)[0])


@micropython.viper
def read32(at: int) -> uint:
    return uint(ptr32(at)[0])


@micropython.viper
def write8(at: int, value: int):
    ptr8(at)[0] = value


@micropython.viper
def write16(at: int, value: int):
    ptr16(at)[0] = value


@micropython.viper
def write32(at: int, value: int):
    ptr32(at)[0] = value


@micropython.viper
def describe(ring: ptr32, n: int, hpa: int, size: int, flags: int):
    """Write descriptor n. With DESC_NEXT the chain continues at the next one, at 0 after the last."""
    d = ptr32((int(ring[DESC]) | int(ring[DESC + 1]) << 32) + (n << 4))
    d[0] = hpa & 0xFFFFFFFF
    d[1] = hpa >> 32
    d[2] = size
    d[3] = flags | (n + 1 & int(ring[SIZE]) - 1) << 16


@micropython.viper
def add(ring: ptr32, head: int):
    """Make a chain available. The device may not notice it before notify()."""
    avail = ptr16(int(ring[AVAIL]) | int(ring[AVAIL + 1]) << 32)
    added = int(ring[ADDED])
    avail[2 + (added & int(ring[SIZE]) - 1)] = head
    added = added + 1 & 0xFFFF
    ring[ADDED] = added
    avail[1] = added


@micropython.viper
def notify(ring: ptr32):
    """Notify the device, unless it has disabled notifications."""
    used = ptr16(int(ring[USED]) | int(ring[USED + 1]) << 32)
    if int(used[0]) & 1 == 0:
        ptr16(int(ring[BELL]) | int(ring[BELL + 1]) << 32)[0] = int(ring[NUMBER])


@micropython.viper
def used(ring: ptr32, out: ptr32) -> int:
    """The next used chain: 1, with its head and length in out[0] and out[1]; 0: there is none."""
    base = int(ring[USED]) | int(ring[USED + 1]) << 32
    seen = int(ring[SEEN])
    if int(ptr16(base)[1]) == seen:
        return 0
    entry = ptr32(base + 4 + ((seen & int(ring[SIZE]) - 1) << 3))
    out[0] = entry[0]
    out[1] = entry[1]
    ring[SEEN] = seen + 1 & 0xFFFF
    return 1
