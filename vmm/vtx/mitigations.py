"""Mitigations of speculative-execution vulnerabilities, decided once at the start and shown at the prompt.

Each mitigation is on unless the CPU reports that it does not need it, and if the CPU offers the means;
`mitigations=off` on the monitor's command line turns all off. `print(mitigations)` shows which are on and why. The
decision uses only CPUID and IA32_ARCH_CAPABILITIES: there is no list of CPU models. docs/security.md has the
guarantees. Source: SDM Vol. 2A, "CPUID - CPU Identification", leaf 07H; Vol. 4, IA32_ARCH_CAPABILITIES, IA32_SPEC_CTRL,
IA32_PRED_CMD, IA32_FLUSH_CMD.
"""

from micropython import const

from vmm.vtx.cpuid_bits import LEAF_7_2_EDX_BHI_CTRL, LEAF_7_EBX_RTM
from vmm.vtx.reg import Bits, Reg, register

IA32_SPEC_CTRL = const(0x48)
IA32_PRED_CMD = const(0x49)
IA32_ARCH_CAPABILITIES = const(0x10A)
IA32_FLUSH_CMD = const(0x10B)

# Bits for vmx.mitigate(). The second and the third include the first.
MITIGATE_REGISTERS = const(1 << 0)  # an exit clears the general registers
MITIGATE_FILL_RSB = const(1 << 1)  # an exit also fills the return stack buffer,
MITIGATE_CALL = const(1 << 2)  # or adds one entry to it, with a fence
MITIGATE_VERW = const(1 << 3)  # an entry clears the CPU's buffers
MITIGATE_IBPB = const(1 << 4)  # barrier before another vCPU is entered

SPEC_CTRL_IBRS = const(1 << 0)
SPEC_CTRL_STIBP = const(1 << 1)
SPEC_CTRL_SSBD = const(1 << 2)
SPEC_CTRL_BHI_DIS_S = const(1 << 10)

_OFF = "mitigations=off"


@register
class Features(Reg):
    """CPUID leaf 7, subleaf 0, EDX: the means that the CPU offers."""

    MD_CLEAR = Bits(10)
    IBRS_IBPB = Bits(26)
    STIBP = Bits(27)
    L1D_FLUSH = Bits(28)
    ARCH_CAPABILITIES = Bits(29)
    SSBD = Bits(31)


@register
class ArchCapabilities(Reg):
    """IA32_ARCH_CAPABILITIES, the bits that the monitor uses or shows to guests."""

    RDCL_NO = Bits(0)
    IBRS_ALL = Bits(1)
    RSBA = Bits(2)
    SKIP_L1DFL_VMENTRY = Bits(3)
    SSB_NO = Bits(4)
    MDS_NO = Bits(5)
    IF_PSCHANGE_MC_NO = Bits(6)
    TAA_NO = Bits(8)
    SBDR_SSDP_NO = Bits(13)
    FBSDP_NO = Bits(14)
    PSDP_NO = Bits(15)
    FB_CLEAR = Bits(17)
    RRSBA = Bits(19)
    BHI_NO = Bits(20)
    PBRSB_NO = Bits(24)
    GDS_NO = Bits(26)
    RFDS_NO = Bits(27)
    RFDS_CLEAR = Bits(28)
    ITS_NO = Bits(62)


def wanted(cmdline):
    """Whether the monitor's command line leaves mitigations on: mitigations=auto or off; else ValueError."""
    value = "auto"
    for word in cmdline.split():
        if word.startswith("mitigations="):
            value = word[12:]
    if value not in ("auto", "off"):
        raise ValueError("mitigations=%s: must be auto or off" % value)
    return value == "auto"


