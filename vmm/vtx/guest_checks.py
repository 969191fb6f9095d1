"""The causes of a failed VM entry with reason 33: the checks on the guest-state area that are violated.

The CPU only reports "invalid guest state"; this repeats the checks, in the SDM's order and under its headings. One
file, since it is read beside the SDM's list. Limits: reserved bits of model-specific MSRs (IA32_PERF_GLOBAL_CTRL,
IA32_RTIT_CTL, IA32_LBR_CTL), SGX, CET tracking and the target of the VMCS link pointer are not checked. Source: SDM
Vol. 3C, "Checks on the Guest State Area".
"""

from micropython import const

from vmm.fault import DB, MC
from vmm.vtx import controls, events, vmcs
from vmm.vtx.vmcs_bits import PENDING_BS, PENDING_RTM, RIGHTS_DB, RIGHTS_DPL_SHIFT, RIGHTS_L, RIGHTS_UNUSABLE
from vmm.vtx.x86 import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_CET,
    CR4_PAE,
    CR4_PCIDE,
    DEBUGCTL_BTF,
    RFLAGS_IF,
    RFLAGS_TF,
    RFLAGS_VM,
)

_ATTRIBUTES = {"GUEST_RIP": "rip", "GUEST_RSP": "rsp", "GUEST_RFLAGS": "rflags"}
_DATA = ("ES", "DS", "FS", "GS")
_ALL = ("CS", "SS") + _DATA

_CR0_CD_NW = const(3 << 29)
_EFER_DEFINED = const(0xD01)
_DEBUGCTL_DEFINED = const(0xFFC7)
_RFLAGS_RESERVED = const(0xFFFFFFFFFFC08028)
_G = const(1 << 15)
_LOAD_CET = const(1 << 20)
_LOAD_PKRS = const(1 << 22)
_VIRTUAL_NMIS = const(1 << 5)
_HIGH = const(0xFFFFFFFF00000000)
_NO_LINK = const(0xFFFFFFFFFFFFFFFF)

_HLT, _SHUTDOWN, _WAIT_FOR_SIPI = 1, 2, 3
_STI, _MOV_SS, _SMI, _NMI, _ENCLAVE = 1, 2, 4, 8, 16
_OTHER_EVENT = const(7)

_QUALIFICATIONS = {
    2: "qualification 2: loading the PDPTEs failed",
    3: "qualification 3: an NMI cannot be injected while STI blocks",
    4: "qualification 4: the VMCS link pointer is bad",
}


def faults(vcpu):
    """Return one line for each violated check: field, value, requirement."""
    c = Checks(vcpu)
    _control_registers(c)
    _msrs(c)
    if c.v8086:
        _v8086_segments(c)
    else:
        for name in _ALL:
            _segment(c, name)
        _privilege_levels(c)
    _bases(c)
    _system_segments(c)
    _descriptor_tables(c)
    _rip_and_rflags(c)
    _activity(c)
    _interruptibility(c)
    _pending_debug(c)
    _link_pointer(c)
    _pdptes(c)
    if vcpu.qualification in _QUALIFICATIONS:
        c.lines.append(_QUALIFICATIONS[vcpu.qualification])
    return c.lines or ["no check of vmm/vtx/guest_checks.py fails"]


