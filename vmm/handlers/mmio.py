"""EPT violations and APIC accesses: device memory, unclaimed memory, and pages that a policy watches.

An access by an instruction in the cache of vmm/emulation/sites.py is executed without decoding: on the device's
registers, on unclaimed memory, or, after a policy's handlers, on the page of RAM. Source: SDM Vol. 3C, "Exit
Qualification for EPT Violations", "Exit Qualification for APIC-Access VM Exits".
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

_KEYS = const(0xFFFFF000)  # bits of a gpa that select the handler: a page below 4 GiB
_LINEAR_WRITE = const(1)  # access type in the qualification of APIC accesses; 0: linear read
_RIGHTS = const(7)  # R, W, X of the access
_STEPPED = const(_RIGHTS | EPT_NMI_UNBLOCKING)
# The qualification of an EPT violation by reading an operand, and by writing one.
_READS = const(EPT_LINEAR_VALID | EPT_TRANSLATED | EPT_READ)
_WRITES = const(EPT_LINEAR_VALID | EPT_TRANSLATED | EPT_WRITE)


class Mmio:
    """The EPT violations and APIC accesses of one guest."""

    def __init__(self, vm, bus):
        self.vm = vm
        self.bus = bus
        self.cpu = GuestCpu(vm)
        self._sites = None
        self._exits = None
        self._handlers = {}  # id(device): (device, its handler), kept when the device moves
        self._pages = []  # pages that have a key now
        self.ways = None  # Ways: the read and write functions of each page
        self._steps = {}  # gpa of a page of RAM: step(vcpu) of an instruction that reads it
        self._stepped = None
        self._fetched = None
        # Fast paths for cached instructions (vmm/emulation/sites.py):
        self.length = None  # length(vcpu): bytes of the instruction that made an EPT violation, or 0
        self._lengths = None  # Sites: the instruction cache of any_length()
        self.size = None  # size(vcpu): bytes of that instruction's operand, or 0
        self.quick_answer = None  # quick_answer(vcpu, numbers, handler): Event.quick of MEMORY
        self.apic_access = None  # handler of APIC accesses that the CPU did not virtualize

    def install(self, exits):
        """Set the handlers; a device of exactly one page has a key."""
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
        """Rebuild the keys, after a device was added to the bus or removed."""
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
                    pass  # too many keys: the default handler looks the page up
        self.ways.set()

    def _of_device(self, device):
        """Return the handler of accesses to a device of exactly one page."""
        return self._sites.one_page(device.read, device.write, self.violation)

    def step_reads(self, gpa, step, fetched=None):
        """Set the handler step(vcpu) -> verdict of instructions that read the page of RAM at gpa; None removes it.

        A page without a key (there are too many, or it lies above 4 GiB) keeps the default handler, which is slower.
        fetched(vcpu) -> verdict: the handler of fetches from the page; with it, ValueError if the page gets no key.
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
        """Return the handler that steps any access to a page of step_reads() that has a key."""
        return bind(_step_there, self._steps)

    def _learn(self, vcpu):
        """Return the number of the instruction at RIP (vmm/emulation/fastops.py); 0 if it has none."""
        try:
            self.cpu.take(vcpu)
            instruction = self.cpu.instruction.decode(self.cpu.fetch(vcpu), self.cpu.bits)
        except (DecodeError, Fault, Unbacked):
            return 0
        number, immediate, operand = fastops.encode(instruction)
        self._sites.told(immediate, operand)
        return number

    def operand_size(self, vcpu):
        """Return the bytes of the operand of the instruction that caused the EPT violation; 0: not known."""
        size = self.size(vcpu)
        if size:
            return size
        try:
            self.cpu.take(vcpu)
            return self.cpu.instruction.decode(self.cpu.fetch(vcpu), self.cpu.bits).mem_size
        except (DecodeError, Fault, Unbacked):
            return 0

    def any_length(self):
        """Return length(vcpu): bytes of the instruction at RIP, of any kind; 0: not known. It reads frame.WANT_CODE.

        The first call allocates its instruction cache of 9 KiB.
        """
        if self._lengths is None:
            _, size, hpa = self.vm.memory.segments[0]
            self._lengths = sites.Sites(hpa, size, False, self._learn_length)
        return self._lengths.lengths()

    def _learn_length(self, vcpu):
        """Return the length of the instruction at RIP; 0 if it cannot be fetched."""
        try:
            self.cpu.take(vcpu)
            return length.length(self.cpu.fetch(vcpu), self.cpu.bits)
        except (length.Unknown, Fault, Unbacked):
            return 0

    def violation(self, vcpu):
        """Handler of EPT violations that no fast path handles, as by instructions that are not cached."""
        gpa = vcpu.gpa
        answers.again(vcpu)
        if self.vm.demand_paging and self.vm.ept.touch(gpa):
            return verdict.RESUME
        if self.vm.memory.has(gpa):
            return vcpu.stepper.step(gpa & PAGE_MASK, vcpu.qualification & _RIGHTS)
        if vcpu.qualification & EPT_FETCH:
            self.vm.report(vcpu, "the guest runs code at gpa %#x, where there is no RAM" % gpa)
            return verdict.STOP
        if vcpu.vectoring_info & events.VALID:
            return self._in_delivery(vcpu, gpa)
        if not vcpu.qualification & EPT_TRANSLATED:
            self.vm.report(vcpu, "the guest's page tables are at gpa %#x, where there is no RAM" % gpa)
            return verdict.STOP
        return self.cpu.execute(vcpu)

    def _apic_otherwise(self, vcpu):
        """Handle an APIC access other than a read or write by an instruction's operand."""
        if vcpu.vectoring_info & events.VALID:
            events.requeue(vcpu)
            return self._in_delivery(vcpu, APIC_BASE | vcpu.qualification & (PAGE - 1))
        return self.cpu.execute(vcpu)

    def _in_delivery(self, vcpu, gpa):
        """Stop the guest: the CPU made the access during event delivery, so there is no instruction to emulate."""
        self.vm.report(
            vcpu,
            "vector %d was being delivered when the CPU touched gpa %#x, where there is no RAM: "
            "the stack, IDT, GDT or TSS for it" % (vcpu.vectoring_info & 0xFF, gpa),
        )
        return verdict.STOP

    # -- policies

    def answer(self, vcpu, value):
        """Carry out a policy's Value for a memory access: the value that is read, or written instead."""
        return self.cpu.execute(vcpu, value)

    def _store(self, offset, size, value):
        self.vm.physical_store(self._sites.page << 12 | offset, size, value)


@micropython.viper
def _step_read(steps, otherwise, vcpu) -> int:
    """Handler of EPT violations at a page of step_reads()."""
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
    """Handler of EPT violations at a page of step_reads() with `fetched`."""
    f = ptr32(vcpu)
    if int(f[QUALIFICATION]) & _STEPPED != EPT_FETCH or int(f[VECTORING_INFO]) & VALID:
        return int(otherwise(vcpu))
    return int(fetched(vcpu))


@micropython.viper
def _apic_access(short, otherwise, vcpu) -> int:
    """Handler of APIC accesses: converted to an EPT violation by the same access."""
    f = ptr32(vcpu)
    qualification = int(f[QUALIFICATION])
    kind = qualification >> 12 & 15
    if kind > _LINEAR_WRITE:
        return int(otherwise(vcpu))
    f[GPA] = APIC_BASE | qualification & (PAGE - 1)
    f[GPA + 1] = 0
    f[QUALIFICATION] = _WRITES if kind == _LINEAR_WRITE else _READS
    return int(short(vcpu))
