"""A virtual CPU: its VMCS, and its methods and properties in Python.

`Vcpu` holds the methods and properties of vmx.VCPU objects; the registers themselves are
native attributes (port/vcpu.c). Source: SDM Vol. 3C, "Virtual Machine Control
Structures" and "Checks on VMX Controls, Host-State Area, Guest-State Area".
"""

import struct

import cpu
import uctypes
import vmx
from micropython import const

from vmm.loaders.state import SEGMENTS
from vmm.memory import look
from vmm.vtx import vmcs as v
from vmm.vtx.vmcs_bits import ENTRY_IA32E_MODE_GUEST, INVVPID_SINGLE_CONTEXT, RIGHTS_DPL_SHIFT
from vmm.vtx.x86 import (
    CR0_CD,
    CR0_EM,
    CR0_ET,
    CR0_MP,
    CR0_NE,
    CR0_NW,
    CR0_PG,
    CR0_TS,
    CR4_MCE,
    CR4_VMXE,
    EFER_LMA,
    MASK64,
    MXCSR,
    MXCSR_RESET,
    XSTATE_BV,
)

_CR0_CD_NW = const(CR0_CD | CR0_NW)
# Bits of CR0 that the guest reads from the read shadow. Under KVM (nested), a cleared ET stays cleared, and LMSW and
# CLTS expose the real NE. So the monitor owns ET, and while the guest's NE differs from the real one also the bits
# that these two instructions change.
CR0_OWNED = const(CR0_ET | CR0_NE | CR0_NW | CR0_CD)
CR0_OWNED_WITHOUT_NE = const(CR0_ET | CR0_NE | CR0_NW | CR0_CD | CR0_MP | CR0_EM | CR0_TS)
_CR4_FORCED = const(CR4_MCE | CR4_VMXE)  # without MCE a machine check would shut the CPU down
_PAT_RESET = const(0x0007040600070406)


# State component 9 of the XSAVE area.
_PKRU = const(9)
_PKRU_HIGH = const(2)