class Checks:
    """The guest-state area of a vCPU, and the lines found so far."""

    def __init__(self, vcpu):
        self._vcpu = vcpu
        self._values = {}
        self.lines = []
        self.caps = vcpu.vm.monitor.caps
        widths = vcpu.vm.cpuid.leaf(0x80000008, 0)[0]
        self.physical = _NO_LINK << (widths & 0xFF) & _NO_LINK  # bits beyond the physical-address width
        self.linear_bits = widths >> 8 & 0xFF
        self.entry = controls.EntryControls(self["VM_ENTRY_CONTROLS"])
        self.long_mode = bool(self.entry.IA32E_MODE_GUEST)
        primary = controls.ProcBased(self["PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS"])
        secondary = controls.ProcBased2(0)
        if primary.ACTIVATE_SECONDARY_CONTROLS:
            secondary = controls.ProcBased2(self["SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS"])
        self.unrestricted = bool(secondary.UNRESTRICTED_GUEST)
        self.ept = bool(secondary.ENABLE_EPT)
        self.v8086 = bool(self["GUEST_RFLAGS"] & RFLAGS_VM)
        self.cpl = self["GUEST_SS_ACCESS_RIGHTS"] >> RIGHTS_DPL_SHIFT & 3
        info = self["VM_ENTRY_INTERRUPTION_INFORMATION"]
        self.event = info >> 8 & 7 if info & events.VALID else None  # its type
        self.vector = info & 0xFF

    def __getitem__(self, name):
        if name not in self._values:
            if name in _ATTRIBUTES:
                value = getattr(self._vcpu, _ATTRIBUTES[name])
            else:
                value = self._vcpu.read(getattr(vmcs, name))
            self._values[name] = value
        return self._values[name]

    def need(self, ok, name, text):
        """Add a line about field `name` unless `ok`."""
        if not ok:
            self.lines.append("%s %#x: %s" % (name, self[name], text))

    def clear(self, name, mask, text):
        """Check that the bits of `mask` are 0."""
        self.need(not self[name] & mask, name, "%s (%#x) must be 0" % (text, self[name] & mask))

    def canonical(self, name):
        upper = self[name] >> (self.linear_bits - 1)
        ones = (1 << (65 - self.linear_bits)) - 1
        self.need(upper in (0, ones), name, "address must be canonical")

    def usable(self, segment):
        return not self["GUEST_%s_ACCESS_RIGHTS" % segment] & RIGHTS_UNUSABLE


# -- "Checks on Guest Control Registers, Debug Registers, and MSRs"


def _control_registers(c):
    cr0 = c["GUEST_CR0"]
    skip = _CR0_CD_NW | (CR0_PE | CR0_PG if c.unrestricted else 0)
    _fixed(c, "GUEST_CR0", c.caps.cr0_fixed0 & ~skip, c.caps.cr0_fixed1 | skip)
    c.need(not cr0 & CR0_PG or cr0 & CR0_PE, "GUEST_CR0", "PG needs PE")
    _fixed(c, "GUEST_CR4", c.caps.cr4_fixed0, c.caps.cr4_fixed1)
    cr4 = c["GUEST_CR4"]
    c.need(not cr4 & CR4_CET or cr0 & CR0_WP, "GUEST_CR4", "CET needs CR0.WP")
    if c.long_mode:
        c.need(cr0 & CR0_PG, "GUEST_CR0", "PG must be 1 with entry control IA32E_MODE_GUEST")
        c.need(cr4 & CR4_PAE, "GUEST_CR4", "PAE must be 1 with entry control IA32E_MODE_GUEST")
    else:
        c.clear("GUEST_CR4", CR4_PCIDE, "PCIDE outside IA-32e mode")
    c.clear("GUEST_CR3", c.physical, "bits beyond the physical-address width")


def _fixed(c, name, ones, allowed):
    missing = ones & ~c[name]
    c.need(not missing, name, "bits %#x must be 1 in VMX operation" % missing)
    c.clear(name, ~allowed & _NO_LINK, "bits that the CPU does not support in VMX operation")


