"""A virtio network card of the host, such as QEMU's. Source: virtio 1.2, "Network Device".

It has the methods of the e1000 (vmm/host/e1000.py), and a buffer of 2 KiB in the monitor's memory for each descriptor.
virtio's header stands before each frame, so that the offloads of a guest's driver are passed on unchanged.

_take() and _peek() contain the same reading of an entry, as those of the e1000: a common function would be one call
more a frame.
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.virtio.net import F_CSUM, F_HOST_TSO4, F_HOST_TSO6, F_MAC
from vmm.devices.virtio.queue import CHAIN, DESC_NEXT, DESC_WRITE, NOTHING
from vmm.host import virtio
from vmm.host.buffers import BUFFER, COUNT, fill, fill_sum
from vmm.host.virtio import ADDED, AVAIL, SIZE, USED, add, describe, notify, read8, used
from vmm.network.words import CSUM, ETHERNET, HEADER_BYTES, NEEDS_CSUM, NEEDS_TSO4, NEEDS_TSO6

# Words of a card
_RX = const(0)  # address of the receive ring's words, low and high; likewise those that follow
_TX = const(2)
_BUFFERS = const(4)  # hpa of the receive ring's buffers; those of the transmit ring follow
_ISR = const(6)
_TAKEN = const(8)  # frames in use: the last so many entries read from the used ring
_FREE = const(9)  # next transmit descriptor to fill
_SENT = const(10)  # oldest transmit descriptor that may not have been sent yet
_TOLD = const(11)  # ADDED when the card was last notified
_LINE_MASKED = const(12)  # the card has interrupted: its line is masked until it is answered
_OUT = const(13)  # two words for used()
_SUMS = const(15)  # the device computes checksums
_LENGTHS = const(16)  # of the chains that begin at each transmit descriptor; bit 31: it has been used
_CARD_WORDS = const(_LENGTHS + COUNT)
_BACK = const(1 << 31)
_BYTES = const(2 * COUNT * BUFFER)
_SILENT = const(1)  # flags of the available ring: no interrupts


class VirtioNet:
    """function: of vmm.host.pci; take(size): host memory. mac, can, put() and so on: as E1000. ValueError if it does
    not work."""

    def __init__(self, function, take):
        self._device = device = virtio.Virtio(function, take)
        features = device.negotiate(F_CSUM | F_MAC | F_HOST_TSO4 | F_HOST_TSO6)
        self.line = device.line
        self.mac = bytes([read8(device.device + i) for i in range(6)]) if features & F_MAC else b"\x02P\0\0\0\1"
        self.can = NEEDS_CSUM  # without F_CSUM, as in QEMU's user-mode network, _put() computes checksums
        for feature, bit in ((F_HOST_TSO4, NEEDS_TSO4), (F_HOST_TSO6, NEEDS_TSO6)):
            if features & feature and features & F_CSUM:
                self.can |= bit
        self._rings = [device.ring(n, COUNT) for n in (0, 1)]
        if min([ring[SIZE] for ring in self._rings]) < COUNT:
            raise ValueError("its queues are too short")
        hpa = take(_BYTES)
        self.words = array("I", [0] * _CARD_WORDS)
        self.words[_SUMS] = 1 if features & F_CSUM else 0
        rx, tx = [uctypes.addressof(ring) for ring in self._rings]
        for word, value in ((_RX, rx), (_TX, tx), (_BUFFERS, hpa), (_ISR, device.isr)):
            self.words[word], self.words[word + 1] = value & 0xFFFFFFFF, value >> 32
        for n in range(COUNT):
            describe(rx, n, hpa + n * BUFFER, BUFFER, DESC_WRITE)
            add(rx, n)
        virtio.write16(_address(self._rings[1], AVAIL), _SILENT)
        device.start()
        notify(rx)
        at = uctypes.addressof(self.words)
        self.put = bind(_put, at)
        self.take = bind(_take, at)
        self.peek = bind(_peek, at)
        self.keep = bind(_keep, at)
        self.tell = bind(_tell, at)
        self.listen = bind(_listen, at)
        self.answered = bind(_answered, at)
        self.has = bind(_has, at)
        self.has_frame = bind(_has_frame, at)

    def close(self):
        self._device.stop()


def _address(words, at):
    return words[at] | words[at + 1] << 32


@micropython.viper
def _has_frame(card: int) -> int:
    c = ptr32(card)
    r = ptr32(int(c[_RX]) | int(c[_RX + 1]) << 32)
    there = int(ptr16(int(r[USED]) | int(r[USED + 1]) << 32)[1])
    return 0 if there == int(r[virtio.SEEN]) else 1


@micropython.viper
def _has(card: int) -> int:
    c = ptr32(card)
    if int(ptr8(int(c[_ISR]) | int(c[_ISR + 1]) << 32)[0]):
        c[_LINE_MASKED] = 1
    return 1 if c[_LINE_MASKED] else int(_has_frame(card))


@micropython.viper
def _tell(card: int):
    c = ptr32(card)
    _quiet(card, _SILENT)
    tx = int(c[_TX]) | int(c[_TX + 1]) << 32
    if c[_TOLD] != ptr32(tx)[ADDED]:
        c[_TOLD] = ptr32(tx)[ADDED]
        notify(tx)


@micropython.viper
def _quiet(card: int, flags: int):
    c = ptr32(card)
    r = ptr32(int(c[_RX]) | int(c[_RX + 1]) << 32)
    ptr16(int(r[AVAIL]) | int(r[AVAIL + 1]) << 32)[0] = flags


@micropython.viper
def _listen(card: int):
    _quiet(card, 0)


@micropython.viper
def _answered(card: int):
    ptr32(card)[_LINE_MASKED] = 0


@micropython.viper
def _take(card: int, part: ptr32) -> int:
    c = ptr32(card)
    rx = int(c[_RX]) | int(c[_RX + 1]) << 32
    count = int(c[_TAKEN])
    if count:
        c[_TAKEN] = 0
        r = ptr32(rx)
        entries = (int(r[USED]) | int(r[USED + 1]) << 32) + 4
        while count:
            add(rx, int(ptr32(entries + ((int(r[virtio.SEEN]) - count & int(r[SIZE]) - 1) << 3))[0]))
            count -= 1
        notify(rx)
    while int(used(rx, card + 4 * _OUT)):
        n = int(c[_OUT])
        size = int(c[_OUT + 1]) - HEADER_BYTES
        if n < COUNT and size >= ETHERNET and size <= BUFFER - HEADER_BYTES:
            here = (int(c[_BUFFERS]) | int(c[_BUFFERS + 1]) << 32) + n * BUFFER + HEADER_BYTES
            part[0] = here & 0xFFFFFFFF
            part[1] = here >> 32
            part[2] = size
            c[_TAKEN] = 1
            return size
        if n < COUNT:
            add(rx, n)
    return 0


@micropython.viper
def _peek(card: int, part: ptr32, ahead: int) -> int:
    c = ptr32(card)
    r = ptr32(int(c[_RX]) | int(c[_RX + 1]) << 32)
    base = int(r[USED]) | int(r[USED + 1]) << 32
    seen = int(r[virtio.SEEN])
    if (int(ptr16(base)[1]) - seen & 0xFFFF) <= ahead:
        return 0
    entry = ptr32(base + 4 + ((seen + ahead & int(r[SIZE]) - 1) << 3))
    n = int(entry[0])
    size = int(entry[1]) - HEADER_BYTES
    if n >= COUNT or size < ETHERNET or size > BUFFER - HEADER_BYTES:
        return 0
    here = (int(c[_BUFFERS]) | int(c[_BUFFERS + 1]) << 32) + n * BUFFER + HEADER_BYTES
    part[0] = here & 0xFFFFFFFF
    part[1] = here >> 32
    part[2] = size
    return size


@micropython.viper
def _keep(card: int, count: int):
    c = ptr32(card)
    r = ptr32(int(c[_RX]) | int(c[_RX + 1]) << 32)
    r[virtio.SEEN] = int(r[virtio.SEEN]) + count & 0xFFFF
    c[_TAKEN] = int(c[_TAKEN]) + count


@micropython.viper
def _reclaim(card: int) -> int:
    """Free the descriptors of frames that have been sent. Returns the number of free ones."""
    c = ptr32(card)
    tx = int(c[_TX]) | int(c[_TX + 1]) << 32
    while int(used(tx, card + 4 * _OUT)):
        n = int(c[_OUT])
        if n < COUNT:
            c[_LENGTHS + n] = int(c[_LENGTHS + n]) | _BACK
    sent = int(c[_SENT])
    while int(c[_LENGTHS + sent]) & _BACK:
        size = int(c[_LENGTHS + sent]) & 0xFFFF
        c[_LENGTHS + sent] = 0
        sent = sent + size & COUNT - 1
    c[_SENT] = sent
    return sent - int(c[_FREE]) - 1 & COUNT - 1


@micropython.viper
def _put(card: int, parts: int, skip: int, size: int, header: int) -> int:
    c = ptr32(card)
    left = size + HEADER_BYTES
    count = (left + BUFFER - 1) // BUFFER
    if int(_reclaim(card)) < count:
        return NOTHING
    tx = int(c[_TX]) | int(c[_TX + 1]) << 32
    first = int(c[_FREE])
    buffers = (int(c[_BUFFERS]) | int(c[_BUFFERS + 1]) << 32) + COUNT * BUFFER
    cpu.copy(buffers + first * BUFFER, header, HEADER_BYTES)
    fill(buffers, first, HEADER_BYTES, parts, skip, size)
    h = ptr32(buffers + first * BUFFER)
    if int(h[0]) & CSUM and c[_SUMS] == 0:  # the frame is in one buffer: without F_CSUM there is no segmentation
        fill_sum(buffers + first * BUFFER + HEADER_BYTES, int(h[1]) >> 16, int(h[2]) & 0xFFFF, size)
        h[0] = 0
        h[1] = 0
        h[2] = 0
    n = first
    while left > 0:
        piece = BUFFER if left > BUFFER else left
        left -= piece
        describe(tx, n, buffers + n * BUFFER, piece, DESC_NEXT if left else 0)
        n = n + 1 & COUNT - 1
    c[_LENGTHS + first] = count
    c[_FREE] = n
    add(tx, first)
    return CHAIN
