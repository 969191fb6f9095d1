"""Which instructions of a function are executed.

    from vmm.recipes import coverage
    c = coverage.of(vms['linux'], "vfs_statx")     # or an address and size=
    c                                      # how many were, and the ranges that were not; c.missed; c.stop()

Each instruction has a hidden breakpoint, which is removed at its first hit, so a loop costs one hit an instruction.
Limits: MOST instructions. Instructions are found once, at the beginning: those that the kernel patches in later
(static keys) are not covered.
"""

from micropython import const

from vmm.debug import where
from vmm.emulation import length
from vmm.vtx.x86 import INSTRUCTION_BYTES

MOST = const(1000)  # instructions


class Coverage:
    """Coverage of [start, end). addresses: gvas of its instructions; executed: the set of those that were executed."""

    def __init__(self, vm, start, size, space):
        self.vm = vm
        self.start = start
        self.end = start + size
        self.addresses = _instructions(space.read(start, size), start, vm.vcpus[0].bits)
        self.executed = set()
        self._handles = {}
        try:
            for gva in self.addresses:
                self._handles[gva] = vm.hidden.insert_gva(space, gva, self._executes)
        except BaseException:
            self.stop()
            raise

    def _executes(self, vcpu):
        self.executed.add(vcpu.rip)
        handle = self._handles.pop(vcpu.rip, None)
        if handle is not None:
            handle.remove()

    @property
    def missed(self):
        """[(first, end), ...]: the ranges that were not executed."""
        ranges = []
        for gva, after in zip(self.addresses, self.addresses[1:] + [self.end]):
            if gva in self.executed:
                continue
            if ranges and ranges[-1][1] == gva:
                ranges[-1] = ranges[-1][0], after
            else:
                ranges.append((gva, after))
        return ranges

    def stop(self):
        """Remove the breakpoints that are left; what was found stays."""
        handles, self._handles = self._handles, {}
        for handle in handles.values():
            handle.remove()

    def __repr__(self):
        head = "%d of %d instructions executed" % (len(self.executed), len(self.addresses))
        name = self.vm.symbols.at
        return "\n".join([head] + ["  not %s ... %#x" % (name(a) or hex(a), b) for a, b in self.missed])


def _instructions(code, gva, bits):
    found = []
    at = 0
    while at < len(code):
        if len(found) == MOST:
            raise ValueError("more than %d instructions: name a part by size=" % MOST)
        found.append(gva + at)
        try:
            at += length.length(code[at : at + INSTRUCTION_BYTES], bits)
        except length.Unknown:
            raise ValueError("no instruction is known at %#x: name a part by size=" % (gva + at))
    return found


def of(vm, at, size=None, pid=None):
    """Begin; returns the Coverage. at: a symbol or an address, of a program's with pid= of a process; size: bytes,
    those of the symbol by default."""
    found = where.find(vm, at, None, pid, True)
    if size is None:
        around = vm.symbols.around(found.gva)
        if around is None or not around[2]:
            raise ValueError("the size of %s is not known: give size=" % at)
        size = around[2] - found.gva
    return Coverage(vm, found.gva, size, found.space)