class Vcpu:
    """A virtual processor. Registers are attributes, which can be set while the guest does not run.

    `vm`: its machine; `number`: from 0, also the APIC ID; vmm/processors.py adds the others.

    For users: rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags, cr0, cr2,
    cr3, cr4, efer, dr7, xcr0, cs, ss, segment, set_segment, cpl, bits, pkru, pdptes, reason, qualification, gpa,
    intr_info, intr_error, injecting, entry_error, guest_ticks, host_ticks, read, write, msr, dr, fpu, event, peek,
    poke, space, translate, registers, flush, vm, number, clock, lapic, events, scheduled.

    Example:

        vcpu = vms["linux"].vcpu
        vcpu.peek(vcpu.rsp, 16)
    """

    injections = None  # calls policies when an exception is injected (vmm/policies/injections.py)

    # -- control registers as the guest sees them

    @property
    def cr0(self):
        """CR0 as the guest sees it. It can be set, as cr3, cr4, efer and dr7."""
        mask = self.read(v.CR0_GUEST_HOST_MASK)
        return self.read(v.GUEST_CR0) & ~mask | self.read(v.CR0_READ_SHADOW) & mask

    @cr0.setter
    def cr0(self, value):
        self.write(v.CR0_READ_SHADOW, value)
        self.write(v.CR0_GUEST_HOST_MASK, self._cr0_mask(value))
        forced = self.cr0_fixed & ~(1 | CR0_PG)
        self.write(v.GUEST_CR0, (value | forced) & ~_CR0_CD_NW)
        lma = value & CR0_PG and self.read(v.GUEST_IA32_EFER) & 1 << 8
        self._long_mode(bool(lma))

    def _cr0_mask(self, value):
        if self.owns_cr0:
            return MASK64
        return CR0_OWNED if value & CR0_NE else CR0_OWNED_WITHOUT_NE

    def own_registers(self, cr0, cr4):
        """cr0, cr4: whether writes that change any bit of the register exit; else only those of the monitor's bits."""
        value = self.cr0
        self.owns_cr0 = cr0
        self.write(v.CR0_READ_SHADOW, value)
        self.write(v.CR0_GUEST_HOST_MASK, self._cr0_mask(value))
        self.write(v.CR4_READ_SHADOW, self.cr4)
        self.write(v.CR4_GUEST_HOST_MASK, MASK64 if cr4 else cr4_mask(self.vm))

    @property
    def cr4(self):
        """CR4 as the guest sees it."""
        mask = self.read(v.CR4_GUEST_HOST_MASK)
        return self.read(v.GUEST_CR4) & ~mask | self.read(v.CR4_READ_SHADOW) & mask

    @cr4.setter
    def cr4(self, value):
        self.write(v.CR4_READ_SHADOW, value)
        self.write(v.GUEST_CR4, value | _CR4_FORCED)

    @property
    def cr3(self):
        """CR3: the gpa of the top page table, PCID and flags."""
        return self.read(v.GUEST_CR3)

    @cr3.setter
    def cr3(self, value):
        self.write(v.GUEST_CR3, value)

    @property
    def efer(self):
        """IA32_EFER."""
        return self.read(v.GUEST_IA32_EFER)

    @efer.setter
    def efer(self, value):
        self.write(v.GUEST_IA32_EFER, value)
        self._long_mode(bool(value & EFER_LMA))

    def _long_mode(self, on):
        """Set EFER.LMA and the entry control "IA-32e mode guest", which must be equal."""
        efer = self.read(v.GUEST_IA32_EFER)
        self.write(v.GUEST_IA32_EFER, efer & ~EFER_LMA | (EFER_LMA if on else 0))
        controls = self.read(v.VM_ENTRY_CONTROLS)
        self.write(v.VM_ENTRY_CONTROLS, controls & ~ENTRY_IA32E_MODE_GUEST | (ENTRY_IA32E_MODE_GUEST if on else 0))

    @property
    def dr7(self):
        """DR7; dr(0) to dr(3) are the others."""
        return self.read(v.GUEST_DR7)

    @dr7.setter
    def dr7(self, value):
        self.write(v.GUEST_DR7, value)

    # -- segments: (selector, base, limit, access rights)

    def segment(self, name):
        """(selector, base, limit, access rights) of "cs", "ss", "ds", "es", "fs", "gs", "ldtr" or "tr"."""
        i = 2 * SEGMENTS.index(name)
        return (
            self.read(v.GUEST_ES_SELECTOR + i),
            self.read(v.GUEST_ES_BASE + i),
            self.read(v.GUEST_ES_LIMIT + i),
            self.read(v.GUEST_ES_ACCESS_RIGHTS + i),
        )

    def set_segment(self, name, selector, base, limit, rights):
        """Load a segment register's four parts."""
        i = 2 * SEGMENTS.index(name)
        self.write(v.GUEST_ES_SELECTOR + i, selector)
        self.write(v.GUEST_ES_BASE + i, base)
        self.write(v.GUEST_ES_LIMIT + i, limit)
        self.write(v.GUEST_ES_ACCESS_RIGHTS + i, rights)

    @property
    def cs(self):
        """segment("cs")."""
        return self.segment("cs")

    @property
    def ss(self):
        """segment("ss")."""
        return self.segment("ss")

    @property
    def cpl(self):
        """Current privilege level: the DPL of SS."""
        return self.read(v.GUEST_SS_ACCESS_RIGHTS) >> RIGHTS_DPL_SHIFT & 3

    @property
    def bits(self):
        """Width of the code that runs: 16, 32 or 64."""
        rights = self.read(v.GUEST_CS_ACCESS_RIGHTS)
        if self.efer & EFER_LMA and rights & 1 << 13:
            return 64
        return 32 if rights & 1 << 14 else 16

    # -- Linux

    @property
    def task(self):
        """The struct task_struct of the current task. ValueError if the guest does not run Linux (yet)."""
        from vmm.insight.linux import current

        return current.of(self.vm).task(self)

    @property
    def syscall(self):
        """The current system call (vmm/insight/linux/calls.py). ValueError if the vCPU is in none."""
        from vmm.insight.linux import calls

        return calls.of(self)

    @property
    def packet(self):
        """The frame for which a policy on PACKET is called (vmm/network/packet.py); None elsewhere."""
        expansion = self.vm.expansion
        return expansion.packets.packet if expansion is not None and expansion.packets is not None else None

    # -- memory by guest-virtual address

    def space(self, cr3=None):
        """Its address space (vmm/memory/look.py); with `cr3` that of another task in the same paging mode."""
        return look.space(self, cr3)

    def peek(self, gva, size, space=None):
        """Return `size` bytes at a guest-virtual address. ValueError with the reason if it cannot be read.

        space: the address space, a CR3 or a Space (vcpu.space(cr3), vm.kernel.space); None: the current one, or the
        kernel's for a kernel address that page-table isolation has unmapped.
        """
        try:
            return look.holding(self, gva, space).read(gva, size)
        except TypeError:
            raise look.misuse(gva, size)

    def poke(self, gva, data, space=None):
        """Write bytes at a guest-virtual address, regardless of the page's rights. space: as for peek(). ValueError."""
        try:
            look.holding(self, gva, space).write(gva, data)
        except TypeError:
            raise look.misuse(gva, data)

    # (gva): return the gpa of a gva by the guest's page tables. ValueError with the reason if it is not mapped.
    translate = look.translate

    @property
    def args(self):
        """In a policy on CALL the function's arguments (vmm/debug/abi.py): args[0] is the first one."""
        from vmm.debug.abi import Args

        return Args(self)

    @property
    def result(self):
        """In a policy on RETURN the function's value: RAX, cut to the width of the code."""
        return self.rax & ((1 << self.bits) - 1)

    @property
    def previous(self):
        """In a policy on SWITCH the struct task_struct that has left the vCPU (Linux)."""
        return self.vm.kernel.object("struct task_struct", self.rdi)

    @property
    def old(self):
        """In a policy on READ, WRITE or MEMORY the operand's value before the instruction."""
        from vmm.debug import operand

        return operand.old(self)

    @property
    def new(self):
        """In a policy on WRITE or MEMORY the value that the instruction writes; None where it is not computed."""
        from vmm.debug import operand

        return operand.new(self)

    def pdptes(self):
        """The four PDPTE registers of PAE paging, loaded by the last MOV to CR3."""
        return tuple([self.read(v.GUEST_PDPTE0 + 2 * i) for i in range(4)])

    @property
    def pkru(self):
        """PKRU: the protection-key rights of user pages. Reading it saves the FPU state to memory."""
        area = self.fpu()
        if not area[XSTATE_BV + 1] & _PKRU_HIGH:
            return 0
        return struct.unpack_from("<I", area, cpu.cpuid(0xD, _PKRU)[1])[0]

    def flush(self):
        """Invalidate the TLB entries of this vCPU (its VPID)."""
        vmx.invvpid(INVVPID_SINGLE_CONTEXT, self.vpid, 0)

    # -- start

    def start(self, state):
        """Reset the vCPU and load a loader's State (vmm/loaders/state.py)."""
        self.clear()
        self.initialize(state)
        for field in (
            v.GUEST_IA32_SYSENTER_CS, v.GUEST_IA32_SYSENTER_ESP, v.GUEST_IA32_SYSENTER_EIP, v.GUEST_IA32_DEBUGCTL,
        ):  # fmt: skip
            self.write(field, 0)
        self.write(v.GUEST_IA32_PAT, _PAT_RESET)
        self.xcr0 = 1
        self._reset_fpu()
        for index in self.live_msrs:
            self.msr(index, 0)

    def initialize(self, state):
        """Load a State, and reset the rest that INIT resets: not the FPU, and of MSRs only IA32_EFER.

        Source: SDM Vol. 3A, "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT".
        """
        for name, value in state.gprs.items():
            setattr(self, name, value)
        self.rip = state.rip
        self.rflags = state.rflags
        self.write(v.GUEST_IA32_EFER, state.efer)
        self.cr4 = state.cr4
        self.cr3 = state.cr3
        self.cr0 = state.cr0
        for name, (selector, base, limit, rights) in state.segments.items():
            self.set_segment(name, selector, base, limit, rights)
        self.write(v.GUEST_GDTR_BASE, state.gdt_base)
        self.write(v.GUEST_GDTR_LIMIT, state.gdt_limit)
        self.write(v.GUEST_IDTR_BASE, state.idt_base)
        self.write(v.GUEST_IDTR_LIMIT, state.idt_limit)
        self.write(v.GUEST_DR7, 0x400)
        for field in (
            v.GUEST_INTERRUPTIBILITY_STATE, v.GUEST_ACTIVITY_STATE,
            v.GUEST_PENDING_DEBUG_EXCEPTIONS, v.VM_ENTRY_INTERRUPTION_INFORMATION,
        ):  # fmt: skip
            self.write(field, 0)
        debug = self.debug()
        for i in range(4):
            debug[i] = 0
        debug[4] = 0xFFFF0FF0
        self.cr2 = 0
        self.event(0)
        self.events.reset()

    def _reset_fpu(self):
        area = self.fpu()
        cpu.zero(uctypes.addressof(area), len(area))
        struct.pack_into("<H", area, 0, 0x0040)  # FCW after RESET
        area[4] = 0xFF  # abridged FTW: all registers in use, as with FTW 5555h
        struct.pack_into("<I", area, MXCSR, MXCSR_RESET)
        struct.pack_into("<Q", area, XSTATE_BV, 1)  # x87

    # -- for people

    def registers(self):
        """Return a printable table of the registers."""
        names = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp") + tuple("r%d" % i for i in range(8, 16))
        lines = []
        for i in range(0, 16, 4):
            lines.append("  ".join(["%-3s %016x" % (name, getattr(self, name)) for name in names[i : i + 4]]))
        lines.append("rip %016x  rfl %016x  cr0 %016x  cr2 %016x" % (self.rip, self.rflags, self.cr0, self.cr2))
        lines.append("cr3 %016x  cr4 %016x  efer %015x  dr7 %016x" % (self.cr3, self.cr4, self.efer, self.dr7))
        for name in SEGMENTS:
            lines.append("%-4s %04x base %016x limit %08x rights %05x" % ((name,) + self.segment(name)))
        place = self.vm.name_of(self.rip)
        if place:
            lines.append("rip is" + place)
        return "\n".join(lines)

    def __repr__(self):
        vm = self.vm
        where = "vCPU %d of %s, %s, %d-bit, CPL %d" % (self.number, vm.name, self.scheduled.state, self.bits, self.cpl)
        return where + "\n" + self.registers()


def cr4_mask(vm):
    """CR4's guest/host mask: the bits that a guest may not change."""
    return (~vm.cr4_allowed | _CR4_FORCED) & MASK64
