"""Which mitigations are on, by what CPUs of some generations say of themselves."""

import pytest

from vmm.vtx import mitigations as m
from vmm.vtx.mitigations import Mitigations, wanted

# CPUID 7.0 EBX and EDX, 7.2 EDX (None: no subleaf 2), IA32_ARCH_CAPABILITIES (None: no such MSR). RTM is EBX bit 11.
RTM = 1 << 11
CPUS = {
    "no microcode of 2018": (RTM, 0, None, None),
    "Haswell": (RTM, 0x9C000400, None, None),  # MD_CLEAR, IBRS_IBPB, STIBP, L1D_FLUSH, SSBD
    "Cascade Lake": (RTM, 0xBC000400, None, 0x2B),  # RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO
    "Cascade Lake without TSX": (0, 0xBC000400, None, 0x2B),
    "Alder Lake": (0, 0xBC000400, 1 << 4, 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 28),  # RFDS_CLEAR, BHI_CTRL
    "none of them": (RTM, 0xBC000400, 1 << 4, 1 | 1 << 1 | 1 << 5 | 1 << 8 | 1 << 20 | 1 << 24 | 1 << 27 | 1 << 28),
    "Bochs's Skylake-X": (0xD19F27EB, 0, None, None),
    "Bochs's Tiger Lake": (0xF1BF27EB, 0xFC100510, None, 0x1F),
}  # fmt: skip
ON, NO, VULNERABLE = "on", "not needed", "VULNERABLE"
NAMES = (
    "registers", "return stack", "indirect branches", "branch history", "between guests", "CPU buffers",
    "L1 data cache",
)  # fmt: skip
STATES = {
    "no microcode of 2018": (ON, ON, VULNERABLE, VULNERABLE, VULNERABLE, VULNERABLE, VULNERABLE),
    "Haswell": (ON, ON, ON, VULNERABLE, ON, ON, ON),
    "Cascade Lake": (ON, ON, ON, VULNERABLE, ON, ON, NO),
    "Cascade Lake without TSX": (ON, ON, ON, VULNERABLE, ON, NO, NO),
    "Alder Lake": (ON, ON, ON, ON, ON, ON, NO),
    "none of them": (ON, NO, ON, NO, ON, NO, NO),
    "Bochs's Skylake-X": (ON, ON, VULNERABLE, VULNERABLE, VULNERABLE, VULNERABLE, VULNERABLE),
    "Bochs's Tiger Lake": (ON, ON, ON, VULNERABLE, ON, ON, NO),
}


def decide(name, on=True):
    ebx, edx, bhi, arch = CPUS[name]

    def cpuid(leaf, subleaf=0):
        if leaf == 0:
            return 0x16, 0, 0, 0
        assert leaf == 7
        if subleaf == 0:
            return 2 if bhi is not None else 0, ebx, 0, edx
        assert subleaf == 2 and bhi is not None
        return 0, 0, 0, bhi

    def rdmsr(index):
        assert index == 0x10A and arch is not None, "#GP"
        return arch

    return Mitigations(cpuid, rdmsr, on)


@pytest.mark.parametrize("name", CPUS)
def test_what_is_on(name):
    assert decide(name).state == dict(zip(NAMES, STATES[name], strict=True))


@pytest.mark.parametrize("name", CPUS)
def test_off_means_off(name):
    found = decide(name, on=False)
    assert (found.bits, found.spec_ctrl, found.always_switch, found.flush_l1d) == (0, 0, False, False)
    expected = ["off" if state == ON else state for state in STATES[name]]
    assert list(found.state.values()) == expected  # what the CPU is does not change


def test_what_the_shim_is_told():
    haswell = decide("Haswell")
    assert haswell.bits == m.MITIGATE_REGISTERS | m.MITIGATE_FILL_RSB | m.MITIGATE_VERW | m.MITIGATE_IBPB
    assert haswell.spec_ctrl == 1 and haswell.always_switch and haswell.flush_l1d
    alder = decide("Alder Lake")
    assert alder.bits == m.MITIGATE_REGISTERS | m.MITIGATE_CALL | m.MITIGATE_VERW | m.MITIGATE_IBPB
    assert alder.spec_ctrl == 1 | 1 << 10 and not alder.always_switch and not alder.flush_l1d
    assert decide("none of them").bits == m.MITIGATE_REGISTERS | m.MITIGATE_IBPB


def test_a_cpu_older_than_leaf_7():
    found = Mitigations(lambda leaf, subleaf=0: (6, 0, 0, 0) if leaf == 0 else 1 / 0, None)
    assert found.bits == m.MITIGATE_REGISTERS | m.MITIGATE_FILL_RSB and found.state["between guests"] == VULNERABLE


def test_the_report_says_why():
    text = str(decide("Cascade Lake"))
    assert "CPU buffers        on          VERW before each entry; not TAA_NO" in text
    assert "L1 data cache      not needed  RDCL_NO" in text
    assert "mitigations=off; no enhanced IBRS" in str(decide("Haswell", on=False))


@pytest.mark.parametrize(
    "line, on",
    [("", True), ("pcanel.elf heap=64M", True), ("mitigations=auto", True), ("heap=1M mitigations=off", False)],
)
def test_the_command_line(line, on):
    assert wanted(line) is on


def test_a_word_that_nobody_knows():
    with pytest.raises(ValueError, match="mitigations=of: must be auto or off"):
        wanted("mitigations=of")
