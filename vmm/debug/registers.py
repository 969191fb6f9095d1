"""Control registers decoded: vm.cr().

Source: SDM Vol. 3A, "Control Registers", "Extended Feature Enable Register (EFER)"; Vol. 1, "EFLAGS Register",
"Enabling the XSAVE Feature Set and XSAVE-Enabled Features".
"""

from vmm.debug import pagewalk
from vmm.devices.lapic_registers import TPR
from vmm.vtx.reg import Bits, Reg, register


@register
class CR0(Reg):
    """Control register 0."""

    PG, CD, NW = Bits(31), Bits(30), Bits(29)
    AM, WP = Bits(18), Bits(16)
    NE, ET, TS, EM, MP, PE = Bits(5), Bits(4), Bits(3), Bits(2), Bits(1), Bits(0)


@register
class CR4(Reg):
    """Control register 4."""

    UINTR, PKS, CET, PKE, SMAP, SMEP = Bits(25), Bits(24), Bits(23), Bits(22), Bits(21), Bits(20)
    OSXSAVE, PCIDE, FSGSBASE, SMXE, VMXE, LA57 = Bits(18), Bits(17), Bits(16), Bits(14), Bits(13), Bits(12)
    UMIP, OSXMMEXCPT, OSFXSR, PCE, PGE, MCE = Bits(11), Bits(10), Bits(9), Bits(8), Bits(7), Bits(6)
    PAE, PSE, DE, TSD, PVI, VME = Bits(5), Bits(4), Bits(3), Bits(2), Bits(1), Bits(0)


@register
class EFER(Reg):
    """IA32_EFER."""

    NXE, LMA, LME, SCE = Bits(11), Bits(10), Bits(8), Bits(0)


@register
class RFLAGS(Reg):
    """The flags register."""

    ID, VIP, VIF, AC, VM, RF = Bits(21), Bits(20), Bits(19), Bits(18), Bits(17), Bits(16)
    NT, IOPL, OF, DF, IF, TF = Bits(14), Bits(13, 12), Bits(11), Bits(10), Bits(9), Bits(8)
    SF, ZF, AF, PF, CF = Bits(7), Bits(6), Bits(4), Bits(2), Bits(0)


@register
class XCR0(Reg):
    """Extended control register 0: the state components that are enabled."""

    PKRU, HI16_ZMM, ZMM_HI256, OPMASK = Bits(9), Bits(7), Bits(6), Bits(5)
    AVX, SSE, X87 = Bits(2), Bits(1), Bits(0)


class ControlRegisters:
    """cr0, cr4, efer, rflags, xcr0 are registers with fields; cr2, cr3, cr8 numbers; mode: in words."""

    def __init__(self, vcpu):
        self.cr0, self.cr4, self.efer = CR0(vcpu.cr0), CR4(vcpu.cr4), EFER(vcpu.efer)
        self.rflags, self.xcr0 = RFLAGS(vcpu.rflags), XCR0(vcpu.xcr0)
        self.cr2, self.cr3, self.cr8 = vcpu.cr2, vcpu.cr3, vcpu.lapic.read(TPR, 4) >> 4 & 15
        if not self.cr0.PE:
            code = "real mode"
        elif self.rflags.VM:
            code = "virtual-8086 mode"
        else:
            code = "%d-bit code%s, CPL %d" % (vcpu.bits, " in IA-32e mode" if self.efer.LMA else "", vcpu.cpl)
        self.mode = "%s, %s" % (code, pagewalk.mode_of(vcpu).name)

    def __repr__(self):
        lines = [repr(r) for r in (self.cr0, self.cr4, self.efer, self.rflags, self.xcr0)]
        lines.append("CR2(%#x)  CR3(%#x)  CR8(%#x)" % (self.cr2, self.cr3, self.cr8))
        return "\n".join([self.mode] + lines)


def control_registers(vcpu):
    """The ControlRegisters of a vCPU."""
    return ControlRegisters(vcpu)
