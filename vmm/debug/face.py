"""The copy of a page that the CPU executes where there are breakpoints; the guest reads and writes the page itself.

EPT maps the page for execution only, and to a copy that has INT3 at some bytes. A read or a write of it is an EPT
violation, which is executed on the page itself (vmm/emulation/sites.py), or stepped with the page itself in place, a
read by the fast step (vmm/debug/quickstep.py); a write then goes to the copy, too. What the monitor writes to the page,
for a device or for its user, is copied before the guest's next entry (port/written.c).

Where EPT has no execute-only pages, a copy that is executed could be read. There the page has no rights at all: each
fetch from it is a violation, too, which finds the breakpoints instead of INT3s (vmm/debug/hidden.py), and each of its
other instructions is stepped. Source: SDM Vol. 3C, "EPT Misconfigurations" (execute-only translations).
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.debug import past
from vmm.memory.ept import R, W, X
from vmm.vtx.x86 import INSTRUCTION_BYTES, INT3, PAGE, PAGE_MASK

_TABLE = const(3 * PAGE)  # bytes that cpu.protect() may need


class Face:
    """One page of a guest's RAM. gpa: the page's. changed(offset, size): bytes of instructions with INT3 were written.
    quick: vmm.debug.quickstep.QuickStep, or None. fetched(vcpu) -> verdict: the handler of fetches, where EPT has no
    execute-only pages.

    ValueError where there is no RAM that can be executed, and for the page's fetches where too many pages are watched.
    """

    def __init__(self, vm, gpa, changed, quick=None, fetched=None):
        if not vm.memory.has(gpa, PAGE):
            raise ValueError("gpa %#x: there is no RAM" % gpa)
        vm.ept.touch(gpa)
        if not vm.ept.own(gpa) & X:
            raise ValueError("gpa %#x: the page cannot be executed" % gpa)
        self.vm = vm
        self.gpa = gpa
        self.places = {}  # offsets of INT3s
        self._own = vm.memory.hpa(gpa, PAGE)
        self._changed = changed
        self._near = bytearray(PAGE // 8)  # bits: bytes of an instruction at which INT3 is
        self._protected = False
        self._hpa = vm.monitor.pages.take(PAGE)
        self._reads = None
        try:
            self._protect()
            self._step(quick, fetched)
        except BaseException:
            self._give_back()
            raise
        self.refresh(0, PAGE)
        vm.rights.take(gpa, self, R | W)
        vm.rights.show(gpa, self._hpa, self._own, self._stepped)
        vm.mmio.ways.tell(gpa >> 12, self._make)
        vm.flush()

    def _protect(self):
        """Let the monitor's writes to the page be noted (port/written.c)."""
        frame, pages = self.vm.vcpus[0].frame_hpa, self.vm.monitor.pages
        if not cpu.protect(self._own, frame, 0):
            memory = pages.take(_TABLE)
            try:
                cpu.protect(self._own, frame, memory)
            except BaseException:
                pages.give(memory)
                raise
        self._protected = True

    def _give_back(self):
        vm = self.vm
        if self._protected:
            memory = cpu.unprotect(self._own)
            if memory:
                vm.monitor.pages.give(memory)
        vm.ept.join(self.gpa)
        vm.flush()
        vm.monitor.pages.give(self._hpa)

    def _step(self, quick, fetched):
        """Let instructions that read the page, or are fetched from it, be stepped."""
        vm, gpa = self.vm, self.gpa
        if quick is not None:
            self._reads = Reads(vm, gpa, self._own, quick, fetched)
        elif fetched is not None:
            vm.mmio.step_reads(gpa, lambda vcpu: vcpu.stepper.step(gpa, R | X), fetched)

    def close(self):
        """Map the page itself again."""
        vm = self.vm
        vm.mmio.ways.tell(self.gpa >> 12, None)
        if self._reads is not None:
            self._reads.close()
        vm.mmio.step_reads(self.gpa, None)
        vm.rights.show(self.gpa, None, self._own)
        vm.rights.take(self.gpa, self, 0)
        self._give_back()

    def _make(self, _poke):
        near = uctypes.addressof(self._near)
        return bind(_write, cpu.put, self._own, self._hpa, near, self._changed_there)

    def _changed_there(self, offset, size):
        self.refresh(offset, size)
        self._changed(self.gpa + offset, size)

    def _stepped(self):
        self._changed_there(0, PAGE)

    def settle(self):
        """Renew the copy where the monitor has written to the page since the last call."""
        if cpu.written(self._own):
            self._changed_there(0, PAGE)

    def refresh(self, offset, size):
        """Copy bytes of the page that have been written."""
        cpu.copy(self._hpa + offset, self._own + offset, size)
        for at in self.places:
            if offset <= at < offset + size:
                _put(self._hpa, at, INT3)

    def put(self, offset):
        """Put INT3 at this byte of the copy."""
        self.places[offset] = True
        for byte in range(offset, min(offset + INSTRUCTION_BYTES, PAGE)):
            self._near[byte >> 3] |= 1 << (byte & 7)  # remove() keeps them: writes there are only slower
        _put(self._hpa, offset, INT3)

    def remove(self, offset):
        """Put the page's own byte into the copy again."""
        del self.places[offset]
        self.refresh(offset, 1)


class Reads:
    """Any instruction that reads the page, or is fetched from it, as vmm.debug.quickstep.QuickStep steps it: it takes
    the place of a vmm.debug.past.Past."""

    def __init__(self, vm, gpa, own, quick, fetched):
        self.vm = vm
        self._gpa = gpa
        self._quick = quick
        self.words = words = array("I", [0] * past.WORDS)
        self.address = uctypes.addressof(words)
        entry = vm.ept.place(gpa)
        for word, hpa in ((past.ENTRY, entry), (past.PAGE_ITSELF, own | R)):
            words[word] = hpa & 0xFFFFFFFF
            words[word + 1] = hpa >> 32
        words[past.CAREFUL] = 2
        vm.mmio.step_reads(gpa, quick.of(self), fetched)

    def close(self):
        """Step no more: the page has no breakpoint any more."""
        self._quick.forget(self)

    def step(self, vcpu):
        """Step it the slow way; returns a verdict."""
        return vcpu.stepper.step(self._gpa, R)

    def violation(self, vcpu):
        """It has accessed another page that is watched, too; returns a verdict."""
        self.step(vcpu)
        return vcpu.stepper.violation(vcpu)

    def done(self, slot):
        """Nothing to note: no policy is asked again for such an instruction."""


def page_of(gpa):
    """The gpa of a gpa's page."""
    return gpa & PAGE_MASK


@micropython.viper
def _put(hpa: int, offset: int, value: int):
    ptr8(hpa)[offset] = value


@micropython.viper
def _write(put, own: int, copy: int, near: int, changed, offset: int, size: int, value):
    """Write to the page and to its copy."""
    put(own + offset, size, value)
    bits = ptr8(near)
    at = offset
    while at < offset + size:
        if bits[at >> 3] >> (at & 7) & 1:
            changed(offset, size)
            return
        at += 1
    wide = uint(value)
    to = ptr8(copy + offset)
    at = 0
    while at < size:
        to[at] = int(wide & uint(0xFF))
        wide = wide >> uint(8)
        at += 1
