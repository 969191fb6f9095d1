"""Capability negotiation over the MSR values that were read on real and emulated CPUs."""

import pytest

from vmm.vtx import controls as c
from vmm.vtx.caps import Caps

SKYLAKE = {
    c.IA32_FEATURE_CONTROL: 5,
    c.IA32_VMX_BASIC: 0x00D810000000002B,
    c.IA32_VMX_MISC: 0x600401E0,
    c.IA32_VMX_CR0_FIXED0: 0x80000021,
    c.IA32_VMX_CR0_FIXED1: 0xFFFFFFFF,
    c.IA32_VMX_CR4_FIXED0: 0x2000,
    c.IA32_VMX_CR4_FIXED1: 0x3FFFFF,
    c.IA32_VMX_TRUE_PINBASED_CTLS: 0x7F00000016,
    c.IA32_VMX_TRUE_PROCBASED_CTLS: 0xF7F9FFFE04006172,
    c.IA32_VMX_TRUE_EXIT_CTLS: 0x7FFFFF00036DFB,
    c.IA32_VMX_TRUE_ENTRY_CTLS: 0xFFFF000011FB,
    c.IA32_VMX_PROCBASED_CTLS2: 0x02177FFF00000000,
    c.IA32_VMX_EPT_VPID_CAP: 0xF0106334141,
}
NESTED = SKYLAKE | {
    c.IA32_VMX_BASIC: 0x00D8100011E57ED0,
    c.IA32_VMX_MISC: 0x20000165,
    c.IA32_VMX_PROCBASED_CTLS2: 0x02037BFF00000000,
    c.IA32_VMX_TRUE_ENTRY_CTLS: 0xF3FF000011FB,
    c.IA32_VMX_EPT_VPID_CAP: 0xF0106334041,
}


def probe(msrs, vmx=True):
    return Caps(lambda leaf, subleaf=0: (0, 0, 1 << 5 if vmx else 0, 0), msrs.__getitem__)


@pytest.mark.parametrize("msrs", [SKYLAKE, NESTED])
def test_a_capable_cpu_lacks_nothing(msrs):
    caps = probe(msrs)
    assert caps.ok and caps.missing == []
    assert caps.apicv


def test_what_must_be_one_is_one_and_nothing_unoffered_is_used():
    caps = probe(SKYLAKE)
    for group, used in caps.used.items():
        assert used.raw & caps.must_be_1[group] == caps.must_be_1[group]
        assert used.raw & ~caps.found[group].raw == 0


def test_without_vmx_the_line_names_the_cpuid_bit():
    assert probe(SKYLAKE, vmx=False).missing[0].startswith("CPUID.1:ECX bit 5 (VMX)")


def test_locked_off_by_the_firmware():
    assert "IA32_FEATURE_CONTROL (0x3A) bit 2" in probe(SKYLAKE | {c.IA32_FEATURE_CONTROL: 1}).missing[0]


def test_penryn_lacks_ept_and_unrestricted_guest():
    missing = probe(SKYLAKE | {c.IA32_VMX_PROCBASED_CTLS2: 0x41 << 32}).missing
    text = "\n".join(missing)
    for bit, name in ((33, "ENABLE_EPT"), (37, "ENABLE_VPID"), (39, "UNRESTRICTED_GUEST")):
        assert f"(0x48B) bit {bit} ({name}) is not offered" in text


@pytest.mark.parametrize("bit", [0, 8, 9])
def test_apic_virtualization_is_taken_whole_or_not_at_all(bit):
    msrs = dict(SKYLAKE)
    msrs[c.IA32_VMX_PROCBASED_CTLS2] &= ~(1 << 32 + bit)
    caps = probe(msrs)
    assert caps.ok and not caps.apicv
    assert caps.used["proc2"].raw & 0x301 == 0
    assert caps.tpr_shadow and caps.used["proc"].USE_TPR_SHADOW
    assert not caps.used["proc"].CR8_LOAD_EXITING and not caps.used["proc"].CR8_STORE_EXITING


def test_without_tpr_shadow_moves_to_and_from_cr8_exit():
    msrs = dict(SKYLAKE)
    msrs[c.IA32_VMX_TRUE_PROCBASED_CTLS] &= ~(1 << 32 + 21)
    caps = probe(msrs)
    assert caps.ok and not caps.apicv and not caps.tpr_shadow
    assert caps.used["proc2"].raw & 0x301 == 0
    assert caps.used["proc"].CR8_LOAD_EXITING and caps.used["proc"].CR8_STORE_EXITING


def test_the_report_lists_what_is_used_and_what_is_spare():
    text = str(probe(SKYLAKE))
    assert "UNRESTRICTED_GUEST" in text and "spare:" in text and "missing" not in text
