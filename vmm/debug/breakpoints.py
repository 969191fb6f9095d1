"""Breakpoints and watches of a person at the prompt: vm.break_at(), vm.watch(), vm.breakpoints.

    >>> vms['linux'].break_at("do_sys_openat2", once=True)

Breakpoints are hidden (vmm/debug/hidden.py): the guest stands at the instruction, which has not been executed, and
nothing in its memory shows it. A watch is on guest-physical pages: it stops the guest behind the instruction that
accessed the bytes; the CPU's own accesses (page tables, descriptors) count, too. Either pauses the whole guest and
reports it in one line. Limits: a watch is translated when it is made, and is removed when the guest starts anew, as are
breakpoints in mapped memory; accesses of the monitor and its devices are not seen.
"""

from micropython import const

from vmm import verdict
from vmm.debug import places
from vmm.debug import where as where_
from vmm.insight.table import Table
from vmm.memory.ept import RWX
from vmm.policies.events.breakpoint import BREAKPOINT
from vmm.policies.events.memory import Memory
from vmm.policies.policy import attach, show
from vmm.vtx.vmcs_bits import EPT_WRITE
from vmm.vtx.x86 import MASK64, PAGE, PAGE_MASK

_MOST = const(256)
_WATCHED = const(0x100000)  # bytes of a watch at most


class Points:
    """One guest's breakpoints and watches, by number: points[3], iteration, a table when printed."""

    def __init__(self, vm):
        self._vm = vm
        self._points = []
        self._next = 1

    def add(self, point):
        """Number and enable a Point, and return it. ValueError where there are too many."""
        if len(self._points) >= _MOST:
            raise ValueError("guest %s has %d breakpoints and watches: no more" % (self._vm.name, _MOST))
        point.number = self._next
        point.enable()
        self._next += 1
        self._points.append(point)
        return point

    def drop(self, point):
        """Remove a Point from the list."""
        if point in self._points:
            self._points.remove(point)

    def __getitem__(self, number):
        for point in self._points:
            if point.number == number:
                return point
        raise KeyError("no breakpoint %r" % (number,))

    def __iter__(self):
        return iter(list(self._points))

    def __len__(self):
        return len(self._points)

    def remove(self):
        """Remove them all."""
        for point in list(self._points):
            point.remove()

    def __repr__(self):
        if not self._points:
            return "guest %s has no breakpoints" % self._vm.name
        rows = [(p.number, p.kind, p.place(), p.hits, p.state(), p.conditions()) for p in self._points]
        return repr(Table(("NUM", "KIND", "WHERE", "HITS", "STATE", "CONDITION"), rows))


class Point:
    """number, hits; enable(), disable(), remove(). pieces: [(gpa, bytes), ...]."""

    kind = ""
    size = 1
    pieces = ()

    def __init__(self, vm, where, gva, once, filters):
        """filters: those of every event (vmm/policies/general.py)."""
        self.number = 0
        self.hits = 0
        self.vm = vm
        self.gva = gva
        self.where = where
        self.once = once
        self.filters = filters
        self._starts = vm.starts

    def find(self):
        """Translate its bytes, once in each run of the guest: in the next one its symbols may be elsewhere.

        An address of a program is that of the process that runs when it is made, or of pid=.
        """
        if self.pieces and self._starts == self.vm.starts:
            return
        gva = places.resolve(self.vm, self.where)
        space = where_.space_of(self.vm, gva, pid=self.filters.get("pid"))
        self.pieces = pieces(space, gva, self.size)
        self.gva = gva
        self._paged = space.paged
        self._starts = self.vm.starts

    def place(self):
        """Its place as text: the symbol, or the address with its name."""
        return self.where if isinstance(self.where, str) else "%#x%s" % (self.gva, self.vm.name_of(self.gva))

    def conditions(self):
        """Its filters as text."""
        return " ".join(show(self.filters) + (["once"] if self.once else []))

    def state(self):
        """ "enabled", "disabled", or that the guest has started anew."""
        if self.enabled:
            return "enabled"
        return "gone: the guest started anew" if self._starts != self.vm.starts else "disabled"

    def remove(self):
        """Remove it; it cannot be enabled again."""
        self.disable()
        self.vm.breakpoints.drop(self)

    def hit(self, vcpu, text):
        """Count a hit, and let the exit at hand pause the guest; text: for the line that says so."""
        self.hits += 1
        if self.once:
            self.remove()
        self.vm.pausing(vcpu, "%s %d" % (self.kind, self.number), text)

    def __repr__(self):
        conditions = self.conditions()
        return "<%s %d at %s: %d hits, %s%s>" % (
            self.kind, self.number, self.place(), self.hits, self.state(), ", " + conditions if conditions else "",
        )  # fmt: skip