def _msrs(c):
    entry = c.entry
    if entry.LOAD_DEBUG_CONTROLS:
        c.clear("GUEST_IA32_DEBUGCTL", ~_DEBUGCTL_DEFINED & _NO_LINK, "reserved bits")
        c.clear("GUEST_DR7", _HIGH, "bits 63:32")
    c.canonical("GUEST_IA32_SYSENTER_ESP")
    c.canonical("GUEST_IA32_SYSENTER_EIP")
    if entry.LOAD_IA32_PAT:
        pat = c["GUEST_IA32_PAT"]
        good = all([pat >> 8 * i & 0xFF in (0, 1, 4, 5, 6, 7) for i in range(8)])
        c.need(good, "GUEST_IA32_PAT", "each byte must be 0, 1, 4, 5, 6 or 7")
    if entry.LOAD_IA32_EFER:
        efer = c["GUEST_IA32_EFER"]
        c.clear("GUEST_IA32_EFER", ~_EFER_DEFINED & _NO_LINK, "reserved bits")
        lma, lme = bool(efer & 1 << 10), bool(efer & 1 << 8)
        c.need(lma == c.long_mode, "GUEST_IA32_EFER", "LMA must equal entry control IA32E_MODE_GUEST")
        if c["GUEST_CR0"] & CR0_PG:
            c.need(lma == lme, "GUEST_IA32_EFER", "LMA must equal LME while CR0.PG is 1")
    if entry.LOAD_IA32_BNDCFGS:
        c.clear("GUEST_IA32_BNDCFGS", 0xFFC, "bits 11:2")
        c.canonical("GUEST_IA32_BNDCFGS")
    if entry.raw & _LOAD_CET:
        c.canonical("GUEST_IA32_S_CET")
        c.canonical("GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR")
        c.canonical("GUEST_SSP")
        c.clear("GUEST_SSP", 3, "bits 1:0")
    if entry.raw & _LOAD_PKRS:
        c.clear("GUEST_IA32_PKRS", _HIGH, "bits 63:32")


# -- "Checks on Guest Segment Registers"


def _v8086_segments(c):
    for segment in _ALL:
        name = "GUEST_%s_" % segment
        base = c[name + "SELECTOR"] << 4
        c.need(c[name + "BASE"] == base, name + "BASE", "must be %#x in virtual-8086 mode" % base)
        c.need(c[name + "LIMIT"] == 0xFFFF, name + "LIMIT", "must be 0xffff in virtual-8086 mode")
        c.need(c[name + "ACCESS_RIGHTS"] == 0xF3, name + "ACCESS_RIGHTS", "must be 0xf3 in virtual-8086 mode")


def _segment(c, segment):
    """Access rights of CS, SS, DS, ES, FS, GS."""
    name = "GUEST_%s_ACCESS_RIGHTS" % segment
    rights = c[name]
    kind = rights & 0xF
    if segment == "CS":
        allowed = kind in (9, 11, 13, 15) or (c.unrestricted and kind == 3)
        c.need(allowed, name, "type of CS must be 9, 11, 13 or 15 (or 3 with unrestricted guest)")
        if c.long_mode and rights & RIGHTS_L:
            c.clear(name, RIGHTS_DB, "D of 64-bit code")
    elif not c.usable(segment):
        return
    elif segment == "SS":
        c.need(kind in (3, 7), name, "type of SS must be 3 or 7")
    else:
        c.need(kind & 1, name, "type of %s must have bit 0 (accessed)" % segment)
        c.need(kind & 0xA != 8, name, "code in %s must be readable" % segment)
        if not c.unrestricted and kind < 12:
            rpl = c["GUEST_%s_SELECTOR" % segment] & 3
            c.need(rights >> RIGHTS_DPL_SHIFT & 3 >= rpl, name, "DPL must not be below the selector's RPL %d" % rpl)
    c.need(rights & 1 << 4, name, "S must be 1")
    _common_rights(c, segment)


def _common_rights(c, segment):
    """Present, reserved bits, granularity."""
    name = "GUEST_%s_ACCESS_RIGHTS" % segment
    c.need(c[name] & 1 << 7, name, "P must be 1")
    c.clear(name, 0xFFFE0F00, "reserved bits")
    limit = c["GUEST_%s_LIMIT" % segment]
    if limit & 0xFFF != 0xFFF:
        c.clear(name, _G, "G with limit %#x" % limit)
    if limit & 0xFFF00000:
        c.need(c[name] & _G, name, "G must be 1 with limit %#x" % limit)


