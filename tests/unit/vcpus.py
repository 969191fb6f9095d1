"""A vCPU without hardware: the methods of vmx.VCPU and vmm/vtx/vcpu.py over a dict of VMCS fields."""

from support import Memory

from vmm.memory.linear import Linear
from vmm.memory.paging import Walker
from vmm.vtx import controls, vmcs
from vmm.vtx.breakpoints import Breakpoints

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi") + tuple("r%d" % i for i in range(8, 16))
CODE, DATA, TSS, LDT, UNUSABLE = 0xC09B, 0xC093, 0x8B, 0x82, 0x10000


class Caps:
    cr0_fixed0 = 0x80000021
    cr0_fixed1 = 0xFFFFFFFF
    cr4_fixed0 = 0x2000
    cr4_fixed1 = 0x3767FF
    misc = controls.VmxMisc(0x600401E0)


class Monitor:
    caps = Caps()


class Cpuid:
    width = 40

    def leaf(self, leaf, subleaf):
        return (0x3028, 0, 0, 0)  # 40 and 48 address bits


class Vm:
    monitor = Monitor()
    cpuid = Cpuid()

    def __init__(self, size):
        self.memory = Memory(size)
        self.walker = Walker(self.memory, 40)
        self.flushes = 0
        self.reports = []
        self.physical_read = self.memory.read
        self.physical_write = self.memory.write
        self.linear = Linear(self)

    def physical_load(self, gpa, size):
        return int.from_bytes(self.memory.read(gpa, size), "little")

    def physical_store(self, gpa, size, value):
        self.memory.write(gpa, value.to_bytes(size, "little"))

    def new_walker(self):
        return Walker(self.memory, 40)

    def load_walker(self, vcpu):
        self.walker.follow(vcpu)
        return self.walker

    def flush(self):
        self.flushes += 1

    def log(self, text):
        self.reports.append(text)

    def report(self, vcpu, text):
        self.reports.append(text)


def _field(name):
    field = getattr(vmcs, name)
    return property(lambda self: self.read(field), lambda self, value: self.write(field, value))


class Vcpu:
    """Flat 32-bit protected mode at first, a state that VM entry takes."""

    injections = None

    cr0 = _field("GUEST_CR0")
    cr3 = _field("GUEST_CR3")
    cr4 = _field("GUEST_CR4")
    efer = _field("GUEST_IA32_EFER")
    dr7 = _field("GUEST_DR7")

    def __init__(self, size=0x10000):
        self.vm = Vm(size)
        self.fields = {}
        for encoding in vmcs.fields().values():
            self.fields[encoding] = 0
        self.write(vmcs.PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, 1 << 31)
        self.write(vmcs.SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, 1 << 1 | 1 << 7)
        self.write(vmcs.VM_ENTRY_CONTROLS, 1 << 2 | 1 << 14 | 1 << 15)
        self.write(vmcs.GUEST_IA32_PAT, 0x0007040600070406)
        self.write(vmcs.VMCS_LINK_POINTER, 0xFFFFFFFFFFFFFFFF)
        self.cr0, self.cr4, self.dr7 = 0x31, 0x2000, 0x400
        for name in GPRS:
            setattr(self, name, 0)
        self.rip, self.rflags, self.cr2 = 0, 2, 0
        for name in SEGMENTS:
            self.set_segment(name, 0x10, 0, 0xFFFFFFFF, DATA)
        self.set_segment("cs", 0x08, 0, 0xFFFFFFFF, CODE)
        self.set_segment("ldtr", 0, 0, 0, UNUSABLE)
        self.set_segment("tr", 0, 0, 0x67, TSS)
        self.reason = self.qualification = self.length = self.instr_info = 0
        self.vectoring_info = self.vectoring_error = 0
        self.entry_tsc = 5
        self.injected = (0, 0, 0)
        self.pkru = 0
        self.debug_registers = [0, 0, 0, 0, 0xFFFF0FF0]
        self.number = 0
        self.breakpoints = Breakpoints()
        self.flush = self.vm.flush

    def read(self, field):
        return self.fields[field]

    def write(self, field, value):
        self.fields[field] = value

    def segment(self, name):
        i = 2 * SEGMENTS.index(name)
        return tuple([self.fields[base + i] for base in (0x800, 0x6806, 0x4800, 0x4814)])

    def set_segment(self, name, selector, base, limit, rights):
        i = 2 * SEGMENTS.index(name)
        for encoding, value in ((0x800, selector), (0x6806, base), (0x4800, limit), (0x4814, rights)):
            self.fields[encoding + i] = value

    @property
    def cs(self):
        return self.segment("cs")

    @property
    def cpl(self):
        return self.segment("ss")[3] >> 5 & 3

    @property
    def bits(self):
        rights = self.segment("cs")[3]
        if self.efer & 1 << 10 and rights & 1 << 13:
            return 64
        return 32 if rights & 1 << 14 else 16

    def dr(self, n):
        return self.debug_registers[n]

    def pdptes(self):
        return tuple([self.read(vmcs.GUEST_PDPTE0 + 2 * i) for i in range(4)])

    def peek(self, gva, size):
        return self.vm.memory.read(gva, size)

    def event(self, info, error=0, length=0):
        self.injected = (info, error, length)

    def injecting(self):
        return self.injected[0]

    def debug(self):
        return self.debug_registers

    def long_mode(self):
        """64-bit mode; paging structures are the test's."""
        self.cr0, self.cr4, self.efer = 0x80000031, 0x2020, 0x501
        self.write(vmcs.VM_ENTRY_CONTROLS, 1 << 2 | 1 << 9 | 1 << 14 | 1 << 15)
        self.set_segment("cs", 0x08, 0, 0xFFFFFFFF, 0xA09B)