class Mitigations:
    """bits: for vmx.mitigate(). spec_ctrl: IA32_SPEC_CTRL in root mode. flush_l1d: whether entries write
    IA32_FLUSH_CMD. always_switch: whether IA32_SPEC_CTRL has to be written at each exit, even if the guest did not.

    features, capabilities: those of the CPU, also for guests (vmm/handlers/spec_msrs.py).
    """

    def __init__(self, cpuid, rdmsr, on=True):
        self._on = on
        self._rows = []
        self.bits = self.spec_ctrl = 0
        self.always_switch = False
        leaf_7 = cpuid(0)[0] >= 7
        self._ebx = cpuid(7, 0)[1] if leaf_7 else 0
        self.features = Features(cpuid(7, 0)[3] if leaf_7 else 0)
        self.capabilities = ArchCapabilities(rdmsr(IA32_ARCH_CAPABILITIES) if self.features.ARCH_CAPABILITIES else 0)
        bhi_control = leaf_7 and cpuid(7, 0)[0] >= 2 and cpuid(7, 2)[3] & LEAF_7_2_EDX_BHI_CTRL
        self._registers()
        self._return_stack()
        self._branches(bhi_control)
        self._buffers()
        self._l1d()

    def _decide(self, name, why, safe, lacks, how):
        """Decide one mitigation and add its row. Returns whether it is on. why: the reason for it; safe: the reason why
        it is not needed, or None; lacks: the means that the CPU lacks, or None; how: the implementation."""
        if safe:
            state, text = "not needed", safe
        elif lacks:
            state, text = "VULNERABLE", "%s; the CPU does not offer %s" % (why, lacks)
        elif not self._on:
            state, text = "off", "%s; %s" % (_OFF, why)
        else:
            state, text = "on", "%s; %s" % (how, why)
        self._rows.append((name, state, text))
        return state == "on"

    def _registers(self):
        if self._decide("registers", "a guest chooses them", None, None, "cleared at each exit"):
            self.bits |= MITIGATE_REGISTERS

    def _return_stack(self):
        arch = self.capabilities
        if arch.IBRS_ALL:
            safe = "enhanced IBRS, PBRSB_NO" if arch.PBRSB_NO else None
            if self._decide("return stack", "not PBRSB_NO", safe, None, "a CALL and LFENCE at each exit"):
                self.bits |= MITIGATE_CALL
        elif self._decide("return stack", "no enhanced IBRS", None, None, "filled at each exit"):
            self.bits |= MITIGATE_FILL_RSB

    def _branches(self, bhi_control):
        arch = self.capabilities
        has = self.features.IBRS_IBPB
        why, how = "no enhanced IBRS", "IBRS set at each exit"
        if arch.IBRS_ALL:
            why, how = "enhanced IBRS has to be switched on", "IBRS set once"
        if self._decide("indirect branches", why, None, None if has else "IBRS", how):
            self.spec_ctrl |= SPEC_CTRL_IBRS
            self.always_switch = not arch.IBRS_ALL
        safe = "BHI_NO" if arch.BHI_NO else None
        lacks = None if bhi_control else "BHI_CTRL"
        if self._decide("branch history", "not BHI_NO", safe, lacks, "BHI_DIS_S in root mode"):
            self.spec_ctrl |= SPEC_CTRL_BHI_DIS_S
        lacks = None if has else "IBPB"
        if self._decide("between guests", "they share predictors", None, lacks, "IBPB before another is entered"):
            self.bits |= MITIGATE_IBPB

    def _buffers(self):
        arch = self.capabilities
        why = []
        if not arch.MDS_NO:
            why.append("not MDS_NO")
        if self._ebx & LEAF_7_EBX_RTM and not arch.TAA_NO:
            why.append("not TAA_NO")
        if arch.RFDS_CLEAR and not arch.RFDS_NO:
            why.append("not RFDS_NO")
        safe = None if why else "MDS_NO, no TSX or TAA_NO, no RFDS"
        clears = self.features.MD_CLEAR or arch.FB_CLEAR or arch.RFDS_CLEAR
        if self._decide("CPU buffers", ", ".join(why), safe, None if clears else "MD_CLEAR", "VERW before each entry"):
            self.bits |= MITIGATE_VERW

    def _l1d(self):
        arch = self.capabilities
        safe = "RDCL_NO" if arch.RDCL_NO else "SKIP_L1DFL_VMENTRY" if arch.SKIP_L1DFL_VMENTRY else None
        lacks = None if self.features.L1D_FLUSH else "L1D_FLUSH"
        self.flush_l1d = self._decide("L1 data cache", "not RDCL_NO", safe, lacks, "flushed before each entry")

    @property
    def state(self):
        """Return {mitigation: "on", "off", "not needed" or "VULNERABLE"}."""
        return {name: state for name, state, _ in self._rows}

    def __str__(self):
        return "\n".join(["%-18s %-11s %s" % row for row in self._rows])