def _privilege_levels(c):
    rights = c["GUEST_CS_ACCESS_RIGHTS"]
    kind, dpl = rights & 0xF, rights >> RIGHTS_DPL_SHIFT & 3
    name = "GUEST_CS_ACCESS_RIGHTS"
    if kind == 3:
        c.need(dpl == 0, name, "DPL of CS of type 3 must be 0")
    elif kind in (9, 11):
        c.need(dpl == c.cpl, name, "DPL of non-conforming CS must be that of SS, %d" % c.cpl)
    elif kind in (13, 15):
        c.need(dpl <= c.cpl, name, "DPL of conforming CS must not be above that of SS, %d" % c.cpl)
    name = "GUEST_SS_ACCESS_RIGHTS"
    if not c.unrestricted:
        rpl = c["GUEST_SS_SELECTOR"] & 3
        c.need(rpl == c["GUEST_CS_SELECTOR"] & 3, "GUEST_SS_SELECTOR", "RPL must be that of CS")
        c.need(c.cpl == rpl, name, "DPL must be the selector's RPL, %d" % rpl)
    if kind == 3 or not c["GUEST_CR0"] & CR0_PE:
        c.need(c.cpl == 0, name, "DPL must be 0 with CS of type 3 or CR0.PE 0")


def _bases(c):
    for segment in ("FS", "GS"):
        c.canonical("GUEST_%s_BASE" % segment)
    c.clear("GUEST_CS_BASE", _HIGH, "bits 63:32")
    for segment in ("SS", "DS", "ES"):
        if c.usable(segment):
            c.clear("GUEST_%s_BASE" % segment, _HIGH, "bits 63:32")


def _system_segments(c):
    name = "GUEST_TR_ACCESS_RIGHTS"
    c.clear("GUEST_TR_SELECTOR", 4, "TI")
    c.canonical("GUEST_TR_BASE")
    kind = c[name] & 0xF
    if c.long_mode:
        c.need(kind == 11, name, "type of TR must be 11 in IA-32e mode")
    else:
        c.need(kind in (3, 11), name, "type of TR must be 3 or 11")
    c.clear(name, RIGHTS_UNUSABLE, "unusable")
    c.clear(name, 1 << 4, "S")
    _common_rights(c, "TR")
    if c.usable("LDTR"):
        name = "GUEST_LDTR_ACCESS_RIGHTS"
        c.clear("GUEST_LDTR_SELECTOR", 4, "TI")
        c.canonical("GUEST_LDTR_BASE")
        c.need(c[name] & 0xF == 2, name, "type of LDTR must be 2")
        c.clear(name, 1 << 4, "S")
        _common_rights(c, "LDTR")


# -- "Checks on Guest Descriptor-Table Registers"


def _descriptor_tables(c):
    for table in ("GDTR", "IDTR"):
        c.canonical("GUEST_%s_BASE" % table)
        c.clear("GUEST_%s_LIMIT" % table, 0xFFFF0000, "bits 31:16")


# -- "Checks on Guest RIP, RFLAGS, and SSP"


def _rip_and_rflags(c):
    if c.long_mode and c["GUEST_CS_ACCESS_RIGHTS"] & RIGHTS_L:
        c.canonical("GUEST_RIP")
    else:
        c.clear("GUEST_RIP", _HIGH, "bits 63:32 outside 64-bit mode")
    c.clear("GUEST_RFLAGS", _RFLAGS_RESERVED, "reserved bits")
    c.need(c["GUEST_RFLAGS"] & 2, "GUEST_RFLAGS", "bit 1 must be 1")
    if c.long_mode or not c["GUEST_CR0"] & CR0_PE:
        c.clear("GUEST_RFLAGS", RFLAGS_VM, "VM in IA-32e mode or with CR0.PE 0")
    if c.event == events.EXTERNAL_INTERRUPT:
        c.need(c["GUEST_RFLAGS"] & RFLAGS_IF, "GUEST_RFLAGS", "IF must be 1 to inject an external interrupt")


# -- "Checks on Guest Non-Register State"


