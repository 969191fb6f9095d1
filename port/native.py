"""What help() says of names that are written in C: read by texts.py, and never executed.

Class Vcpu is merged with vmm.vtx.vcpu.Vcpu; the others are the modules of their names. tests/unit/test_texts.py
compares them with the tables in C.
"""


class Vcpu:
    """The registers in the frame, and methods."""

    rax = rbx = rcx = rdx = rsi = rdi = rbp = rsp = 0  # a register; it can be set while the guest stands still
    r8 = r9 = r10 = r11 = r12 = r13 = r14 = r15 = 0  # a register; it can be set while the guest stands still
    rip = 0  # offset of the next instruction; inside a policy of the one that exited
    rflags = 0  # RFLAGS
    cr2 = 0  # CR2: the gva of the last page fault
    xcr0 = 0  # XCR0: the state components that XSAVE saves
    reason = 0  # the last exit's reason, vmm/vtx/reasons.py
    qualification = 0  # the last exit's qualification: what it means is said by the reason
    gpa = 0  # the guest-physical address of the last EPT violation
    intr_info = 0  # VM-exit interruption information of the last exit by an exception
    intr_error = 0  # its error code
    entry_error = 0  # the error code of the event that waits to be injected
    guest_ticks = 0  # ticks of the host's TSC spent in the guest
    host_ticks = 0  # ticks of the host's TSC spent in the monitor for its exits
    vm = None  # the guest that it is of
    number = 0  # which of the guest's vCPUs it is, from 0; the APIC ID
    clock = None  # its time
    lapic = None  # its local APIC
    events = None  # what waits to be injected
    scheduled = None  # its state for the scheduler

    def read(self, field):
        """Return a field of its VMCS, as VMREAD does (SDM Vol. 3C, "VMCS Layout"); vmm/vtx/vmcs.py has their names.

        What the frame keeps is read by its own name: vcpu.rip, vcpu.rsp, vcpu.rflags. VmxError for a field that the
        CPU lacks.

        Example:

            from vmm.vtx.vmcs import GUEST_CR3
            hex(vms["linux"].vcpu.read(GUEST_CR3))
        """

    def write(self, field, value):
        """Write a field of its VMCS, as VMWRITE does. Nothing is checked: a nonsense value fails at the next VM entry.

        Example:

            from vmm.vtx.vmcs import GUEST_CR3
            vcpu.write(GUEST_CR3, vcpu.read(GUEST_CR3))
        """

    def msr(self, index, value=None):
        """Return, or write, one of the guest's MSRs that stay in the CPU while it runs: SYSCALL's, FS and GS bases.

        KeyError for an MSR that is emulated: vm.msrs.read(vcpu, index) has those.

        Example:

            hex(vms["linux"].vcpu.msr(0xC0000082))
        """

    def dr(self, n):
        """Return DR0, DR1, DR2 or DR3 by its number; vcpu.dr7 says which are enabled.

        Example:

            [hex(vms["linux"].vcpu.dr(n)) for n in range(4)]
        """

    def fpu(self):
        """Return the state of x87, SSE, AVX as a memoryview of the XSAVE area, which can be written.

        Source: SDM Vol. 1, "XSAVE Area". Example, XMM0:

            bytes(vms["linux"].vcpu.fpu()[160:176])
        """

    def event(self, info, error=0, length=0):
        """Let the next VM entry inject an event: its type, vector and bit 31 in `info`; 0 takes it back.

        error: its error code; length: of the instruction, for software interrupts. A policy answers
        Inject(vector, error) instead. Source: SDM Vol. 3C, "VM-Entry Controls for Event Injection". Example, #UD:

            vms["linux"].vcpu.event(1 << 31 | 3 << 8 | 6)
        """

    def injecting(self):
        """Return the information on the event that waits for the next VM entry, its vector in bits 7:0; 0: none.

        Example:

            hex(vms["linux"].vcpu.injecting())
        """

    def translate(self, gva):
        """Return the gpa of a gva, by the page tables that are live. ValueError says why there is none.

        Example:

            hex(vms["linux"].vcpu.translate(vms["linux"].vcpu.rip))
        """


class cpu:
    """The host's CPU: instructions of ring 0, and what the port offers to the monitor.

    Example:

        cpu.cpuid(0)
    """

    def cpuid(leaf, subleaf=0):
        """Return (EAX, EBX, ECX, EDX). Example: cpu.cpuid(7, 0)"""

    def rdmsr(index):
        """Return an MSR of the host. cpu.HostFault where it does not exist. Example: hex(cpu.rdmsr(0x1B))"""

    def wrmsr(index, value):
        """Write an MSR of the host. cpu.HostFault where the CPU refuses it. Example: cpu.wrmsr(0x10A, 0)"""

    def cr(number):
        """Return CR0, CR2, CR3, CR4 or CR8 of the host by its number. Example: hex(cpu.cr(4))"""

    def set_cr(number, value):
        """Write CR0, CR2, CR3, CR4 or CR8 of the host. Example: cpu.set_cr(4, cpu.cr(4))"""

    def xcr0():
        """Return XCR0 of the host. Example: hex(cpu.xcr0())"""

    def inb(port):
        """Return a byte of a port of the host. Example: hex(cpu.inb(0x61))"""

    def inw(port):
        """Return 16 bits of a port of the host. Example: hex(cpu.inw(0x1F0))"""

    def inl(port):
        """Return 32 bits of a port of the host. Example: hex(cpu.inl(0xCFC))"""

    def outb(port, value):
        """Write a byte to a port of the host. Example: cpu.outb(0x80, 0)"""

    def outw(port, value):
        """Write 16 bits to a port of the host. Example: cpu.outw(0x80, 0)"""

    def outl(port, value):
        """Write 32 bits to a port of the host. Example: cpu.outl(0xCF8, 0x80000000)"""

    def rdtsc():
        """Return the host's TSC; cpu.tsc_hz is its frequency. Example: cpu.rdtsc() // cpu.tsc_hz"""

    def history():
        """Return the lines typed at the prompt, oldest first. Example: print("\\\\n".join(cpu.history()))"""

    def heap():
        """Return figures of Python's heap, its size in bytes first. Example: cpu.heap()[0] >> 10"""

    def nmis():
        """Return how many NMIs the host has had. Example: cpu.nmis()"""


class multiboot:
    """What the boot loader said.

    Example:

        multiboot.cmdline()
    """

    def cmdline():
        """Return the monitor's own command line. Example: multiboot.cmdline()"""

    def memory():
        """Return the machine's memory map: [(base, bytes, type), ...]. Example: multiboot.memory()"""

    def modules():
        """Return the boot modules, [(string, hpa, bytes), ...]: guests, kernels. Example: multiboot.modules()"""

    def image():
        """Return (hpa, bytes) of the monitor's own image. Example: multiboot.image()"""

    def loader():
        """Return the boot loader's name. Example: multiboot.loader()"""

    def rsdp():
        """Return the hpa of ACPI's RSDP as the boot loader has copied it; 0: it gave none. Example: multiboot.rsdp()"""

    def heap():
        """Return (hpa, bytes) of all that was taken at the start: heap, code, files. Example: multiboot.heap()"""
