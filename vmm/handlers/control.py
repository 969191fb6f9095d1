"""Control registers, debug registers, XSETBV, and instructions for caches and TLBs.

Only bits in the guest/host masks exit: CR0.NE, CD, NW and ET (VMX operation requires NE, caching is the host's), MP, EM
and TS while the guest's NE is clear, and the bits of CR4 that the guest may not set. Source: SDM Vol. 3C, "Exit
qualification for control-register accesses"; Vol. 3A, "Control Registers".
"""

import micropython
from micropython import const
from vmx import bind, invvpid, vmwrite, want

from vmm import verdict
from vmm.devices.lapic_registers import TPR
from vmm.fault import DB
from vmm.handlers import exception
from vmm.handlers.privileged import kernel_only
from vmm.loaders.state import GPRS
from vmm.verdict import ADVANCE
from vmm.vtx import events, reasons
from vmm.vtx.frame import (
    CR0,
    CR0_SHADOW,
    CR3,
    CR4,
    CS_RIGHTS,
    DIRTY,
    DIRTY_RSP,
    ENTRY_CONTROLS,
    QUALIFICATION,
    RSP,
    SS_RIGHTS,
    WANT_CODE,
    WANT_MODE,
    WANTS,
)
from vmm.vtx.reg import Bits, Reg, register
from vmm.vtx.vcpu import CR0_OWNED, CR0_OWNED_WITHOUT_NE
from vmm.vtx.vmcs import (
    CR0_READ_SHADOW,
    GUEST_CR0,
    GUEST_CR3,
    GUEST_DR7,
    GUEST_PDPTE0,
)
from vmm.vtx.vmcs_bits import (
    CR_GPR,
    CR_GPR_RSP,
    CR_NUMBER,
    CR_TYPE,
    ENTRY_IA32E_MODE_GUEST,
    INVVPID_RETAINING_GLOBALS,
    INVVPID_SINGLE_CONTEXT,
    RIGHTS_DPL,
    RIGHTS_L,
)
from vmm.vtx.x86 import (
    CR0_CD,
    CR0_DEFINED,
    CR0_ET,
    CR0_NE,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR4_DE,
    CR4_OSXSAVE,
    CR4_PAE,
    CR4_PCIDE,
    CR4_TSD,
    EFER_LMA,
    EFER_LME,
    IA32_TSC,
    IA32_TSC_AUX,
    MASK32,
    RFLAGS_RF,
)

_CR0_RELOADS = const(CR0_PG | CR0_CD | CR0_NW)
_CR0_MORE = const(CR0_PE | CR0_NE | CR0_PG | CR0_CD | CR0_NW)  # bits with effects beyond CR0

_KEEP_TRANSLATIONS = const(1 << 63)  # of the operand of MOV to CR3 where PCIDs are in use
_NARROW = const(4)  # above 36 bits a CR3 may have reserved bits set

# Exit qualification, bits 5:0: control register and access type; bits 11:8: the general register.
_MOV_TO_CR0 = const(0)
_CR3 = const(3)
_MOV_TO_CR3 = const(3)
_MOV_FROM_CR3 = const(0x13)
_MOV_TO_CR8 = const(8)
_MOV_FROM_CR8 = const(0x18)
_CLTS = const(0x20)
_DR6_BD = const(1 << 13)
_DR7_GD = const(1 << 13)
_DR7_BITS = const(0xFFFF23FF)  # bits that can be set; guests have no RTM
_DR7_FIXED = const(1 << 10)


@register
class CrQualification(Reg):
    """SDM Vol. 3C, "Exit Qualification for Control-Register Accesses"."""

    NUMBER = Bits(3, 0)
    TYPE = Bits(5, 4)  # 0 MOV to CR, 1 MOV from CR, 2 CLTS, 3 LMSW
    LMSW_MEMORY = Bits(6)
    GPR = Bits(11, 8)
    LMSW_SOURCE = Bits(31, 16)


@register
class DrQualification(Reg):
    """SDM Vol. 3C, "Exit Qualification for MOV DR"."""

    NUMBER = Bits(2, 0)
    FROM = Bits(4)
    GPR = Bits(11, 8)