def _activity(c):
    name = "GUEST_ACTIVITY_STATE"
    state = c[name]
    misc = c.caps.misc
    supported = {
        0: 1,
        _HLT: misc.ACTIVITY_HLT,
        _SHUTDOWN: misc.ACTIVITY_SHUTDOWN,
        _WAIT_FOR_SIPI: misc.ACTIVITY_WAIT_FOR_SIPI,
    }
    c.need(supported.get(state), name, "must be 0 to 3 and named in IA32_VMX_MISC")
    if state == _HLT:
        c.need(c.cpl == 0, name, "HLT needs SS.DPL 0, it is %d" % c.cpl)
    if state:
        blocked = c["GUEST_INTERRUPTIBILITY_STATE"] & (_STI | _MOV_SS)
        c.need(not blocked, name, "must be active (0) while STI or MOV SS blocks")
    if c.event is not None:
        exception = c.vector if c.event == events.HARDWARE_EXCEPTION else None
        wakes = {
            _HLT: c.event in (events.EXTERNAL_INTERRUPT, events.NMI)
            or exception in (DB, MC)
            or (c.event == _OTHER_EVENT and c.vector == 0),
            _SHUTDOWN: c.event == events.NMI or exception == MC,
            _WAIT_FOR_SIPI: False,
        }
        text = "does not admit the injected event, type %d vector %d" % (c.event, c.vector)
        c.need(wakes.get(state, True), name, text)


def _interruptibility(c):
    name = "GUEST_INTERRUPTIBILITY_STATE"
    state = c[name]
    c.clear(name, 0xFFFFFFE0, "reserved bits")
    c.need(state & 3 != 3, name, "blocking by STI and by MOV SS exclude each other")
    if not c["GUEST_RFLAGS"] & RFLAGS_IF:
        c.clear(name, _STI, "blocking by STI with RFLAGS.IF 0")
    if c.event == events.EXTERNAL_INTERRUPT:
        c.clear(name, _STI | _MOV_SS, "blocking by STI or MOV SS while an external interrupt is injected")
    if c.event == events.NMI:
        c.clear(name, _STI | _MOV_SS, "blocking by STI or MOV SS while an NMI is injected")
        if c["PIN_BASED_VM_EXECUTION_CONTROLS"] & _VIRTUAL_NMIS:
            c.clear(name, _NMI, "blocking by NMI while an NMI is injected with virtual NMIs")
    if c.entry.ENTRY_TO_SMM:
        c.need(state & _SMI, name, "blocking by SMI must be 1 on an entry to SMM")
    else:
        c.clear(name, _SMI, "blocking by SMI outside SMM")
    if state & _ENCLAVE:
        c.clear(name, _MOV_SS, "blocking by MOV SS with enclave interruption")


def _pending_debug(c):
    name = "GUEST_PENDING_DEBUG_EXCEPTIONS"
    pending = c[name]
    c.clear(name, 0xFFFFFFFFFFFEAFF0, "reserved bits")
    if c["GUEST_INTERRUPTIBILITY_STATE"] & (_STI | _MOV_SS) or c["GUEST_ACTIVITY_STATE"] == _HLT:
        stepping = bool(c["GUEST_RFLAGS"] & RFLAGS_TF) and not c["GUEST_IA32_DEBUGCTL"] & DEBUGCTL_BTF
        text = "BS must be %d: interrupts are blocked or HLT, and RFLAGS.TF and DEBUGCTL.BTF say so"
        c.need(bool(pending & PENDING_BS) == stepping, name, text % stepping)
    if pending & PENDING_RTM:
        c.need(pending & 0xFFFFFFFFFFFEFFFF == 1 << 12, name, "RTM goes with bit 12 alone")
        c.need(not c["GUEST_INTERRUPTIBILITY_STATE"] & _MOV_SS, name, "RTM excludes blocking by MOV SS")


def _link_pointer(c):
    name = "VMCS_LINK_POINTER"
    if c[name] != _NO_LINK:
        c.clear(name, 0xFFF | c.physical, "bits 11:0 and those beyond the physical-address width")


# -- "Checks on Guest Page-Directory-Pointer-Table Entries"


def _pdptes(c):
    """With EPT they are VMCS fields; without, they are in memory and are not checked here."""
    pae = c["GUEST_CR0"] & CR0_PG and c["GUEST_CR4"] & CR4_PAE and not c.long_mode
    if not pae or not c.ept:
        return
    for i in range(4):
        name = "GUEST_PDPTE%d" % i
        if c[name] & 1:
            c.clear(name, 0x1E6 | c.physical, "reserved bits of a present entry")
