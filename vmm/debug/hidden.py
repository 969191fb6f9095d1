"""Breakpoints that the guest does not see.

    handle = vm.hidden.insert(gpa, call)                  # or insert_gva(space, gva, call), space: vcpu.space()
    handle.remove()

INT3 stands in a copy of the page that the CPU executes (vmm/debug/face.py); reads and writes of the page access
the page itself, also those of the monitor. The INT3's exit is found by the guest-physical address of RIP, so a
breakpoint holds in every address space that maps the page, and an INT3 of the guest's own goes on to policies and to
the guest. Breakpoints come before the policies on EXCEPTION. Where EPT has no execute-only pages there is no INT3:
fetches from the page exit, and a breakpoint is found by the same address; the page's other instructions are stepped.

call(vcpu) is a policy, with a policy's limits, that is not in vm.policies. It runs before the instruction executes, and
returns a verdict: None lets the instruction execute; PAUSED stops the guest at it, and call is not asked again when the
guest goes on; RETRY executes at RIP, which it may have changed; HANDLED skips the instruction; Inject(vector, error).
An exception that it raises pauses the guest. Several at one place are asked in their order until one answers.

Where the guest starts anew, breakpoints that were found through its page tables are removed. Source: SDM Vol. 3C,
"Exception Bitmap", "Information for VM Exits Due to Vectored Events".
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.debug.face import Face, page_of
from vmm.debug.past import Past, unless_begun
from vmm.debug.quickstep import QuickStep
from vmm.emulation.site_paging import PAGING_NONE, PAGING_PAE, paging_mode, walk
from vmm.memory import look
from vmm.memory.ept import R, X
from vmm.memory.paging import ADDRESS
from vmm.policies import link
from vmm.policies.events.breakpoint import BREAKPOINT
from vmm.policies.policy import attach
from vmm.vtx.events import SOFTWARE_EXCEPTION, TYPE_VECTOR
from vmm.vtx.frame import (
    CR3,
    CR4,
    CS_BASE,
    CS_RIGHTS,
    ENTRY_CONTROLS,
    GPA,
    INTR_INFO,
    RIP,
    WANT_CODE,
    WANT_PAGING,
    WANT_SS_RIGHTS,
    WRITTEN,
)
from vmm.vtx.reasons import EPT_VIOLATION, EXCEPTION_OR_NMI
from vmm.vtx.vmcs import GUEST_PDPTE0
from vmm.vtx.vmcs_bits import ENTRY_IA32E_MODE_GUEST, RIGHTS_L
from vmm.vtx.x86 import CR4_LA57, INSTRUCTION_BYTES, PAGE, PAGE_MASK

_INT3 = const(SOFTWARE_EXCEPTION << 8 | 3)
_WANTS = WANT_CODE | WANT_PAGING
_FETCH_WANTS = _WANTS | WANT_SS_RIGHTS  # the policies' own are of EXCEPTION
_SCRATCH = const(40)  # words for a walk of page tables (vmm/emulation/site_paging.py)
_HEADER = const(3)
_MOST = const(4096)  # places with breakpoints


class Handle:
    """One breakpoint of insert(). gpa; gva, or None where it was inserted by gpa."""

    def __init__(self, policy, gpa, gva):
        self._policy = policy
        self.gpa = gpa
        self.gva = gva

    @property
    def hits(self):
        """How often it was hit."""
        return self._policy.hits

    @property
    def attached(self):
        """False once it has been removed, for whatever reason."""
        return self._policy.attached

    def remove(self):
        """Remove the breakpoint."""
        self._policy.detach()

    def __repr__(self):
        place = "gpa %#x" % self.gpa if self.gva is None else "%#x" % self.gva
        return "<hidden breakpoint at %s: %d hits%s>" % (place, self.hits, "" if self.attached else ", removed")


class Place:
    """One gpa with breakpoints: the Chain (vmm/policies/chain.py) of its policies.

    watchers: of vmm/debug/returns.py; each puts the handler before(asks) in front of the policies.
    """

    def __init__(self, hidden, gpa):
        self._hidden = hidden
        self.gpa = gpa
        self.policies = ()
        self.watchers = ()
        self.past = Past(hidden.vm, gpa, hidden.below if hidden.fetched is None else None, hidden.quick)

    def add(self, policy):
        """Add a policy; the first one puts the breakpoint."""
        self._change(self.policies + (policy,), self.watchers)

    def remove(self, policy):
        """Remove a policy; the last one takes the breakpoint away."""
        self._change(tuple([other for other in self.policies if other is not policy]), self.watchers)

    def watch(self, watcher, on):
        """Add or remove a watcher; or renew its handler, where it is there already."""
        others = tuple([other for other in self.watchers if other is not watcher])
        self._change(self.policies, others + (watcher,) if on else others)

    def _change(self, policies, watchers):
        before = self.policies or self.watchers
        self.policies = policies
        self.watchers = watchers
        if not policies and not watchers:
            if before:
                self._hidden.leave(self)
            return
        if not before:
            try:
                self._hidden.enter(self)
            except BaseException:
                self.policies = self.watchers = ()
                self.past.close()
                raise
        below = self.past.handler
        asks = link.before(policies, True, below)
        for watcher in watchers:
            asks = watcher.before(asks)
        self._hidden.table[self.gpa] = bind(unless_begun, self.past.address, below, asks)


class Hidden:
    """The hidden breakpoints of one guest: vm.hidden."""

    def __init__(self, vm):
        self.vm = vm
        self.table = {}  # gpa: handler
        self._places = {}  # gpa: Place
        self._faces = {}  # gpa of a page: Face
        self.quick = QuickStep(vm) if vm.monitor.trial.mtf else None
        self._returns = {}  # gpa of a function: vmm.debug.returns.Returns
        _, size, hpa = vm.memory.segments[0]
        self._head = self._before  # one object
        self._scratch = array("I", [hpa & 0xFFFFFFFF, hpa >> 32, size] + [0] * _SCRATCH)
        self._scratch_at = uctypes.addressof(self._scratch)
        self.fetched = None  # the handler of fetches from pages that are closed
        if not vm.monitor.caps.ept_vpid.EXECUTE_ONLY:
            step = vm.mmio.step_there()
            self.fetched = bind(find_fetch, self.table, vm.memory.table, self._scratch_at, step, self._straddles)

    def _straddles(self, vcpu):
        """An instruction that began on the page before reaches into the page."""
        return vcpu.stepper.step(vcpu.gpa & PAGE_MASK, R | X)

    def insert(self, gpa, call):
        """A breakpoint at a guest-physical address; returns its Handle. ValueError where no RAM can be executed."""
        return self._insert(BREAKPOINT.at(gpa), call, gpa, None)

    def insert_gva(self, space, gva, call):
        """The same at a guest-virtual address, translated now. ValueError says why it is not mapped."""
        return self.insert_at(gva, space.translate(gva), space.paged, call)

    def insert_at(self, gva, gpa, paged, call, filters=None):
        """The same, translated before. paged: by the guest's page tables."""
        return self._insert(BREAKPOINT.at(gpa, paged), call, gpa, gva, filters)

    def _insert(self, event, call, gpa, gva, filters=None):
        return Handle(attach(self.vm, event, call, filters or {}, False), gpa, gva)

    def at(self, gpa):
        """The Place of a gpa. ValueError where there are too many."""
        place = self._places.get(gpa)
        if place is None:
            if len(self._places) >= _MOST:
                raise ValueError("%d places have hidden breakpoints: no more" % _MOST)
            place = Place(self, gpa)
        return place

    def returns(self, gpa, paged):
        """The Returns of the function at a gpa: the Chain of policies on RETURN."""
        found = self._returns.get(gpa)
        if found is None:
            from vmm.debug.returns import Returns

            found = self._returns[gpa] = Returns(self, gpa, paged)
        return found

    def returned(self, vcpu):
        """No further policy is asked at this return; returns a verdict."""
        place = self._places.get(rip(self.vm.memory.table, self._scratch_at, vcpu))
        if place is None:
            return 0
        for watcher in place.watchers:
            watcher.settle(vcpu)
        return place.past.handler(vcpu)

    def __len__(self):
        return len(self._places)

    def __repr__(self):
        return "<hidden breakpoints of %s: %d, on %d pages>" % (self.vm.name, len(self._places), len(self._faces))

    def close(self):
        """Remove all breakpoints: the guest is destroyed."""
        self._drop(lambda policy: True)

    def _drop(self, test):
        """Detach the policies that fit."""
        for owner in list(self._returns.values()) + list(self._places.values()):
            for policy in owner.policies:
                if test(policy):
                    policy.detach()

    def restarted(self):
        """Remove what was found through the page tables of a guest that starts anew: they are gone."""
        self._drop(lambda policy: policy.event.paged)
        for returns in self._returns.values():
            returns.forget()
        self.settle()

    # -- for places and returns

    def forget(self, gpa):
        """Drop the Returns of a function, which has no policy any more."""
        self._returns.pop(gpa, None)

    def enter(self, place):
        """Put the breakpoint of a place, which has its first policy."""
        vm = self.vm
        page = page_of(place.gpa)
        for vcpu in vm.vcpus:
            vcpu.stepper.reset()
        face = self._faces.get(page)
        if face is None:
            face = Face(vm, page, self._changed, self.quick, self.fetched)
            self._faces[page] = face
        face.put(place.gpa - page)
        place.past.open(vm.ept.place(page), vm.memory.hpa(page, PAGE) | (0 if self.fetched is None else R))
        if not self._places:
            self._watch(True)
        self._places[place.gpa] = place

    def _before(self, below):
        self._below = below
        return bind(find, self.table, self.vm.memory.table, self._scratch_at, below)

    def below(self, vcpu):
        """An INT3 of the guest's own."""
        return self._below(vcpu)

    def leave(self, place):
        """Remove the breakpoint of a place, which has no policy any more."""
        vm = self.vm
        page = page_of(place.gpa)
        for vcpu in vm.vcpus:
            vcpu.stepper.reset()
        place.past.close()
        del self._places[place.gpa]
        del self.table[place.gpa]
        face = self._faces[page]
        face.remove(place.gpa - page)
        if not face.places:
            del self._faces[page]
            face.close()
        if not self._places:
            self._watch(False)

    def _watch(self, on):
        """Handle the exits by which breakpoints are found, or handle them no longer."""
        exits = self.vm.exits
        if self.fetched is not None:
            exits.want(EPT_VIOLATION, _FETCH_WANTS, 1 if on else -1)
        else:
            exits.want(EXCEPTION_OR_NMI, _WANTS, 1 if on else -1)
            exits.head(EXCEPTION_OR_NMI, self._head, on)

    def settle(self):
        """Renew the copies of pages to which the monitor has written, for a device say."""
        for vcpu in self.vm.vcpus:
            _settled(vcpu)
        for face in self._faces.values():
            face.settle()

    def _changed(self, gpa, size):
        """Decode the instructions under breakpoints anew that a write to [gpa, gpa + size) may have changed."""
        first = gpa - INSTRUCTION_BYTES + 1
        for page in range(page_of(max(first, 0)), gpa + size, PAGE):
            face = self._faces.get(page)
            if face is not None:
                for at in face.places:
                    if first <= page + at < gpa + size:
                        self._places[page + at].past.changed()