def access(vcpu):
    """Handler of MOV to and from CR, CLTS and LMSW."""
    q = CrQualification(vcpu.qualification)
    if q.TYPE == 2:
        return write_cr0(vcpu, vcpu.cr0 & ~CR0_TS)
    if q.TYPE == 3:
        old = vcpu.cr0
        return write_cr0(vcpu, old & ~0xE | q.LMSW_SOURCE & 0xF | old & CR0_PE)
    if q.TYPE == 1:
        value = {3: lambda: vcpu.cr3, 8: lambda: vcpu.lapic.read(TPR, 4) >> 4}[q.NUMBER]()
        setattr(vcpu, GPRS[q.GPR], value)
        return verdict.ADVANCE
    value = getattr(vcpu, GPRS[q.GPR])
    if vcpu.bits != 64:
        value &= MASK32
    if q.NUMBER == 0:
        return write_cr0(vcpu, value)
    if q.NUMBER == 4:
        return write_cr4(vcpu, value)
    if q.NUMBER == 3:
        return write_cr3(vcpu, value)
    if value >> 4:
        return events.general_protection(vcpu)
    vcpu.lapic.set_tpr(value << 4)
    return verdict.ADVANCE


def accesses(vcpu):
    """Return the handler of a vCPU's control-register accesses. It reads frame.WANT_CR0."""
    forget = bind(invvpid, INVVPID_SINGLE_CONTEXT, vcpu.vpid, 0)
    globals_stay = vcpu.vm.monitor.caps.ept_vpid.INVVPID_RETAINING_GLOBALS
    kind = INVVPID_RETAINING_GLOBALS if globals_stay else INVVPID_SINGLE_CONTEXT
    slow = bind(_cr3, kernel_only(access), want, vmwrite, bind(invvpid, kind, vcpu.vpid, 0))
    return bind(_access, slow, vcpu.lapic, forget, vmwrite)


# Under a policy on MOV to CR3 each process switch of the guest exits.
@micropython.viper
def _cr3(slow, want, write, forget, vcpu) -> int:
    """Handler of MOV to and from CR3. slow(vcpu): for 32-bit PAE paging, and for other accesses."""
    f = ptr32(vcpu)
    q = int(f[QUALIFICATION])
    kind = q & (CR_TYPE | CR_NUMBER)
    if f[SS_RIGHTS] & RIGHTS_DPL:
        return int(slow(vcpu))
    gpr = (q >> 7) & 30
    if kind == _MOV_FROM_CR3:
        want(vcpu, WANT_CODE)
        f[gpr] = f[CR3]
        f[gpr + 1] = f[CR3 + 1]
        if gpr == RSP:  # Linux uses RSP in its entry code
            f[DIRTY] |= DIRTY_RSP
        return ADVANCE
    if kind != _MOV_TO_CR3:
        return int(slow(vcpu))
    if f[WANTS + reasons.CONTROL_REGISTER_ACCESS] & WANT_MODE != WANT_MODE:
        want(vcpu, WANT_MODE)
    value = int(f[gpr])
    stay = 0
    if f[ENTRY_CONTROLS] & ENTRY_IA32E_MODE_GUEST:
        high = int(f[gpr + 1])
        if high >> 31:  # bit 63 of the operand
            if f[CR4] & CR4_PCIDE == 0:
                return int(slow(vcpu))
            stay = 1
            high &= 0x7FFFFFFF
        if high >> _NARROW or f[CS_RIGHTS] & RIGHTS_L == 0:
            return int(slow(vcpu))
        value |= high << 32
    elif f[CR4] & CR4_PAE:
        return int(slow(vcpu))
    write(vcpu, GUEST_CR3, value)
    if stay == 0:
        forget()
    return ADVANCE


