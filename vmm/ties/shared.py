"""Shared memory with a doorbell: the same host pages in several guests, and an interrupt as the signal.

    [[shared]]               in each guest's file (docs/guests.md)
    name = "board"
    size = "64K"
    access = "rw"            # or "ro"
    gsi = 10                 # the doorbell's interrupt line; without it, none
    cpl = 0                  # the highest privilege level that may ring and acknowledge it

A guest finds its windows in CPUID leaves 0x40000002 and 0x40000003, rings and acknowledges by hypercall
(docs/hypercalls.md). EPT enforces each side's rights: memory that a side may not write stays unchanged, the
write is dropped as on ROM and counted. No side may execute from a window.
"""

import cpu
import uctypes
from micropython import const

from vmm.handlers.vmcall import UNKNOWN
from vmm.memory import ept
from vmm.memory.pages import OutOfMemory
from vmm.ties import checks
from vmm.vtx.privilege import USER, cpl
from vmm.vtx.x86 import PAGE

RING = const(0x100)  # hypercalls
ACKNOWLEDGE = const(0x101)

_NO_GSI = const(0xFF)


class Side:
    """One guest's side of a window: a device on its memory bus, behind the pages that EPT maps."""

    def __init__(self, vm, window, gpa, writable, gsi, level):
        self.vm = vm
        self.window = window
        self.gpa = gpa
        self.writable = writable
        self.gsi = gsi
        self.cpl = level
        self.line = vm.pc.gsi.line(gsi) if gsi is not None else None
        self.rings = 0  # since the last acknowledgement
        self._line = 0
        self.rung = 0  # in all
        self.refused = 0  # writes

    def __repr__(self):
        return "%s %#x %s, %s, %d rings, %d writes refused" % (
            self.vm.name, self.gpa, "rw" if self.writable else "ro",
            "no doorbell" if self.gsi is None else "gsi %d" % self.gsi, self.rung, self.refused,
        )  # fmt: skip

    def read(self, offset, size):
        """Reached only by accesses that the monitor emulates, such as a string instruction's between two devices."""
        return int.from_bytes(self.window.view[offset : offset + size], "little")

    def write(self, offset, size, value):
        """A write of the monitor for the guest, or one that EPT has stopped: counted where the side is read-only."""
        if not self.writable:
            self.refused += 1
            self.vm.count_refused("write to read-only window %s" % self.window.name)
        elif offset + size <= self.window.size:
            self.window.view[offset : offset + size] = value.to_bytes(size, "little")

    def ring(self):
        """Another side has rung. The line stays up until this guest acknowledges.

        While a handler is interrupted (vmm/scheduling/sched.py), which may be one of this guest's, the line waits for
        settle().
        """
        self.rung += 1
        self.rings += 1
        scheduler = self.vm.monitor.scheduler
        if scheduler.nested:
            scheduler.defer()
        else:
            self.settle()

    def settle(self):
        """Set the line's level: high while a ring is not acknowledged."""
        level = int(self.rings > 0)
        if self.line and level != self._line:
            cpu.hold(1)
            try:
                self._line = level
                self.line(level)
                if level:
                    self.vm.preempt_soon()
            finally:
                cpu.hold(-1)

    def acknowledge(self):
        """Return how often it has been rung since the last acknowledgement; the line falls."""
        rings, self.rings = self.rings, 0
        self.settle()
        return rings

    def describe(self):
        """(EAX, EBX, ECX, EDX) of CPUID leaf 0x40000002 for this window."""
        gsi = _NO_GSI if self.gsi is None else self.gsi
        return self.gpa & 0xFFFFFFFF, self.window.size // PAGE, 1 | self.writable << 1 | gsi << 8, self.gpa >> 32


class Window:
    """The memory of a window, `size` bytes at `hpa`. sides: the guests' sides that share it."""

    def __init__(self, name, size, hpa):
        self.name = name
        self.size = size
        self.hpa = hpa
        self.view = memoryview(uctypes.bytearray_at(hpa, size))
        self.sides = []

    def __repr__(self):
        return "%s, %d KiB: %s" % (self.name, self.size >> 10, "; ".join([repr(side) for side in self.sides]))


class Windows:
    """All windows of a monitor, by name; a window exists as long as a guest has a side."""

    def __init__(self, pages, scheduler):
        self._pages = pages
        self._scheduler = scheduler
        scheduler.defer(self._settle)
        self.by_name = {}

    def _settle(self):
        for window in self.by_name.values():
            for side in window.sides:
                self._scheduler.on_behalf(side.vm, side.settle)

    def __getitem__(self, name):
        return self.by_name[name]

    def __repr__(self):
        return "\n".join([repr(window) for window in self.by_name.values()]) or "no windows"

    def join(self, vm, wanted):
        """Give a guest its sides, in the order of its description.

        ValueError for an invalid window, and for another size than its other sides have; OutOfMemory.
        """
        sides = vm.windows
        gpas = checks.windows(wanted)
        for i in range(len(wanted)):
            entry = wanted[i]
            window = self._window(vm, entry["name"], entry["size"])
            writable = (entry.get("access") or "rw") == "rw"
            side = Side(vm, window, gpas[i], writable, entry.get("gsi"), entry.get("cpl") or 0)
            vm.mmio_bus.claim(side.gpa, window.size, side)
            vm.ept.map(side.gpa, window.hpa, window.size, ept.R | ept.W if side.writable else ept.R)
            sides.append(side)
            window.sides.append(side)
        if sides:
            vm.hypercalls.add(RING, lambda vcpu: _ring(_called(sides, vcpu)), USER)  # each window has its own level
            vm.hypercalls.add(ACKNOWLEDGE, lambda vcpu: _acknowledge(_called(sides, vcpu)), USER)

    def _window(self, vm, name, size):
        window = self.by_name.get(name)
        if window is None:
            try:
                hpa = self._pages.take(size)
            except OutOfMemory as error:
                raise OutOfMemory("shared: %s: %s" % (name, error)) from None
            window = self.by_name[name] = Window(name, size, hpa)
        elif window.size != size:
            text = "guest %s: shared: %s: %#x bytes, but its other side has %#x"
            raise ValueError(text % (vm.name, name, size, window.size))
        return window

    def leave(self, vm):
        """A guest is removed; its EPT is freed already."""
        for name in list(self.by_name):
            window = self.by_name[name]
            window.sides = [side for side in window.sides if side.vm is not vm]
            if not window.sides:
                del self.by_name[name]
                self._pages.give(window.hpa)


def _called(sides, vcpu):
    """The side whose number is in RBX; None where there is none, or the guest's CPL is too high for it."""
    number = vcpu.rbx
    if number >= len(sides):
        return None
    side = sides[number]
    if side.cpl < USER and cpl(vcpu) > side.cpl:
        side.vm.count_refused("hypercall at too high a CPL")
        return None
    return side


def _ring(side):
    """Hypercall RING: the number of other sides that were interrupted; UNKNOWN (all ones) without such a window."""
    if side is None:
        return UNKNOWN
    rung = 0
    for other in side.window.sides:
        if other is not side and other.line and other.vm.powered:
            other.ring()
            rung += 1
    return rung


def _acknowledge(side):
    if side is None or not side.line:
        return UNKNOWN
    return side.acknowledge()
