"""EPT violations and APIC accesses: device memory, unclaimed memory, and pages that a policy watches.

An access by an instruction that vmm/emulation/sites.py knows is executed at once: on the device's registers, on
unclaimed memory, or, after a policy has seen it, on the page of RAM itself. Source: SDM Vol. 3C, "Exit Qualification
for EPT Violations", "Exit Qualification for APIC-Access VM Exits".
"""

import micropython
from micropython import const
from vmx import bind

from vmm import verdict
from vmm.emulation import fastops, length, sites
from vmm.emulation.access import GuestCpu
from vmm.emulation.decode import DecodeError
from vmm.fault import Fault
from vmm.handlers import touch
from vmm.handlers.device_pages import Ways
from vmm.memory.linear import Unbacked
from vmm.policies import answers
from vmm.vtx import events, frame, reasons
from vmm.vtx.events import VALID
from vmm.vtx.frame import GPA, QUALIFICATION, VECTORING_INFO
from vmm.vtx.vmcs_bits import EPT_FETCH, EPT_LINEAR_VALID, EPT_NMI_UNBLOCKING, EPT_READ, EPT_TRANSLATED, EPT_WRITE
from vmm.vtx.x86 import APIC_BASE, PAGE, PAGE_MASK

_KEYS = const(0xFFFFF000)  # of a gpa, which chooses among handlers: a page below 4 GiB
_LINEAR_WRITE = const(1)  # access type in the qualification of APIC accesses; 0: linear read
_RIGHTS = const(7)  # R, W, X of the access
_STEPPED = const(_RIGHTS | EPT_NMI_UNBLOCKING)
# An EPT violation by an operand that is read, and by one that is written.
_READS = const(EPT_LINEAR_VALID | EPT_TRANSLATED | EPT_READ)
_WRITES = const(EPT_LINEAR_VALID | EPT_TRANSLATED | EPT_WRITE)