# Exits at each task switch of a guest whose CR0 differs from the CPU's (ET or NE is clear), and at each MOV CR8 without
# a TPR shadow. In bytecode an exit takes 40,000 ticks.
@micropython.viper
def _access(slow, lapic, forget, write, vcpu) -> int:
    """Handler of MOV to CR0 and CLTS that leave PE, PG, NE, CD and NW as they are, and of MOV CR8; else slow(vcpu)."""
    f = ptr32(vcpu)
    q = int(f[QUALIFICATION])
    kind = q & 0x3F
    if f[SS_RIGHTS] & RIGHTS_DPL or q & CR_GPR == CR_GPR_RSP or kind & CR_NUMBER == _CR3:
        return int(slow(vcpu))
    gpr = (q >> 7) & 30
    if kind == _MOV_FROM_CR8:
        f[gpr] = int(lapic.get(TPR)) >> 4
        f[gpr + 1] = 0
        return ADVANCE
    value = int(f[gpr])
    if kind == _MOV_TO_CR8:
        if value > 15 or f[gpr + 1]:
            return int(slow(vcpu))
        lapic.set_tpr(value << 4)
        return ADVANCE
    shadow = int(f[CR0_SHADOW])
    mask = int(CR0_OWNED)
    if shadow & CR0_NE == 0:
        mask = int(CR0_OWNED_WITHOUT_NE)
    old = (int(f[CR0]) & (mask ^ 0xFFFFFFFF)) | (shadow & mask)
    if kind == _CLTS:
        value = old & (CR0_TS ^ 0xFFFFFFFF)
    elif kind != _MOV_TO_CR0 or f[gpr + 1]:  # a high half is #GP(0) in 64-bit mode, else ignored
        return int(slow(vcpu))
    value = (value & CR0_DEFINED) | CR0_ET
    if (old ^ value) & _CR0_MORE:
        return int(slow(vcpu))
    old ^= value
    write(vcpu, CR0_READ_SHADOW, value)
    write(vcpu, GUEST_CR0, int(f[CR0]) ^ old)
    if old & CR0_WP:
        forget()  # cached translations may grant writes that CR0.WP now forbids
    return ADVANCE


def write_cr0(vcpu, value):
    """Set the guest's CR0, or deliver #GP(0). Returns the verdict."""
    if value >> 32 or (value & CR0_PG and not value & CR0_PE) or (value & CR0_NW and not value & CR0_CD):
        return events.general_protection(vcpu)
    value = value & CR0_DEFINED | CR0_ET
    old = vcpu.cr0
    if not _cr0_allowed(vcpu, old, value):
        return events.general_protection(vcpu)
    vcpu.cr0 = value
    vcpu.flush()
    return verdict.ADVANCE


def _cr0_allowed(vcpu, old, value):
    """Return whether the guest may load the value; with PAE paging load the PDPTEs.

    Source: SDM Vol. 2B, "MOV - Move to/from Control Registers".
    """
    cr4 = vcpu.cr4
    if value & CR0_PG:
        if vcpu.efer & EFER_LME:
            return old & CR0_PG or (cr4 & CR4_PAE and not vcpu.cs[3] & RIGHTS_L)
        return not cr4 & CR4_PAE or not (old ^ value) & _CR0_RELOADS or load_pdptes(vcpu)
    return not old & CR0_PG or (vcpu.bits != 64 and not cr4 & CR4_PCIDE)


def write_cr4(vcpu, value):
    """Set the guest's CR4, or deliver #GP(0), as for a bit that its CPUID does not have. Returns the verdict."""
    if value & ~vcpu.vm.cr4_allowed:
        vcpu.vm.count_refused("CR4 bits that CPUID denies")
        return events.general_protection(vcpu)
    vcpu.cr4 = value
    vcpu.flush()
    return verdict.ADVANCE


def write_cr3(vcpu, value):
    """Set the guest's CR3, or deliver #GP(0), as for reserved bits and for bad PDPTEs. Returns the verdict.

    MOV to CR3 exits under a policy only.
    """
    old = vcpu.cr3
    if vcpu.cr4 & CR4_PCIDE:
        value &= ~_KEEP_TRANSLATIONS
    if value >> vcpu.vm.cpuid.width:
        return events.general_protection(vcpu)
    vcpu.cr3 = value
    if pae_paging(vcpu) and not load_pdptes(vcpu):
        vcpu.cr3 = old
        return events.general_protection(vcpu)
    vcpu.flush()
    return verdict.ADVANCE


def pae_paging(vcpu):
    return bool(vcpu.cr0 & CR0_PG and vcpu.cr4 & CR4_PAE and not vcpu.efer & EFER_LMA)


def load_pdptes(vcpu):
    """Load the four PDPTEs of PAE paging from memory. False, with nothing loaded, if one has reserved bits set."""
    base = vcpu.cr3 & 0xFFFFFFE0
    entries = [vcpu.vm.physical_load(base + 8 * i, 8) for i in range(4)]
    width = vcpu.vm.cpuid.leaf(0x80000008, 0)[0] & 0xFF
    for entry in entries:
        if entry & 1 and (entry & 0x1E6 or entry >> width):
            return False
    for i in range(4):
        vcpu.write(GUEST_PDPTE0 + 2 * i, entries[i])
    return True