class Breakpoint(Point):
    """A breakpoint: the guest pauses before the instruction. where: symbol or gva; hits: how often."""

    kind = "breakpoint"

    def __init__(self, vm, where, gva, once, filters):
        super().__init__(vm, where, gva, once, filters)
        self._handle = None

    @property
    def enabled(self):
        """Whether it stops the guest now."""
        return self._handle is not None and self._handle.attached

    def enable(self):
        """Enable it. ValueError where the place is not mapped."""
        if not self.enabled:
            self.find()
            at = self.pieces[0][0]
            self._handle = self.vm.hidden.insert_at(self.gva, at, self._paged, self._asked, self.filters)

    def disable(self):
        """Disable it; enable() makes it stop the guest again."""
        if self.enabled:
            self._handle.remove()
        self._handle = None

    def _asked(self, vcpu):
        self.hit(vcpu, "")
        return verdict.PAUSED


class Watched(Memory):
    """The event of a watch: HANDLED executes the access, and done() follows it."""

    name = "watch"
    tells = False

    def __init__(self, done=None):
        self._done = done

    def quickly(self, vm):
        """Without MEMORY's quick answers, which would drop the access."""
        return self.quick, self.quick_skip

    def skip(self, vcpu):
        """HANDLED: execute the access by a step with the page open, and call done() after it."""
        return vcpu.stepper.step(vcpu.gpa & PAGE_MASK, RWX, self._done)


class Watch(Point):
    """A watch: the guest pauses behind an access to `size` bytes. access: letters of rwx; old, new: the value before
    and after the last hit, of the first 8 bytes."""

    kind = "watch"

    def __init__(self, vm, where, gva, size, access, once, filters):
        super().__init__(vm, where, gva, once, filters)
        self.size = size
        self.access = access
        self._policies = []
        self._vcpu = None
        self._before = b""
        self._rip = 0
        self._wrote = False
        self.old = self.new = None

    @property
    def enabled(self):
        """Whether it stops the guest now."""
        return any([policy.attached for policy in self._policies])

    def enable(self):
        """Enable it. ValueError where a byte is not mapped."""
        if not self.enabled:
            self.find()
            event = Watched(self._done)
            self._policies = []
            for gpa, length in self.pieces:
                filters = dict(self.filters, gpa=gpa, length=length, access=self.access)
                event.check(filters)
                self._policies.append(attach(self.vm, event, self._asked, filters, False))

    def disable(self):
        """Disable it; enable() makes it stop the guest again."""
        for policy in self._policies:
            policy.detach()
        self._policies = []

    def _read(self):
        return b"".join([self.vm.memory.read(gpa, min(length, 8)) for gpa, length in self.pieces])[:8]

    def _asked(self, vcpu):
        """The access is about to be made."""
        self._vcpu, self._rip, self._before = vcpu, places.linear_rip(vcpu), self._read()
        self._wrote = bool(vcpu.qualification & EPT_WRITE)
        return verdict.HANDLED

    def _done(self, completed):
        """The access has been made, or has faulted."""
        vcpu, self._vcpu = self._vcpu, None
        if vcpu is None or not self.enabled:
            return verdict.RESUME
        self.old, self.new = _number(self._before), _number(self._read())
        if self._wrote and not completed and self.old == self.new:
            return verdict.RESUME  # a fault: the instruction runs again
        by = "%#x%s" % (self._rip, self.vm.name_of(self._rip))
        if self._wrote:
            text = "%s: %#x -> %#x, written by %s" % (self.place(), self.old, self.new, by)
        else:
            text = "%s: %#x, read by %s" % (self.place(), self.new, by)
        self.hit(vcpu, text)
        return verdict.PAUSE

    def place(self):
        """Its place as text, with size and access."""
        return "%s, %d bytes, %s" % (super().place(), self.size, self.access)


def _number(data):
    return int.from_bytes(data, "little")


def insert(vm, gva, call, vcpu):
    """Insert a hidden breakpoint at a gva of what a vCPU runs; returns its Handle."""
    return vm.hidden.insert_gva(where_.space_of(vm, gva, vcpu=vcpu), gva, call)


def pieces(space, gva, size):
    """[(gpa, bytes), ...] of a range, each within one page."""
    out = []
    while size:
        length = min(size, PAGE - (gva & PAGE - 1))
        out.append((space.translate(gva), length))
        gva = gva + length & MASK64
        size -= length
    return out


def break_at(vm, where, once, filters):
    """VM.break_at(). filters: those of every event; None: not given."""
    gva = places.code(vm, where)
    return vm.breakpoints.add(Breakpoint(vm, where, gva, once, _given(filters)))


def watch(vm, where, size, access, once, filters):
    """VM.watch(). filters: as for break_at()."""
    if not isinstance(size, int) or not 1 <= size <= _WATCHED:
        raise ValueError("size %r: 1 to %d bytes" % (size, _WATCHED))
    if not access or any([letter not in "rwx" for letter in access]):
        raise ValueError("access %r: letters of r, w and x" % (access,))
    gva = places.resolve(vm, where)
    return vm.breakpoints.add(Watch(vm, where, gva, size, access, once, _given(filters)))


def _given(filters):
    """The filters that have a value. ValueError for an invalid one."""
    given = {name: filters[name] for name in filters if filters[name] is not None}
    BREAKPOINT.check(given)
    return given
