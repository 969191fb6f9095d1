"""Frames for `pcanel capture`: a ring in the monitor's memory that the host reads while the guest runs.

The ring begins with three words of 64 bits: bytes written so far, its size, and a number that no other capture has,
0 once it has ended; it follows at HEAD. A record is its
length with these words (u32), the frame's bytes (u32), host TSC (u64), the interface's number (u16), whether the guest
sends it (u16), the bytes that are kept (u32), and these, filled up to a multiple of 8.
"""

import struct

import cpu
import uctypes
from micropython import const

from vmm.network.words import HEAD, LEAST, MOST, RECORD

_SNAP = const(0xFFFF)  # bytes of a frame, at most: a record has 16 bits for them


class Capture:
    """Of one VM. size: bytes of the ring, a power of two."""

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
        self._head[:] = bytes(HEAD)  # the host, which may still read here, sees it
        self.vm.give(self.hpa)


def start(vm, size):
    """For `pcanel capture`: (hpa, identity) of a new ring. One that there is ends: its reader sees that."""
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
    """Whatever captures it."""
    capture, vm.expansion.capture = vm.expansion.capture, None
    if capture is not None:
        capture.close()
