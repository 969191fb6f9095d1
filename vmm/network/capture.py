"""Frames for `pcanel capture`: a ring in the monitor's memory that the host reads while the guest runs.

Words of 64 bits before the ring, which begins at HEAD: bytes written so far, size of the ring, and the identity of this
capture, 0 after its end. A record is its length with these words (u32), the size of the frame (u32), host TSC (u64),
the interface's number (u16), whether the guest sends the frame (u16), the number of bytes kept (u32), and these, padded
to a multiple of 8.
"""

import struct

import cpu
import uctypes
from micropython import const

from vmm.network.words import HEAD, LEAST, MOST, RECORD

_SNAP = const(0xFFFF)  # bytes kept of a frame, at most


class Capture:
    """A capture of one VM. size: bytes of the ring, a power of two. ValueError without interfaces, or for the size."""

    def __init__(self, vm, size):
        if vm.expansion is None or not vm.expansion.ports:
            raise ValueError("guest %s has no network interface: its file has no [[net]]" % vm.name)
        if not LEAST <= size <= MOST or size & (size - 1):
            raise ValueError("a ring of %d bytes: a power of two from %d to %d" % (size, LEAST, MOST))
        self.vm = vm
        self._size = size
        self.hpa = vm.take(HEAD + size)
        self._head = uctypes.bytearray_at(self.hpa, HEAD)
        self.identity = cpu.rdtsc()
        self._head[:] = struct.pack("<QQQQ", 0, size, self.identity, 0)
        self._written = 0
        for port in vm.expansion.ports:
            port.watch(self)

    def sees(self, port, frame, header, out):
        size = len(frame)
        kept = min(size, _SNAP, self._size // 2)
        length = RECORD + kept + 7 & ~7
        number = int(port.name.rsplit("net", 1)[1])
        self._put(struct.pack("<IIQHHI", length, size, cpu.rdtsc(), number, int(out), kept))
        self._put(frame if kept == size else frame[:kept])
        self._written += length - RECORD - kept
        self._head[:8] = struct.pack("<Q", self._written)
        return frame

    def _put(self, data):
        at = self._written & self._size - 1
        first = min(len(data), self._size - at)
        source = uctypes.addressof(data)
        cpu.copy(self.hpa + HEAD + at, source, first)
        if first < len(data):
            cpu.copy(self.hpa + HEAD, source + first, len(data) - first)
        self._written += len(data)

    def close(self):
        for port in self.vm.expansion.ports:
            port.unwatch(self)
        self._head[:] = bytes(HEAD)  # the end, for a host that still reads
        self.vm.give(self.hpa)


def start(vm, size):
    """For `pcanel capture`: start a capture in place of the current one. Returns (hpa, identity) of its ring."""
    capture = Capture(vm, size)
    end(vm)
    vm.expansion.capture = capture
    return capture.hpa, capture.identity


def stop(vm, identity):
    """End the capture with this identity, if it has not ended."""
    capture = vm.expansion.capture
    if capture is not None and capture.identity == identity:
        end(vm)


def end(vm):
    """End the current capture, if there is one."""
    capture, vm.expansion.capture = vm.expansion.capture, None
    if capture is not None:
        capture.close()
