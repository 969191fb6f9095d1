"""The CPU's DR0 to DR3 for a debugger on the monitor; the guest does not see it.

They match linear addresses, mapped or not. The guest's own breakpoints keep their registers, the debugger's take those
that the guest has not enabled; a MOV DR of the guest exits meanwhile and finds its own values. Where the guest enables
all four, the debugger's match no more until it has disabled one. Source: SDM Vol. 3B, "Debug Registers", "Debug
Exceptions".
"""

from micropython import const

from vmm import verdict
from vmm.fault import DB
from vmm.handlers import control as handlers
from vmm.policies.events import EXCEPTION
from vmm.policies.policy import decorator
from vmm.vtx import reasons
from vmm.vtx.controls import ProcBased
from vmm.vtx.vmcs import GUEST_DR7, GUEST_PENDING_DEBUG_EXCEPTIONS
from vmm.vtx.vmcs_bits import PENDING_BS, PENDING_ENABLED

EXECUTE = const(0)  # R/Wn
WRITE = const(1)
READ_WRITE = const(3)

_COUNT = const(4)
_LENGTHS = {1: 0, 2: 1, 4: 3, 8: 2}  # LENn
_CONTROL = dict(ProcBased.fields)["MOV_DR_EXITING"].mask  # of the primary controls
_ALL = const(0xF)


class Match:
    """One breakpoint or watchpoint of the debugger. size: bytes; kind: R/Wn."""

    def __init__(self, gva, size, kind):
        self.gva = gva
        self.size = size
        self.kind = kind


class DebugRegisters:
    """The debugger's use of one VM's. hit(vcpu, match): called at a match, with the Match of take(); may pause."""

    def __init__(self, vm, hit):
        self.vm = vm
        self._hit = hit
        self._wanted = []  # Match objects
        self._own = {}  # by vCPU's number: the guest's (DR0-DR3, DR7)
        self._placed = {}  # by vCPU's number: {register: Match}
        self._policy = None

    def free(self):
        """How many are left for take()."""
        used = max([_enabled(self._guest(vcpu)[1]) for vcpu in self.vm.vcpus])
        return _COUNT - used - len(self._wanted)

    def take(self, gva, size, kind):
        """Match an access of this kind to 1, 2, 4 or 8 bytes, aligned. Returns a Match, for give(), or None."""
        if self.free() < 1:
            return None
        wanted = Match(gva, size, kind)
        if not self._wanted:
            self._begin()
        self._wanted.append(wanted)
        self.apply()
        return wanted

    def give(self, wanted):
        """Match it no longer. wanted: of take()."""
        if wanted in self._wanted:
            self._wanted.remove(wanted)
            self.apply()
            if not self._wanted:
                self._end()

    def _begin(self):
        vm = self.vm
        for vcpu in vm.vcpus:
            self._own[vcpu.number] = self._read(vcpu)
            self._placed[vcpu.number] = {}
        vm.exits.replace(reasons.MOV_DR, "debug registers", lambda vcpu, below: self._mov_dr)
        vm.arming.primary(_CONTROL, 1)
        self._policy = decorator(vm, EXCEPTION, {"vector": DB}, False)(self._exception)

    def _end(self):
        vm = self.vm
        self._policy.detach()
        self._policy = None
        vm.arming.primary(_CONTROL, -1)
        vm.exits.replace(reasons.MOV_DR, "debug registers")
        for vcpu in vm.vcpus:
            self._restore(vcpu)
        self._own = {}
        self._placed = {}

    def _read(self, vcpu):
        debug = vcpu.debug()
        return [debug[i] for i in range(_COUNT)], vcpu.read(GUEST_DR7)

    def _guest(self, vcpu):
        """The guest's own (DR0-DR3, DR7)."""
        return self._own.get(vcpu.number) or self._read(vcpu)

    def dr(self, vcpu, number):
        """A debug register as the guest has it."""
        addresses, dr7 = self._guest(vcpu)
        return dr7 if number == 7 else addresses[number] if number < _COUNT else vcpu.debug()[_COUNT]

    def apply(self):
        """Load the guest's values and the debugger's into each vCPU's registers."""
        for vcpu in self.vm.vcpus:
            self._put(vcpu)

    def restarted(self):
        """Take over the guest's own values, which a reset has changed."""
        if self._wanted:
            for vcpu in self.vm.vcpus:
                self._own[vcpu.number] = self._read(vcpu)
            self.apply()

    def _put(self, vcpu):
        addresses, dr7 = self._own[vcpu.number]
        left = list(self._wanted)
        placed = {}
        now = list(addresses)
        for n in range(_COUNT):
            if left and not dr7 >> 2 * n & 3:
                wanted = placed[n] = left.pop(0)
                now[n] = wanted.gva
                control = _LENGTHS[wanted.size] << 2 | wanted.kind
                dr7 = dr7 & ~(15 << 16 + 4 * n) | 2 << 2 * n | control << 16 + 4 * n
        self._placed[vcpu.number] = placed
        self._write(vcpu, now, dr7)

    def _write(self, vcpu, addresses, dr7):
        debug = vcpu.debug()
        for n in range(_COUNT):
            debug[n] = addresses[n]
        vcpu.write(GUEST_DR7, dr7)

    def _restore(self, vcpu):
        self._write(vcpu, *self._own[vcpu.number])

    def _mov_dr(self, vcpu):
        """Handler of MOV DR: it accesses the guest's own values."""
        self._restore(vcpu)
        answer = handlers.mov_dr(vcpu)
        self._own[vcpu.number] = self._read(vcpu)
        self._put(vcpu)
        return answer

    def matches(self, vcpu, bits):
        """([the debugger's Match of each bit of B0-B3 that is set], these bits)."""
        found = []
        mine = 0
        for n, wanted in self._placed.get(vcpu.number, {}).items():
            if bits >> n & 1:
                found.append(wanted)
                mine |= 1 << n
        return found, mine

    def _exception(self, vcpu):
        """Policy on #DB."""
        found, mine = self.matches(vcpu, vcpu.qualification)
        guests = vcpu.qualification & _ALL & self._enabled(vcpu)
        if not found:
            return None
        self._hit(vcpu, found[0])
        if guests & ~mine or vcpu.qualification & PENDING_BS:
            vcpu.qualification &= ~mine
            return None
        if found[0].kind == EXECUTE:
            return verdict.RETRY
        return verdict.HANDLED

    def _enabled(self, vcpu):
        dr7 = self._guest(vcpu)[1]
        return sum([1 << n for n in range(_COUNT) if dr7 >> 2 * n & 3])

    def stepped(self, vcpu, completed):
        """After a single step: the Match objects that it has hit, a list. The guest gets no #DB for them."""
        if not self._wanted:
            return []
        found, mine = [], 0
        if completed and vcpu.reason == reasons.EXCEPTION_OR_NMI:
            found, mine = self.matches(vcpu, vcpu.qualification)
            vcpu.qualification &= ~mine
        pending = vcpu.read(GUEST_PENDING_DEBUG_EXCEPTIONS)
        more, bits = self.matches(vcpu, pending)
        if bits:
            pending &= ~bits
            if not pending & (_ALL | PENDING_BS):
                pending &= ~PENDING_ENABLED
            vcpu.write(GUEST_PENDING_DEBUG_EXCEPTIONS, pending)
        return found + more


def _enabled(dr7):
    return sum([1 for n in range(_COUNT) if dr7 >> 2 * n & 3])
