"""A guest's port of a switch: its words (vmm/network/words.py), and the slow path of its frames."""

from array import array

import cpu
import uctypes
from micropython import const

from vmm.devices.virtio.queue import buffers
from vmm.network import move
from vmm.network.receive import receive
from vmm.network.words import (
    CAN,
    DROPPED,
    FIRST,
    FRAME,
    HEADER,
    HEADER_BYTES,
    MEMORY,
    NUMBER,
    PORT_WORDS,
    RECEIVED,
    REFUSED,
    RX,
    RX_CHAIN,
    SENT,
    SIZE,
    SOURCE,
    STATUS_AT,
    TABLE,
    TARGET,
    TX,
    TX_CHAIN,
    UP,
    WATCHED,
)

_RX = const(0)
_TX = const(1)


class Port:
    """One network interface of a guest at one switch.

    For users: dropped, mac, name, received, refused, sent, switch, up.
    """

    def __init__(self, vm, device, name):
        """device: vmm.devices.virtio.net.Net. name: for tables and messages, ending with "net" and a number."""
        self.vm = vm
        self.device = device
        self.name = name
        self.mac = device.mac
        self.switch = None
        self.scheduler = vm.monitor.scheduler
        self.depth = self.scheduler.depth
        self.words = array("I", [0] * PORT_WORDS)
        self.at = uctypes.addressof(self.words)
        self.watchers = []  # each has sees(port, frame, header, out) -> the frame, another, or None to drop it
        self._waits = False
        rx, tx = device.queues
        self._put(STATUS_AT, uctypes.addressof(device.words))
        self._put(RX, uctypes.addressof(rx.state))
        self._put(TX, uctypes.addressof(tx.state))
        self._put(MEMORY, uctypes.addressof(device.memory.table))
        self._put(RX_CHAIN, uctypes.addressof(device.chains[_RX]))
        self._put(TX_CHAIN, uctypes.addressof(device.chains[_TX]))
        self._put(FIRST, vm.vcpus[0].frame_hpa)
        if len(vm.vcpus) == 1:
            self._put(FRAME, vm.vcpus[0].frame_hpa)
        self.words[SOURCE] = self.words[TARGET] = TABLE
        self.send = _unplugged

    def _put(self, word, value):
        self.words[word] = value & 0xFFFFFFFF
        self.words[word + 1] = value >> 32

    def _count(self, word):
        return self.words[word], self.words[word + 1] | self.words[word + 2] << 32

    @property
    def up(self):
        """Whether the port receives frames: its guest is on."""
        return bool(self.words[UP])

    @property
    def sent(self):
        """(frames, bytes) that its guest has sent; frames modulo 2**32."""
        return self._count(SENT)

    @property
    def received(self):
        """(frames, bytes) that its guest has received; frames modulo 2**32."""
        return self._count(RECEIVED)

    @property
    def dropped(self):
        """Frames for which its guest had no buffers, or that a policy dropped."""
        return self.words[DROPPED]

    @property
    def refused(self):
        """Invalid frames that its guest has sent: too short, too long, an invalid offload."""
        return self.words[REFUSED]

    def plug(self, switch, number):
        """For Switch.join()."""
        self.switch = switch
        self.words[NUMBER] = number
        self.send = move.sender(self.at, *switch.ways)
        self.device.plug(self)

    def power(self, on):
        """Its guest has been started, or switched off."""
        self.words[UP] = 1 if on else 0
        if self.switch.uplink:
            self.switch.uplink.power(self, on)
        if not on:
            self._waits = False
            self.switch.forget(self)

    def set_can(self, bits):
        self.words[CAN] = bits

    def watch(self, watcher):
        """From now on the watcher gets all frames of this port."""
        self.watchers = self.watchers + [watcher]
        self.words[WATCHED] = 1

    def unwatch(self, watcher):
        self.watchers = [other for other in self.watchers if other is not watcher]
        self.words[WATCHED] = 1 if self.watchers else 0

    def put_off(self):
        self._waits = True
        self.scheduler.defer()

    def settle(self):
        """Send the frames of a notification that put_off() has deferred."""
        if self._waits:
            self._waits = False
            self.scheduler.on_behalf(self.vm, self.device.kicks[_TX])

    # -- the slow path

    def take(self, chain):
        """The bytes of a frame that send() has left to bytecode: header and frame. chain: after pop()."""
        parts, _ = buffers(chain)
        data = bytearray(self.words[SIZE] + HEADER_BYTES)
        at = 0
        for hpa, size in parts:
            data[at : at + size] = uctypes.bytearray_at(hpa, size)
            at += size
        return data

    def send_slowly(self, data):
        """Send the result of take()."""
        cpu.hold(1)
        try:
            if move.check(self.at, uctypes.addressof(data)) < 0:
                self.words[REFUSED] += 1
                return
            header = bytearray(uctypes.bytearray_at(self.at + 4 * HEADER, HEADER_BYTES))
            frame = data[HEADER_BYTES:]
            move.add(self.at, SENT, len(frame))
            frame = self._seen(frame, header, True)
            if frame is not None:
                self.switch.forward(self, frame, header)
        finally:
            cpu.hold(-1)

    def _seen(self, frame, header, out):
        """Pass a frame through the watchers. Returns the frame, or None if one has dropped it."""
        for watcher in self.watchers:
            frame = watcher.sees(self, frame, header, out)
            if frame is None:
                self.words[DROPPED] += 1
                return None
        return frame

    def deliver(self, frame, header, needs):
        """Deliver a frame to its guest. needs: the offloads left; vmm/network/offload.py does those that the guest
        cannot."""
        if not self.up:
            return
        frame = self._seen(frame, header, False)
        if frame is None:
            return
        if needs & ~self.words[CAN]:
            from vmm.network import offload

            for each, rest in offload.finish(frame, header, self.words[CAN]):
                self._put_in(each, rest)
        else:
            self._put_in(frame, header)
        move.tell(self.switch.at, self.words[NUMBER], self.switch.signals, self.switch.soon)

    def _put_in(self, frame, header):
        at = uctypes.addressof(frame)
        parts = array("I", [at & 0xFFFFFFFF, at >> 32, len(frame)])
        found = receive(self.at, uctypes.addressof(parts), 0, len(frame), uctypes.addressof(header), self.switch.hold)
        if found < 0:
            self.device.broken_receiver()

    def __repr__(self):
        return "%-16s %s %s, sent %d (%d bytes), received %d (%d bytes), dropped %d" % (
            (self.name, text(self.mac), "up" if self.up else "down") + self.sent + self.received + (self.dropped,)
        )


def _unplugged():
    """send() of a port without a switch."""
    return 0


def text(mac):
    """The address `mac` as text, such as '52:54:00:12:34:56'."""
    return ":".join(["%02x" % byte for byte in mac])
