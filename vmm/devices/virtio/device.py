"""The base of all virtio devices: status, features, queues. A transport gives them registers and interrupts.

Source: virtio 1.2, "Basic Facilities of a Virtio Device", "General Initialization And Device Operation".
"""

from array import array

from micropython import const
from vmx import bind

from vmm.devices.virtio.queue import Queue
from vmm.vtx.x86 import MASK32

# Device status
ACKNOWLEDGE = const(1)
DRIVER = const(2)
DRIVER_OK = const(4)
FEATURES_OK = const(8)
NEEDS_RESET = const(64)
FAILED = const(128)

# Feature bits
INDIRECT_DESC = const(1 << 28)
EVENT_IDX = const(1 << 29)
VERSION_1 = const(1 << 32)

STATUS = const(0)  # word of `words`; the rest is the device's own

_COMMON = const(INDIRECT_DESC | EVENT_IDX | VERSION_1)


def _unwired(_):
    """Output of a device without a transport."""


class Device:
    """One device. A subclass has `kind` (device ID), `own_features`, `sizes` (most entries of each queue), and

    notified(n)    the driver has added buffers to queue n; called once DRIVER_OK is set
    config()       bytes of its configuration space
    configure(offset, data)   the driver has written there; optional
    stopped()      the driver has reset it: drop requests under way
    disable(n)     the driver disables queue n: its buffers are not accessed after this returns
    resume()       all of the guest's devices have been loaded: go on with requests under way, then Device.resume()

    kicks[n]() is notify(n), or the device's faster version of it. The transport sets signal(n), an interrupt for queue
    n, and changed(), one for configuration or status. refused(what) counts errors of the driver.
    """

    own_features = 0
    own_words = 0

    def __init__(self, memory, refused):
        self._memory = memory
        self._refused = refused
        self.features = _COMMON | self.own_features
        self.queues = [Queue(memory, size) for size in self.sizes]
        self.signal = self.changed = _unwired
        self.words = array("I", [0] * (1 + self.own_words))
        self.kicks = [bind(type(self).notify, self, n) for n in range(len(self.sizes))]
        self.accepted = 0
        self.generation = 0  # of the configuration space

    @property
    def status(self):
        """The device status."""
        return self.words[STATUS]

    @status.setter
    def status(self, value):
        self.words[STATUS] = value

    def reset(self):
        """The state after power-on, or after a driver has written status 0."""
        self.status = 0
        self.accepted = 0
        self.stopped()
        for queue in self.queues:
            queue.reset()

    def stopped(self):
        pass

    def resume(self):
        """Notify all queues: a notification may have been deferred when the device was saved."""
        for kick in self.kicks:
            kick()

    def configure(self, offset, data):
        pass

    def write_status(self, value):
        """The driver's writes of the device status. Bits are only added; 0 resets."""
        if value == 0:
            self.reset()
            return
        if value & FEATURES_OK and not self.status & FEATURES_OK and not self._acceptable():
            value &= ~FEATURES_OK
        self.status |= value & 0xFF & ~NEEDS_RESET

    def _acceptable(self):
        return self.accepted & VERSION_1 and not self.accepted & ~self.features

    def accept(self, page, bits):
        """The driver chooses features: the low (page 0) or the high 32 bits. Ignored after FEATURES_OK."""
        if page < 2 and not self.status & FEATURES_OK:
            shift = 32 * page
            self.accepted = self.accepted & ~(MASK32 << shift) | (bits & MASK32) << shift

    def enable(self, n):
        """The driver enables queue n, whose size and addresses are set."""
        if not self.queues[n].enable(self.accepted & EVENT_IDX, self.accepted & INDIRECT_DESC):
            self.fail("queue %d is outside RAM or has a wrong size" % n)

    def disable(self, n):
        """The driver disables queue n: when this returns, no request of it is under way."""
        self.queues[n].reset()

    def notify(self, n):
        """The driver has added buffers to queue n."""
        if n < len(self.queues) and self.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK:
            self.notified(n)

    def done(self, n):
        """Buffers of queue n have been returned: signal an interrupt, if the driver asks for one."""
        if self.queues[n].interrupts():
            self.signal(n)

    def fail(self, why):
        """The driver has broken a rule: the device stops until it is reset, with NEEDS_RESET."""
        self._refused("virtio: " + why)
        if self.status & DRIVER_OK:
            self.status |= NEEDS_RESET
            self.changed()

    def broken(self, n):
        """fail() for queue n, which has been found broken."""
        self.fail("queue %d: %s" % (n, self.queues[n].broken))

    # -- state as data

    def save(self):
        """Plain data."""
        return {
            "status": self.status, "accepted": self.accepted, "generation": self.generation,
            "queues": [queue.save() for queue in self.queues],
        }  # fmt: skip

    def load(self, saved):
        self.reset()
        self.accepted = saved["accepted"]
        self.generation = saved["generation"]
        for queue, state in zip(self.queues, saved["queues"]):
            queue.load(state)
        self.status = saved["status"]
