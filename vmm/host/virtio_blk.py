"""Virtio disks of the machine: QEMU's. Source: virtio 1.2, "Block Device".

A request is sent as commands of at most 30 buffers, up to 8 of them under way at once, those of guests of the highest
priority first.
"""

from array import array

import cpu
import uctypes
from micropython import const

from vmm.host import FLUSH, READ, WRITE
from vmm.host import virtio as v

_RO = const(1 << 5)
_SIZE_MAX = const(1 << 1)
_SEG_MAX = const(1 << 2)
_FLUSH = const(1 << 9)
_KINDS = {READ: 0, WRITE: 1, FLUSH: 4}
_GET_ID = const(8)
_ID_BYTES = const(20)

_SLOTS = const(8)
_WIDE = const(32)  # descriptors of a slot: header, buffers, status
_HEADER = const(16)
_SLOT_BYTES = const(64)  # header, and the status behind it
_LEVEL = const(2)  # cpu.line()
_WAIT = const(10)  # seconds, for the device's answer to a command of the monitor's own


class Drive:
    """One disk: that of a virtio PCI function. scheduler: charges guests, says who may have the CPU."""

    model = "virtio disk"

    def __init__(self, function, scheduler, take):
        self._scheduler = scheduler
        self._device = device = v.Virtio(function, take)
        features = device.negotiate(_RO | _SIZE_MAX | _SEG_MAX | _FLUSH)
        self._flushes = features & _FLUSH
        self.sectors = v.read32(device.device) | v.read32(device.device + 4) << 32
        self._largest = v.read32(device.device + 8) if features & _SIZE_MAX else 1 << 22
        most = v.read32(device.device + 12) if features & _SEG_MAX else 1
        self._parts = max(1, min(_WIDE - 2, most))
        self._ring = device.ring(0, _SLOTS * _WIDE)
        if self._ring[v.SIZE] < _WIDE:
            raise ValueError("a virtio disk's queue is too short")
        self._hpa = take(_SLOTS * _SLOT_BYTES)
        self._slots = [None] * (self._ring[v.SIZE] // _WIDE)  # [request, parts left over, ...] that is under way
        self._out = array("I", [0, 0])
        self._waiting = []
        device.start()
        self.serial = self._identify(take)
        cpu.line(device.line, _LEVEL)
        device.caused()

    def _identify(self, take):
        """Its serial number, by a command that is waited for: nobody else uses the disk yet."""
        at = take(_ID_BYTES)
        cpu.zero(at, _ID_BYTES)
        status = self._send(0, _GET_ID, 0, [(at, _ID_BYTES)])
        end = cpu.rdtsc() + _WAIT * cpu.tsc_hz
        while not v.used(self._ring, self._out):
            if cpu.rdtsc() > end:
                raise ValueError("a virtio disk does not answer")
        if v.read8(status):
            return ""
        return str(uctypes.bytes_at(at, _ID_BYTES), "ascii").strip("\0 ")

    def _send(self, slot, kind, sector, parts):
        """A command of a slot; the hpa of its status."""
        ring, n = self._ring, slot * _WIDE
        header = self._hpa + slot * _SLOT_BYTES
        status = header + _HEADER
        for i, word in enumerate((kind, 0, sector & 0xFFFFFFFF, sector >> 32)):
            v.write32(header + 4 * i, word)
        v.write8(status, 0xFF)
        v.describe(ring, n, header, _HEADER, v.DESC_NEXT)
        flags = v.DESC_NEXT if kind == _KINDS[WRITE] else v.DESC_NEXT | v.DESC_WRITE
        for hpa, size in parts:
            n += 1
            v.describe(ring, n, hpa, size, flags)
        v.describe(ring, n + 1, status, 1, v.DESC_WRITE)
        v.add(ring, slot * _WIDE)
        v.notify(ring)
        return status

    # -- requests

    def submit(self, request):
        """A request is done when the disk has done all its commands."""
        if request.kind == FLUSH and not self._flushes:
            request.done(True)  # what it has written is there
            return
        request.parts = _parts(request.words, self._largest)
        request.under_way = 0
        request.ok = True
        at = len(self._waiting)
        while at and self._waiting[at - 1].vm.priority < request.vm.priority:
            at -= 1
        self._waiting.insert(at, request)
        self._go_on()

    def _go_on(self):
        """Send what there are slots for."""
        for slot in range(len(self._slots)):
            if not self._waiting:
                return
            if self._slots[slot] is None:
                request = self._waiting[0]
                parts = request.parts[: self._parts]
                request.parts = request.parts[self._parts :]
                request.under_way += 1
                self._slots[slot] = request
                self._send(slot, _KINDS[request.kind], request.sector, parts)
                request.sector += sum([size for _, size in parts]) >> 9
                if not request.parts:
                    self._waiting.pop(0)

    def look(self, floor):
        """A host interrupt has come. floor: only for guests of this priority and above."""
        caused = self._device.caused()
        while True:
            for slot, request in enumerate(self._slots):
                if request and v.read8(self._hpa + slot * _SLOT_BYTES + _HEADER) != 0xFF:
                    break
            else:
                break
            if request.vm.priority < floor:
                self._scheduler.poll_later()
                break
            self._scheduler.serve(request.vm, self._reap)
        if caused:
            cpu.line(self._device.line, _LEVEL)

    def _reap(self):
        """Take back what the device has done."""
        while v.used(self._ring, self._out):
            slot = self._out[0] // _WIDE
            request, self._slots[slot] = self._slots[slot], None
            if request is None:
                continue
            request.ok = request.ok and not v.read8(self._hpa + slot * _SLOT_BYTES + _HEADER)
            request.under_way -= 1
            if not request.ok and request.parts:
                request.parts = []
                self._waiting.remove(request)
            if not request.under_way and not request.parts and request.done:
                request.done(request.ok)
        self._go_on()

    def cancel(self, vm):
        """Requests of this guest are forgotten: when this returns, none moves anything any more. Writes that have
        begun are done."""
        self._waiting = [request for request in self._waiting if request.vm is not vm]
        mine = [request for request in self._slots if request and request.vm is vm]
        for request in mine:
            request.done = None
            request.parts = []
        while any([request.under_way for request in mine]):
            self._reap()

    def close(self):
        self._device.stop()

    def __repr__(self):
        return "%s, %s, %d MiB" % (self.model, self.serial, self.sectors >> 11)


def _parts(words, most):
    """[(hpa, bytes), ...] of a request's words: buffers that lie one behind the other are one, up to `most` bytes."""
    out = []
    for at in range(0, len(words), 3):
        hpa, size = words[at] | words[at + 1] << 32, words[at + 2]
        if out and out[-1][0] + out[-1][1] == hpa and out[-1][1] + size <= most:
            hpa, size = out[-1][0], out.pop()[1] + size
        while size > most:
            out.append((hpa, most))
            hpa += most
            size -= most
        out.append((hpa, size))
    return out
