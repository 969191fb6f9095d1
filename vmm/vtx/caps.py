"""The VMX capabilities of the CPU, and the choice of those that the monitor uses.

`Caps(cpuid, rdmsr)` reads the capability MSRs; `missing` lists the required features that the CPU lacks, one line each
with the bit. `print(caps)` at the prompt shows which are offered and used. Source: SDM Vol. 3C, appendix "VMX
Capability Reporting Facility".
"""

from vmm.vtx import controls as c
from vmm.vtx.cpuid_bits import LEAF_1_ECX_VMX

_LOCKED = 1 << 0
_VMX_OUTSIDE_SMX = 1 << 2

# Controls that the monitor requires, and those that it uses if they are offered.
_NEEDED = {
    "pin": ("EXTERNAL_INTERRUPT_EXITING", "NMI_EXITING", "VIRTUAL_NMIS", "ACTIVATE_VMX_PREEMPTION_TIMER"),
    "proc": (
        "USE_TSC_OFFSETTING", "HLT_EXITING", "MWAIT_EXITING", "RDPMC_EXITING", "MONITOR_EXITING",
        "USE_IO_BITMAPS", "USE_MSR_BITMAPS", "ACTIVATE_SECONDARY_CONTROLS",
    ),
    "proc2": ("ENABLE_EPT", "ENABLE_VPID", "UNRESTRICTED_GUEST"),
    "exit": (
        "SAVE_DEBUG_CONTROLS", "HOST_ADDRESS_SPACE_SIZE",
        "SAVE_IA32_PAT", "LOAD_IA32_PAT", "SAVE_IA32_EFER", "LOAD_IA32_EFER",
    ),
    "entry": ("LOAD_DEBUG_CONTROLS", "LOAD_IA32_PAT", "LOAD_IA32_EFER"),
}  # fmt: skip
_WANTED = {
    "pin": (),
    "proc": ("USE_TPR_SHADOW",),
    "proc2": (
        "ENABLE_RDTSCP", "ENABLE_INVPCID", "ENABLE_XSAVES", "VIRTUALIZE_APIC_ACCESSES",
        "APIC_REGISTER_VIRTUALIZATION", "VIRTUAL_INTERRUPT_DELIVERY",
    ),
    "exit": (),
    "entry": (),
}  # fmt: skip

# Control group: class, MSR, TRUE MSR, the SDM's name after IA32_VMX_ and IA32_VMX_TRUE_.
_GROUPS = {
    "pin": (c.PinBased, c.IA32_VMX_PINBASED_CTLS, c.IA32_VMX_TRUE_PINBASED_CTLS, "PINBASED_CTLS"),
    "proc": (c.ProcBased, c.IA32_VMX_PROCBASED_CTLS, c.IA32_VMX_TRUE_PROCBASED_CTLS, "PROCBASED_CTLS"),
    "proc2": (c.ProcBased2, c.IA32_VMX_PROCBASED_CTLS2, None, "PROCBASED_CTLS2"),
    "exit": (c.ExitControls, c.IA32_VMX_EXIT_CTLS, c.IA32_VMX_TRUE_EXIT_CTLS, "EXIT_CTLS"),
    "entry": (c.EntryControls, c.IA32_VMX_ENTRY_CTLS, c.IA32_VMX_TRUE_ENTRY_CTLS, "ENTRY_CTLS"),
}
_ORDER = ("pin", "proc", "proc2", "exit", "entry")