def mov_dr(vcpu):
    """Handler of MOV DR, which exits under a policy only. DR4 and DR5 are DR6 and DR7 while CR4.DE is clear.

    The exit precedes the CPU's own checks. Source: SDM Vol. 2B, "MOV - Move to/from Debug Registers"; Vol. 3B, "Debug
    Registers".
    """
    q = DrQualification(vcpu.qualification)
    number = q.NUMBER
    if number in (4, 5):
        if vcpu.cr4 & CR4_DE:
            return events.undefined(vcpu)
        number += 2
    if vcpu.cpl:
        return events.general_protection(vcpu)
    if vcpu.read(GUEST_DR7) & _DR7_GD:
        exception.debug_registers(vcpu, _DR6_BD)
        vcpu.rflags |= RFLAGS_RF
        return events.inject(vcpu, DB)
    wide = vcpu.bits == 64
    if q.FROM:
        value = vcpu.read(GUEST_DR7) if number == 7 else vcpu.debug()[min(number, 4)]
        setattr(vcpu, GPRS[q.GPR], value if wide else value & 0xFFFFFFFF)
        return verdict.ADVANCE
    value = getattr(vcpu, GPRS[q.GPR])
    if not wide:
        value &= 0xFFFFFFFF
    elif number >= 6 and value >> 32:
        return events.general_protection(vcpu)
    if number == 7:
        vcpu.write(GUEST_DR7, value & _DR7_BITS | _DR7_FIXED)
    elif number == 6:
        vcpu.debug()[4] = value & exception.DR6_BITS | exception.DR6_FIXED
    else:
        vcpu.debug()[number] = value
    return verdict.ADVANCE


def xsetbv(vcpu):
    """Handler of XSETBV: set XCR0 to components of the guest's CPUID in a valid combination, or #GP(0)."""
    if not vcpu.cr4 & CR4_OSXSAVE:
        return events.undefined(vcpu)
    value = (vcpu.rdx & 0xFFFFFFFF) << 32 | vcpu.rax & 0xFFFFFFFF
    if vcpu.cpl or vcpu.rcx & 0xFFFFFFFF or not xcr0_valid(value, vcpu.vm.xcr0_allowed):
        return events.general_protection(vcpu)
    vcpu.xcr0 = value
    return verdict.ADVANCE


def xcr0_valid(value, allowed):
    """Return whether XCR0 may have the value: SDM Vol. 1, "Enabling the XSAVE Feature Set and XSAVE-Enabled
    Features"."""
    if value & ~allowed or not value & 1:
        return False
    if value & 4 and not value & 2:
        return False
    if value & 0x18 and value & 0x18 != 0x18:
        return False
    if value & 0xE0 and (value & 0xE0 != 0xE0 or not value & 4):
        return False
    return value & 0x60000 in (0, 0x60000)


def write_back(vcpu):
    """Handler of INVD and WBINVD, which have no effect.

    Guests share the host's caches: INVD must not discard modified lines of others, and WBINVD must not delay a guest of
    higher priority or flush its cache lines. The guest sees no difference: its memory is write-back whatever type it
    sets (vmm/memory/ept.py), and no device is passed through that could read memory without snooping.
    """
    if vcpu.cpl:
        return events.general_protection(vcpu)
    return verdict.ADVANCE


def invlpg(vcpu):
    vcpu.flush()
    return verdict.ADVANCE


def rdtsc(vcpu):
    """Handler of RDTSC, which exits under a policy only."""
    if vcpu.cpl and vcpu.cr4 & CR4_TSD:
        return events.general_protection(vcpu)
    now = vcpu.vm.msrs.read(vcpu, IA32_TSC)  # includes the guest's own writes to the TSC
    vcpu.rax = now & 0xFFFFFFFF
    vcpu.rdx = now >> 32 & 0xFFFFFFFF
    return verdict.ADVANCE


def rdtscp(vcpu):
    if not vcpu.vm.cpuid.has_rdtscp:
        return events.undefined(vcpu)
    answer = rdtsc(vcpu)
    if answer == verdict.ADVANCE:
        vcpu.rcx = vcpu.msr(IA32_TSC_AUX) & 0xFFFFFFFF
    return answer
