"""Virtio disks of the host, such as QEMU's. Source: virtio 1.2, "Block Device"."""

from array import array

import cpu
import uctypes
from micropython import const

from vmm.devices.virtio.blk import BLK_FLUSH, BLK_IN, BLK_OUT, BLK_SYNC, GET_ID, HEADER, ID_BYTES, SEG_MAX
from vmm.devices.virtio.queue import DESC_NEXT, DESC_WRITE
from vmm.host import FLUSH, LEVEL, READ, WRITE, virtio
from vmm.host.queued import Queued
from vmm.host.virtio import SIZE, add, describe, notify, read8, read32, used, write8, write32

_SIZE_MAX = const(1 << 1)
_WANTED = const(_SIZE_MAX | SEG_MAX | BLK_FLUSH)
_KINDS = {READ: BLK_IN, WRITE: BLK_OUT, FLUSH: BLK_SYNC}

_SLOTS = const(8)
_WIDE = const(32)  # descriptors of a slot: header, buffers, status
_SLOT_BYTES = const(64)  # header, and the status behind it
_LARGEST = const(1 << 22)  # bytes of a buffer, for a device without a limit of its own
_WAIT_S = const(10)  # time limit of the command in _identify()


class VirtioBlk(Queued):
    """The disk of a virtio PCI function. ValueError if it does not work."""

    model = "virtio disk"

    def __init__(self, function, scheduler, take):
        self._device = device = virtio.Virtio(function, take)
        features = device.negotiate(_WANTED)
        self.flushes = bool(features & BLK_FLUSH)
        self.sectors = read32(device.device) | read32(device.device + 4) << 32
        largest = read32(device.device + 8) if features & _SIZE_MAX else _LARGEST
        most = read32(device.device + 12) if features & SEG_MAX else 1
        self._ring = device.ring(0, _SLOTS * _WIDE)
        slots = self._ring[SIZE] // _WIDE
        if not slots or not largest:
            raise ValueError("its queue is too short")
        Queued.__init__(self, scheduler, take, slots, max(1, min(_WIDE - 2, most)), largest, 1, device.line)
        self._hpa = take(_SLOTS * _SLOT_BYTES)
        self._out = array("I", [0, 0])
        device.start()
        self.serial = self._identify(take)
        cpu.line(device.line, LEVEL)
        device.caused()

    def _identify(self, take):
        """The serial number, by a command that is polled for, since the disk is not in use yet."""
        at = take(ID_BYTES)
        cpu.zero(at, ID_BYTES)
        self._put(0, GET_ID, 0, [(at, ID_BYTES)])
        end = cpu.rdtsc() + _WAIT_S * cpu.tsc_hz
        one = self._next()
        while one < 0:
            if cpu.rdtsc() > end:
                raise ValueError("it does not answer")
            one = self._next()
        return str(uctypes.bytes_at(at, ID_BYTES), "ascii").strip("\0 ") if one & 1 else ""

    def _send(self, slot, kind, sector, parts):
        self._put(slot, _KINDS[kind], sector, parts)

    def _put(self, slot, kind, sector, parts):
        ring, n = self._ring, slot * _WIDE
        header = self._hpa + slot * _SLOT_BYTES
        for i, word in enumerate((kind, 0, sector & 0xFFFFFFFF, sector >> 32)):
            write32(header + 4 * i, word)
        write8(header + HEADER, 0xFF)
        describe(ring, n, header, HEADER, DESC_NEXT)
        for hpa, size in parts:
            n += 1
            describe(ring, n, hpa, size, DESC_NEXT if kind == BLK_OUT else DESC_NEXT | DESC_WRITE)
        describe(ring, n + 1, header + HEADER, 1, DESC_WRITE)
        add(ring, slot * _WIDE)
        notify(ring)

    def _caused(self):
        return self._device.caused()

    def _next(self):
        if not used(self._ring, self._out):
            return -1
        slot = self._out[0] // _WIDE
        return slot << 1 | (read8(self._hpa + slot * _SLOT_BYTES + HEADER) == 0)

    def _reset(self):
        device = self._device
        device.reset()
        device.negotiate(_WANTED)
        device.enable(self._ring)
        device.start()

    def _stop(self):
        self._device.stop()
