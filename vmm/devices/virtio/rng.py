"""Entropy: bytes from the monitor's own generator (os.urandom). Source: virtio 1.2, "Entropy Device"."""

import os

import uctypes
from micropython import const

from vmm.devices.virtio.device import Device
from vmm.devices.virtio.queue import CHAIN, HEAD, WRONG, buffers, new_chain

_MOST = const(256)  # bytes of one request


class Rng(Device):
    """Queue 0: buffers to fill."""

    kind = 4
    sizes = (64,)

    def __init__(self, memory, refused):
        Device.__init__(self, memory, refused)
        self._chain = new_chain()

    def config(self):
        return b""

    def notified(self, n):
        queue, chain = self.queues[n], self._chain
        found = queue.pop(chain)
        while found == CHAIN:
            written = 0
            for hpa, size in buffers(chain)[1]:
                size = min(size, _MOST - written)
                if size:
                    uctypes.bytearray_at(hpa, size)[:] = os.urandom(size)
                    written += size
            queue.push(chain[HEAD], written)
            found = queue.pop(chain)
        if found == WRONG:
            self.broken(n)
        self.done(n)