class Mmio:
    """The memory side of one guest's exits."""

    def __init__(self, vm, bus):
        self.vm = vm
        self.bus = bus
        self.cpu = GuestCpu(vm)
        self._sites = None
        self._exits = None
        self._handlers = {}  # id(device): (device, its handler), kept when the device moves
        self._pages = []  # pages that have a handler of their own now
        self.ways = None  # which functions a page's accesses go to
        self._steps = {}  # gpa of a page of RAM: what steps an instruction that reads it
        self._stepped = None
        self._fetched = None
        # Fast paths for the cached instructions (vmm/emulation/sites.py):
        self.length = None  # length(vcpu): bytes of the instruction that made an EPT violation, or 0
        self._lengths = None  # Sites of instructions that any_length() knows
        self.size = None  # size(vcpu): bytes of that instruction's operand, or 0
        self.quick_answer = None  # quick_answer(vcpu, numbers, handler): Event.quick of MEMORY
        self.apic_access = None  # handler of APIC accesses that the CPU did not virtualize: as of a device's page

    def install(self, exits):
        """Set the handlers; a page that is one device has a key of its own."""
        deferred = self.vm.demand_paging
        _, size, hpa = self.vm.memory.segments[0]
        self._sites = known = sites.Sites(hpa, size, not deferred, self._learn)
        self.ways = Ways(self.bus, known, size)
        general = known.general(self.ways.below, self.ways.beyond, self.ways.others, self.violation)
        self.length = known.lengths()
        self.size = known.sizes()
        self.quick_answer = known.answers(self._store)
        exits.add(
            reasons.EPT_VIOLATION,
            touch.ept_violation(self.vm.ept.root, general) if deferred else general,
            frame.WANT_GPA | frame.WANT_LINEAR | frame.WANT_VECTORING | frame.WANT_CODE | frame.WANT_DR7,
        )
        exits.keyed(reasons.EPT_VIOLATION, 4 * frame.GPA, _KEYS, 6)
        self._exits = exits
        self.apic_access = exits.each(
            lambda vcpu: bind(_apic_access, self._of_device(vcpu.lapic), self._apic_otherwise)
        )
        self.bus.changed = self._rewired
        self._rewired()

    def _rewired(self):
        """A device was added to the bus or removed."""
        for page in self._pages:
            self._exits.unkey(reasons.EPT_VIOLATION, page)
        self._pages = []
        for base, end, device in self.bus.regions:
            if end - base == PAGE and base == base & _KEYS:
                known = self._handlers.get(id(device))
                if known is None:
                    if hasattr(device, "each"):  # one for each vCPU
                        known = device, tuple([self._of_device(each) for each in device.each])
                    else:
                        known = device, self._of_device(device)
                    self._handlers[id(device)] = known
                try:
                    self._exits.key(reasons.EPT_VIOLATION, base, known[1])
                    self._pages.append(base)
                except ValueError:
                    pass  # too many keys: the handler of all other pages finds its way
        self.ways.set()

    def _of_device(self, device):
        """The handler of accesses to a page that is one device's."""
        return self._sites.one_page(device.read, device.write, self.violation)

    def step_reads(self, gpa, step, fetched=None):
        """An instruction that reads the page of RAM at gpa is stepped by step(vcpu) -> verdict; None: no longer.

        Where the page has no key, because there are too many or it lies above 4 GiB, it is stepped the slow way.
        fetched(vcpu) -> verdict: the handler of fetches from the page; ValueError where it can have no key.
        """
        if self._stepped is None:
            self._stepped = bind(_step_read, self._steps, self._exits.default(reasons.EPT_VIOLATION))
        if step is None:
            if self._steps.pop(gpa, None) is not None:
                self._exits.unkey(reasons.EPT_VIOLATION, gpa)
            return
        if fetched is not None and self._fetched is None:  # one object for all pages: a handler takes a slot
            self._fetched = bind(_fetch, fetched, self._stepped)
        try:
            if gpa >> 32:
                raise ValueError("gpa %#x lies above 4 GiB" % gpa)
            handler = self._stepped if fetched is None else self._fetched
            self._exits.key(reasons.EPT_VIOLATION, gpa, handler, watches=True)
            self._steps[gpa] = step
        except ValueError as error:
            if fetched is not None:
                raise ValueError("fetches from the page at gpa %#x cannot be watched: %s" % (gpa, error))

    def step_there(self):
        """Return the handler that steps an instruction at a page of step_reads(), whatever it accesses there."""
        return bind(_step_there, self._steps)

    def _learn(self, vcpu):
        """The number of the instruction at RIP (vmm/emulation/fastops.py), 0 where it has none."""
        try:
            self.cpu.take(vcpu)
            instruction = self.cpu.instruction.decode(self.cpu.fetch(vcpu), self.cpu.bits)
        except (DecodeError, Fault, Unbacked):
            return 0
        number, immediate, operand = fastops.encode(instruction)
        self._sites.told(immediate, operand)
        return number

    def operand_size(self, vcpu):
        """Bytes of the operand of the instruction that made an EPT violation; 0: not known."""
        size = self.size(vcpu)
        if size:
            return size
        try:
            self.cpu.take(vcpu)
            return self.cpu.instruction.decode(self.cpu.fetch(vcpu), self.cpu.bits).mem_size
        except (DecodeError, Fault, Unbacked):
            return 0

    def any_length(self):
        """Return length(vcpu): bytes of the instruction at RIP, whatever it is; 0: not known. It reads frame.WANT_CODE.

        What it knows takes 9 KiB, from the first call on.
        """
        if self._lengths is None:
            _, size, hpa = self.vm.memory.segments[0]
            self._lengths = sites.Sites(hpa, size, False, self._learn_length)
        return self._lengths.lengths()

    def _learn_length(self, vcpu):
        """The length of the instruction at RIP; 0 where it cannot be fetched."""
        try:
            self.cpu.take(vcpu)
            return length.length(self.cpu.fetch(vcpu), self.cpu.bits)
        except (length.Unknown, Fault, Unbacked):
            return 0

    def violation(self, vcpu):
        """Handler of all other EPT violations, by instructions that are not cached among them."""
        gpa = vcpu.gpa
        answers.again(vcpu)
        if self.vm.demand_paging and self.vm.ept.touch(gpa):
            return verdict.RESUME
        if self.vm.memory.has(gpa):
            return vcpu.stepper.step(gpa & PAGE_MASK, vcpu.qualification & _RIGHTS)
        if vcpu.qualification & 4:
            self.vm.report(vcpu, "the guest runs code at gpa %#x, where there is no RAM" % gpa)
            return verdict.STOP
        if vcpu.vectoring_info & events.VALID:
            return self._in_delivery(vcpu, gpa)
        if not vcpu.qualification & 0x100:
            self.vm.report(vcpu, "the guest's page tables are at gpa %#x, where there is no RAM" % gpa)
            return verdict.STOP
        return self.cpu.execute(vcpu)

    def _apic_otherwise(self, vcpu):
        """An APIC access that is not an instruction's operand."""
        if vcpu.vectoring_info & events.VALID:
            events.requeue(vcpu)
            return self._in_delivery(vcpu, APIC_BASE | vcpu.qualification & (PAGE - 1))
        return self.cpu.execute(vcpu)

    def _in_delivery(self, vcpu, gpa):
        """The CPU made the access while it delivered an event: there is no instruction to execute."""
        self.vm.report(
            vcpu,
            "vector %d was being delivered when the CPU touched gpa %#x, where there is no RAM: "
            "the stack, IDT, GDT or TSS for it" % (vcpu.vectoring_info & 0xFF, gpa),
        )
        return verdict.STOP

    # -- policies

    def answer(self, vcpu, value):
        """Carry out a policy's Value for a memory access: the value read, or written instead."""
        return self.cpu.execute(vcpu, value)

    def _store(self, offset, size, value):
        self.vm.physical_store(self._sites.page << 12 | offset, size, value)


@micropython.viper
def _step_read(steps, otherwise, vcpu) -> int:
    """A violation at a page of step_reads()."""
    f = ptr32(vcpu)
    if int(f[QUALIFICATION]) & _STEPPED != EPT_READ or int(f[VECTORING_INFO]) & VALID:
        return int(otherwise(vcpu))
    gpa = int(f[GPA]) & 0xFFFFF000 | int(f[GPA + 1]) << 32
    return int(steps.get(gpa, otherwise)(vcpu))


@micropython.viper
def _step_there(steps, vcpu) -> int:
    f = ptr32(vcpu)
    return int(steps[int(f[GPA]) & 0xFFFFF000](vcpu))


@micropython.viper
def _fetch(fetched, otherwise, vcpu) -> int:
    """A violation at a page of step_reads() with fetches."""
    f = ptr32(vcpu)
    if int(f[QUALIFICATION]) & _STEPPED != EPT_FETCH or int(f[VECTORING_INFO]) & VALID:
        return int(otherwise(vcpu))
    return int(fetched(vcpu))


@micropython.viper
def _apic_access(short, otherwise, vcpu) -> int:
    """APIC access: as an EPT violation of the same access."""
    f = ptr32(vcpu)
    qualification = int(f[QUALIFICATION])
    kind = qualification >> 12 & 15
    if kind > _LINEAR_WRITE:
        return int(otherwise(vcpu))
    f[GPA] = APIC_BASE | qualification & (PAGE - 1)
    f[GPA + 1] = 0
    f[QUALIFICATION] = _WRITES if kind == _LINEAR_WRITE else _READS
    return int(short(vcpu))
