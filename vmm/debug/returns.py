"""Returns from a function of the guest: a hidden breakpoint at its entry, and one at each address that it returns to.

A call that has been entered is kept with its return address and its stack pointer after the return, by which it is
found again, whatever other calls there are: of the function by itself, by other tasks and vCPUs, or of tasks that
sleep in it. In the lower half of the address space CR3 has to agree too, but for its low 13 bits. A later call with the
same stack pointer replaces one that never returned. Limits: 4096 calls at a time, in sets of 8 of which the oldest is
dropped; 1024 return addresses. lost: calls that were dropped or not kept.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.debug.abi import stack
from vmm.memory import look
from vmm.policies import link
from vmm.vtx.frame import CR3, CR4, CS_RIGHTS, RIP, RSP
from vmm.vtx.vmcs_bits import RIGHTS_L
from vmm.vtx.x86 import CR4_LA57, PAGE

_WAYS = const(8)
_CALL = const(8)  # words of a call: stack pointer and return address (two each), CR3 >> 13, age, 1 where it is one
_RETURN = const(2)
_SPACE = const(4)
_AGE = const(5)
_USED = const(6)
_HEADER = const(4)  # mask of the sets, age, calls lost, 0
_FIRST_SETS = const(8)
_MOST_SETS = const(512)
_MOST_PLACES = const(1024)
_KEY = const((1 << 60) - 1)  # of a return address, as a small int
_WORD = const(8)


class Returns:
    """The returns of the function at one gpa: the Chain (vmm/policies/chain.py) of policies on RETURN.

    paged: the gpa was found through page tables.
    """

    def __init__(self, hidden, gpa, paged):
        self._hidden = hidden
        self._vm = hidden.vm
        self.gpa = gpa
        self.paged = paged
        self.policies = ()
        self._places = {}  # gpa of a return address: its Place, or None where there is none
        self._known = {}  # return addresses
        self._entry = _Entry(self)
        self._allocate(_FIRST_SETS)

    def _allocate(self, sets):
        self._words = array("I", [sets - 1, 0, 0, 0]) + array("I", bytes(4 * sets * _WAYS * _CALL))
        self._address = uctypes.addressof(self._words)

    @property
    def lost(self):
        """Calls of which the return could not be watched."""
        return self._words[2]

    def add(self, policy):
        """Add a policy; the first one watches the function's entry."""
        self._change(self.policies + (policy,))

    def remove(self, policy):
        """Remove a policy; the last one ends the watch."""
        self._change(tuple([other for other in self.policies if other is not policy]))

    def _change(self, policies):
        before = self.policies
        self.policies = policies
        if policies and not before:
            self._hidden.at(self.gpa).watch(self._entry, True)
        elif before and not policies:
            self._hidden.at(self.gpa).watch(self._entry, False)
            self.forget()
            self._hidden.forget(self.gpa)
        for place in list(self._places.values()):
            place.watch(self, True)

    def forget(self):
        """Forget the calls so far, and the return addresses: the guest starts anew, or no policy is left."""
        places, self._places = self._places, {}
        self._known.clear()
        for place in places.values():
            place.watch(self, False)
        self._allocate(_FIRST_SETS)
        if self.policies:
            self._hidden.at(self.gpa).watch(self._entry, True)

    # -- at the entry

    def before_entry(self, asks):
        """Return the handler in front of `asks` at the function's entry, for its Place."""
        return bind(_enter, self._vm.memory.table, self._known, self._address, asks, self._enter_slowly)

    def _enter_slowly(self, vcpu, asks):
        """A call from a new place, one in a full set, or one by code of other widths."""
        words = self._words
        bits = vcpu.bits
        try:
            gva = stack(vcpu, 0, bits // 8)
            if gva & _KEY not in self._known:
                self._watch(vcpu, gva)
        except ValueError:
            words[2] = words[2] + 1 & 0xFFFFFFFF
            return asks(vcpu)
        full = _keep(self._address, gva, bits // 8, vcpu) < 0
        if full:
            sets = words[0] + 1
            if sets < _MOST_SETS:
                self._grow()
                return 0  # the handlers are new: RIP is executed again
            words[2] = words[2] + 1 & 0xFFFFFFFF
            _replace(self._address, gva, bits // 8, vcpu)
        return asks(vcpu)

    def _watch(self, vcpu, gva):
        """A breakpoint at a return address."""
        if len(self._places) >= _MOST_PLACES:
            raise ValueError("too many return addresses")
        linear = gva if vcpu.bits == 64 else gva + vcpu.segment("cs")[1] & 0xFFFFFFFF
        gpa = vcpu.space().translate(linear)
        if gpa not in self._places:
            place = self._hidden.at(gpa)
            place.watch(self, True)
            self._places[gpa] = place
        self._known[gva & _KEY] = True

    def _grow(self):
        """More room: four times the sets."""
        old = self._words
        self._allocate(4 * (old[0] + 1))
        for at in range(_HEADER, len(old), _CALL):
            if old[at + _USED]:
                _move(self._address, uctypes.addressof(old) + 4 * at)
        self._hidden.at(self.gpa).watch(self._entry, True)
        for place in self._places.values():
            place.watch(self, True)

    # -- at a return address

    def before(self, asks):
        """Return the handler in front of `asks` at a return address, for its Place."""
        settled = bind(_settled, self._words, self._address, asks)
        return bind(_return, self._address, link.before(self.policies, True, settled), asks)

    def settle(self, vcpu):
        """Forget the call that returns to RIP: it is over."""
        _settle(self._address, vcpu)


class _Entry:
    """The watcher of the function's entry."""

    def __init__(self, returns):
        self._returns = returns

    def before(self, asks):
        return self._returns.before_entry(asks)

    def settle(self, vcpu):
        pass


@micropython.viper
def _set_of(words: int, rsp: int) -> int:
    """The address of the set of calls for this stack pointer."""
    low = rsp >> 3
    at = (low ^ low >> 5 ^ low >> 10) & int(ptr32(words)[0])
    return words + 4 * (_HEADER + at * _WAYS * _CALL)


@micropython.viper
def _space(vcpu) -> int:
    """A number for the address space: by CR3, 0 in the kernel's half, which all share."""
    f = ptr32(vcpu)
    if f[RSP + 1] & 0x80000000:
        return 0
    return (int(f[CR3 + 1]) & 0xFFFFF) << 19 | int(f[CR3]) >> 13 & 0x7FFFF


@micropython.viper
def _find(words: int, vcpu) -> int:
    """The address of the call that returns to RIP; 0: none."""
    f = ptr32(vcpu)
    at = int(_set_of(words, int(f[RSP]) | int(f[RSP + 1]) << 32))
    end = at + 4 * _WAYS * _CALL
    while at < end:
        c = ptr32(at)
        if c[_USED] and c[0] == f[RSP] and c[_RETURN] == f[RIP] and c[1] == f[RSP + 1] and c[_RETURN + 1] == f[RIP + 1]:
            if int(c[_SPACE]) == int(_space(vcpu)) & 0xFFFFFFFF:
                return at
        at += 4 * _CALL
    return 0


@micropython.viper
def _keep(words: int, gva: int, width: int, vcpu) -> int:
    """Keep the call that is being entered; -1 where there is no room."""
    f = ptr32(vcpu)
    rsp = (int(f[RSP]) | int(f[RSP + 1]) << 32) + width
    at = int(_set_of(words, rsp))
    end = at + 4 * _WAYS * _CALL
    space = int(_space(vcpu))
    found = 0
    while at < end:
        c = ptr32(at)
        if c[_USED] == 0:
            if found == 0:
                found = at
        elif int(c[0]) == rsp & 0xFFFFFFFF and int(c[1]) == rsp >> 32 & 0xFFFFFFFF:
            if int(c[_SPACE]) == space & 0xFFFFFFFF:
                found = at
                break
        at += 4 * _CALL
    if found == 0:
        return -1
    h = ptr32(words)
    h[1] = int(h[1]) + 1
    c = ptr32(found)
    c[0] = rsp
    c[1] = rsp >> 32
    c[_RETURN] = gva
    c[_RETURN + 1] = gva >> 32
    c[_SPACE] = space
    c[_AGE] = h[1]
    c[_USED] = 1
    return 0


@micropython.viper
def _replace(words: int, gva: int, width: int, vcpu):
    """Forget the oldest call of a set, and keep the one that is being entered."""
    f = ptr32(vcpu)
    at = int(_set_of(words, (int(f[RSP]) | int(f[RSP + 1]) << 32) + width))
    end = at + 4 * _WAYS * _CALL
    oldest = at
    now = int(ptr32(words)[1])
    while at < end:
        if now - int(ptr32(at)[_AGE]) & 0xFFFFFFFF > now - int(ptr32(oldest)[_AGE]) & 0xFFFFFFFF:
            oldest = at
        at += 4 * _CALL
    ptr32(oldest)[_USED] = 0
    _keep(words, gva, width, vcpu)


@micropython.viper
def _move(words: int, call: int):
    """Copy a call from a smaller table."""
    c = ptr32(call)
    at = int(_set_of(words, int(c[0]) | int(c[1]) << 32))
    end = at + 4 * _WAYS * _CALL
    while at < end:
        t = ptr32(at)
        if t[_USED] == 0:
            i = 0
            while i < _CALL:
                t[i] = c[i]
                i += 1
            return
        at += 4 * _CALL


@micropython.viper
def _enter(table, known, words: int, asks, slow, vcpu) -> int:
    """The function is entered: keep the call, and go on to `asks`."""
    f = ptr32(vcpu)
    if not f[CS_RIGHTS] & RIGHTS_L or int(f[RSP]) & 0xFFF > PAGE - _WORD:
        return int(slow(vcpu, asks))
    root = (int(f[CR3 + 1]) & 0xFFFFF) << 32 | int(f[CR3]) & 0xFFFFF000
    hpa = int(look.walk(table, root, 48 if f[CR4] & CR4_LA57 else 39, int(f[RSP]) | int(f[RSP + 1]) << 32, 1))
    if hpa < 0:
        return int(slow(vcpu, asks))
    w = ptr32(hpa)
    gva = int(w[0]) | int(w[1]) << 32
    if not known.get(gva & _KEY, False):
        return int(slow(vcpu, asks))
    if int(_keep(words, gva, _WORD, vcpu)) < 0:
        return int(slow(vcpu, asks))
    return int(asks(vcpu))


@micropython.viper
def _return(words: int, link, asks, vcpu) -> int:
    """At a return address: go on to `link` where a kept call returns, else to `asks`."""
    if int(_find(words, vcpu)):
        return int(link(vcpu))
    return int(asks(vcpu))


@micropython.viper
def _settle(words: int, vcpu):
    at = int(_find(words, vcpu))
    if at:
        ptr32(at)[_USED] = 0


@micropython.viper
def _settled(keeps, words: int, asks, vcpu) -> int:
    """The call is over, and the guest goes on. keeps: the array at `words`, which a policy may have replaced."""
    at = int(_find(words, vcpu))
    if at:
        ptr32(at)[_USED] = 0
    return int(asks(vcpu))
