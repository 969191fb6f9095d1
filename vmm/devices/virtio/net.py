"""A network interface by virtio. Source: virtio 1.2, "Network Device".

Two queues, receive and transmit; frames go to a port of a switch (vmm/network). Checksums and TCP segmentation are left
to a receiver that accepts frames without them (VIRTIO_NET_F_GUEST_*), so that they are not done at all between two such
guests. A driver without mergeable receive buffers has to provide buffers for a whole frame with all headers. No control
queue: a driver cannot set an address or a filter.
"""

import struct

import micropython
from micropython import const
from vmx import bind

from vmm.devices.virtio.device import DRIVER_OK, NEEDS_RESET, STATUS, Device
from vmm.devices.virtio.queue import CHAIN, HEAD, NOTHING, WRONG, interrupts, new_chain
from vmm.network.words import MERGES, NEEDS_CSUM, NEEDS_TSO4, NEEDS_TSO6

RX = const(0)  # queues
TX = const(1)

F_CSUM = const(1 << 0)
_GUEST_CSUM = const(1 << 1)
_MTU = const(1 << 3)
F_MAC = const(1 << 5)
_GUEST_TSO4 = const(1 << 7)
_GUEST_TSO6 = const(1 << 8)
F_HOST_TSO4 = const(1 << 11)
F_HOST_TSO6 = const(1 << 12)
_MRG_RXBUF = const(1 << 15)
_STATUS = const(1 << 16)

_LINK_UP = const(1)
_BYTES = const(1500)  # MTU


class Net(Device):
    """mac: 6 bytes. port: the vmm.network.port.Port of plug(), or None."""

    kind = 1
    sizes = (256, 256)
    own_features = (
        F_CSUM
        | _GUEST_CSUM
        | _MTU
        | F_MAC
        | _GUEST_TSO4
        | _GUEST_TSO6
        | F_HOST_TSO4
        | F_HOST_TSO6
        | _MRG_RXBUF
        | _STATUS
    )

    def __init__(self, memory, refused, mac):
        Device.__init__(self, memory, refused)
        self.mac = bytes(mac)
        self.memory = memory
        self.port = None
        self.chains = new_chain(), new_chain()
        self.kicks[RX] = _nothing

    def plug(self, port):
        """Connect the device to a port of a switch."""
        self.port = port
        self.kicks[TX] = bind(_kick, interrupts, port.send, self.words, self.queues[TX].state, port.depth, self)

    def config(self):
        """mac, status, max_virtqueue_pairs (not offered), mtu."""
        return self.mac + struct.pack("<HHH", _LINK_UP, 1, _BYTES)

    def can(self):
        """What the driver can do with received frames: bits of vmm.network.words."""
        accepted = self.accepted
        out = MERGES if accepted & _MRG_RXBUF else 0
        for feature, bit in ((_GUEST_CSUM, NEEDS_CSUM), (_GUEST_TSO4, NEEDS_TSO4), (_GUEST_TSO6, NEEDS_TSO6)):
            if accepted & feature:
                out |= bit
        return out

    def write_status(self, value):
        Device.write_status(self, value)
        if self.port:
            self.port.set_can(self.can() if self.status & DRIVER_OK else 0)

    def stopped(self):
        if self.port:
            self.port.set_can(0)

    def load(self, saved):
        Device.load(self, saved)
        if self.port:
            self.port.set_can(self.can() if self.status & DRIVER_OK else 0)

    def notified(self, n):
        if n == TX and self.port:
            self.kicks[TX]()

    def put_off(self):
        """A handler of another guest is preempted: frames are sent after it has ended."""
        self.port.put_off()

    def go_on(self, found):
        """The rest of a notification, after the fast path has returned `found`. Other guests may run between its
        parts."""
        queue, chain = self.queues[TX], self.chains[TX]
        while found > NOTHING:
            if found == CHAIN:
                data = self.port.take(chain)
                queue.push(chain[HEAD], 0)  # before policies get the frame, since they may save the guest's devices
                self.port.send_slowly(data)
            found = self.port.send()
        if found == WRONG:
            self.broken(TX)

    def broken_receiver(self):
        """fail() for the receive queue, which has been found broken."""
        self.broken(RX)


def _nothing():
    """Notification of new receive buffers: they are used when a frame arrives."""


@micropython.viper
def _kick(interrupts, send, words: ptr32, queue, depth: ptr32, net):
    """Device.notify() of the transmit queue. depth: the scheduler's word, not 0 while a handler is preempted."""
    if words[STATUS] & (DRIVER_OK | NEEDS_RESET) != DRIVER_OK:
        return
    if depth[0]:
        net.put_off()
        return
    found = int(send())
    if found != NOTHING:
        net.go_on(found)
    if int(interrupts(queue)):
        net.signal(TX)