class Caps:
    """found[group], used[group]: registers of vmm/vtx/controls.py; missing: [line, ...]."""

    def __init__(self, cpuid, rdmsr):
        self.missing = []
        self.found = {}
        self.used = {}
        self.must_be_1 = {}
        self.basic = self.misc = self.ept_vpid = None
        self.revision = 0
        if not cpuid(1)[2] & LEAF_1_ECX_VMX:
            self.missing.append("CPUID.1:ECX bit 5 (VMX): this CPU, or this emulator, has no VT-x")
            return
        lock = rdmsr(c.IA32_FEATURE_CONTROL)
        if lock & _LOCKED and not lock & _VMX_OUTSIDE_SMX:
            self.missing.append(
                "IA32_FEATURE_CONTROL (0x3A) bit 2: the firmware locked it with VMX off; switch VT-x on in its set-up"
            )
            return
        self.feature_control = lock
        self.basic = c.VmxBasic(rdmsr(c.IA32_VMX_BASIC))
        self.misc = c.VmxMisc(rdmsr(c.IA32_VMX_MISC))
        self.revision = self.basic.REVISION
        self.cr0_fixed0 = rdmsr(c.IA32_VMX_CR0_FIXED0)
        self.cr0_fixed1 = rdmsr(c.IA32_VMX_CR0_FIXED1)
        self.cr4_fixed0 = rdmsr(c.IA32_VMX_CR4_FIXED0)
        self.cr4_fixed1 = rdmsr(c.IA32_VMX_CR4_FIXED1)
        for group in _ORDER:
            self._negotiate(group, rdmsr)
        offered = self.found["proc2"]
        has_ept = offered.ENABLE_EPT or offered.ENABLE_VPID
        self.ept_vpid = c.EptVpidCap(rdmsr(c.IA32_VMX_EPT_VPID_CAP) if has_ept else 0)
        for name in ("WALK_4", "PAGING_WB", "INVEPT", "INVEPT_SINGLE_CONTEXT", "INVVPID", "INVVPID_SINGLE_CONTEXT"):
            if not getattr(self.ept_vpid, name):
                self._lack(c.EptVpidCap, name, "IA32_VMX_EPT_VPID_CAP (0x48C)", 0)
        self._depend()

    def _lack(self, cls, name, msr, shift):
        bit = dict(cls.fields)[name].lo + shift
        self.missing.append("%s bit %d (%s) is not offered" % (msr, bit, name))

    def _negotiate(self, group, rdmsr):
        cls, msr, true_msr, name = _GROUPS[group]
        if group == "proc2" and not self.found["proc"].ACTIVATE_SECONDARY_CONTROLS:
            raw = 0
        else:
            if true_msr and self.basic.TRUE_CONTROLS:
                msr, name = true_msr, "TRUE_" + name
            raw = rdmsr(msr)
        must, may = raw & 0xFFFFFFFF, raw >> 32
        self.found[group] = cls(may)
        self.must_be_1[group] = must
        fields = dict(cls.fields)
        used = must
        for control in _NEEDED[group]:
            if not may & fields[control].mask:
                self._lack(cls, control, "IA32_VMX_%s (0x%X)" % (name, msr), 32)
            used |= fields[control].mask & may
        for control in _WANTED[group]:
            used |= fields[control].mask & may
        self.used[group] = cls(used)

    def _depend(self):
        """Drop controls that are useless alone: APIC virtualization needs all of them, except for the TPR shadow."""
        proc, proc2 = self.used["proc"], self.used["proc2"]
        apicv = (
            proc.USE_TPR_SHADOW
            and proc2.VIRTUALIZE_APIC_ACCESSES
            and proc2.APIC_REGISTER_VIRTUALIZATION
            and proc2.VIRTUAL_INTERRUPT_DELIVERY
        )
        self.apicv = bool(apicv)
        self.tpr_shadow = bool(proc.USE_TPR_SHADOW and not apicv)
        if not apicv:
            proc2.VIRTUALIZE_APIC_ACCESSES = 0
            proc2.APIC_REGISTER_VIRTUALIZATION = 0
            proc2.VIRTUAL_INTERRUPT_DELIVERY = 0
            if not proc.USE_TPR_SHADOW:
                proc.CR8_LOAD_EXITING = proc.CR8_STORE_EXITING = 1

    @property
    def ok(self):
        """Whether guests can run."""
        return not self.missing

    @property
    def page_sizes(self):
        """The leaf sizes of EPT, in bytes."""
        cap = self.ept_vpid
        return tuple([0x1000] + [0x200000] * cap.PAGE_2M + [0x40000000] * cap.PAGE_1G)

    def __str__(self):
        lines = []
        if self.basic:
            lines.append("%r" % self.basic)
            lines.append("%r" % self.misc)
            lines.append("%r" % self.ept_vpid)
            for group in _ORDER:
                found, used = self.found[group], self.used[group]
                lines.append("%s: offered %#010x, used %#010x" % (type(found).__name__, found.raw, used.raw))
                lines.append("  used:  " + self._list(used.fields, used.raw))
                lines.append("  spare: " + self._list(used.fields, found.raw & ~used.raw))
        lines += ["missing: " + line for line in self.missing]
        return "\n".join(lines)

    @staticmethod
    def _list(fields, raw):
        return " ".join([name for name, bits in fields if raw & bits.mask]) or "-"