@micropython.viper
def _settled(vcpu):
    ptr32(vcpu)[WRITTEN] = 0


@micropython.viper
def find(table, memory, scratch: int, below, vcpu) -> int:
    """The handler of exceptions while there are hidden breakpoints."""
    f = ptr32(vcpu)
    if int(f[INTR_INFO]) & TYPE_VECTOR == _INT3:
        return int(table.get(int(rip(memory, scratch, vcpu)), below)(vcpu))
    return int(below(vcpu))


@micropython.viper
def find_fetch(table, memory, scratch: int, step, rest, vcpu) -> int:
    """The handler of fetches from pages with breakpoints, where EPT has no execute-only pages."""
    f = ptr32(vcpu)
    gpa = int(rip(memory, scratch, vcpu))
    if gpa >> 12 != (int(f[GPA]) | int(f[GPA + 1]) << 32) >> 12:
        return int(rest(vcpu))
    return int(table.get(gpa, step)(vcpu))


@micropython.viper
def rip(memory, scratch: int, vcpu) -> int:
    """The gpa of the instruction at RIP, by the words of WANT_CODE and WANT_PAGING; below 0: none in RAM."""
    f = ptr32(vcpu)
    gva = int(f[RIP]) | int(f[RIP + 1]) << 32
    root = (int(f[CR3 + 1]) & 0xFFFFF) << 32 | int(f[CR3]) & 0xFFFFF000
    long = int(f[ENTRY_CONTROLS]) & ENTRY_IA32E_MODE_GUEST
    if not long or not f[CS_RIGHTS] & RIGHTS_L:
        gva = gva + int(f[CS_BASE]) & 0xFFFFFFFF
    if long:
        return int(look.walk(memory, root, 48 if f[CR4] & CR4_LA57 else 39, gva, 0))
    mode = int(paging_mode(vcpu))
    if mode == PAGING_NONE:
        return gva
    if mode == PAGING_PAE:
        entry = int(vcpu.read(GUEST_PDPTE0 + (gva >> 30) * 2))
        if not entry & 1:
            return -1
        root = entry & ADDRESS
    else:
        root &= 0xFFFFF000
    return int(walk(scratch, scratch + 4 * _HEADER, root, gva, mode))
