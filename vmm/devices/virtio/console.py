"""A console by virtio: hvc0 of a Linux guest. Source: virtio 1.2, "Console Device".

One port, without size or multiport features. vmm/console.py uses it like a UART: `tx` takes a character or refuses it
(no room), feed() brings input, poll() continues output that had no room.
"""

import struct

import uctypes
from micropython import const

from vmm.devices.virtio.device import DRIVER_OK, NEEDS_RESET, Device
from vmm.devices.virtio.queue import BROKEN, CHAIN, HEAD, IN, MISSHAPEN, OUT, WRONG, buffers, new_chain, take_back

RX = const(0)  # queues: to the driver, and from it
TX = const(1)
_EMERGENCY = const(1 << 2)  # feature: a character by the configuration space, before there are queues
_EMERGENCY_AT = const(8)
_MOST = const(4096)  # characters of a chain; the rest of a longer one is lost, and counted


class Console(Device):
    """tx(byte) -> bool."""

    kind = 3
    sizes = (64, 64)
    own_features = _EMERGENCY

    def __init__(self, memory, refused, tx):
        self._tx = tx
        self._chain = new_chain()
        self._waiting = b""  # output for which there was no room
        Device.__init__(self, memory, refused)

    def config(self):
        """cols and rows (not offered), max_nr_ports, emerg_wr."""
        return struct.pack("<HHII", 0, 0, 1, 0)

    def configure(self, offset, data):
        if offset == _EMERGENCY_AT:
            self._tx(data[0])

    def stopped(self):
        self._waiting = b""

    def notified(self, n):
        if n == TX:
            self.poll()

    # -- output

    def pending(self):
        """The number of characters that wait until `tx` has room."""
        return len(self._waiting)

    def poll(self):
        """Print the driver's output as far as there is room."""
        queue, chain = self.queues[TX], self._chain
        if self.status & (DRIVER_OK | NEEDS_RESET) != DRIVER_OK:
            return
        while self._print():
            found = queue.pop(chain)
            if found != CHAIN:
                if found == WRONG:
                    self.broken(TX)
                break
            if chain[IN]:
                self._misshapen(TX)
                return
            self._waiting = self._gather(buffers(chain)[0])
            queue.push(chain[HEAD], 0)
        self.done(TX)

    def _gather(self, parts):
        data, lost = b"", 0
        for hpa, size in parts:
            room = _MOST - len(data)
            data += uctypes.bytes_at(hpa, min(size, room))
            lost += max(size - room, 0)
        if lost:
            self._refused("virtio-console: more than %d characters at once" % _MOST)
        return data

    def _print(self):
        """Print the waiting characters. Returns whether all of them are printed."""
        data, at = self._waiting, 0
        while at < len(data) and self._tx(data[at]):
            at += 1
        self._waiting = data[at:]
        return at == len(data)

    # -- input

    def feed(self, readchar):
        """Receive from readchar() (-1: nothing more) as far as the driver has buffers. Returns the number of
        characters."""
        if self.status & (DRIVER_OK | NEEDS_RESET) != DRIVER_OK:
            return 0
        queue, chain, count = self.queues[RX], self._chain, 0
        byte = 0
        while byte >= 0:
            found = queue.pop(chain)
            if found != CHAIN:
                if found == WRONG:
                    self.broken(RX)
                break
            if chain[OUT]:
                self._misshapen(RX)
                return count
            written = 0
            for hpa, size in buffers(chain)[1]:
                place = uctypes.bytearray_at(hpa, size)
                at = 0
                while at < size:
                    byte = readchar()
                    if byte < 0:
                        break
                    place[at] = byte
                    at += 1
                written += at
                if byte < 0:
                    break
            if written == 0:
                take_back(queue.state, 1)
                break
            queue.push(chain[HEAD], written)
            count += written
        self.done(RX)
        return count

    def _misshapen(self, n):
        """A buffer of the wrong direction."""
        self.queues[n].state[BROKEN] = MISSHAPEN
        self.broken(n)

    # -- state as data

    def save(self):
        saved = Device.save(self)
        saved["waiting"] = self._waiting
        return saved

    def load(self, saved):
        Device.load(self, saved)
        self._waiting = bytes(saved["waiting"])
