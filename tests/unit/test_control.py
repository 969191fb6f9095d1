"""vmm/handlers/control.py: what a MOV to CR3 that exits does to the PDPTEs (SDM Vol. 3A, "PAE Paging")."""

import pytest
from vcpus import Vcpu

from vmm.handlers import control
from vmm.verdict import ADVANCE, RESUME
from vmm.vtx.vmcs import GUEST_PDPTE0
from vmm.vtx.x86 import CR0_PG, CR4_PAE, EFER_LMA

OLD, NEW = 0x1000, 0x2020
ENTRIES = (0x3001, 0x4001, 0, 0x5001)


@pytest.fixture
def vcpu():
    """32-bit code with PAE paging, by the table at OLD; four PDPTEs at NEW."""
    made = Vcpu()
    made.cr0 |= CR0_PG
    made.cr4 |= CR4_PAE
    made.cr3 = OLD
    for i, entry in enumerate(ENTRIES):
        made.vm.physical_store(NEW + 8 * i, 8, entry)
    return made


def loaded(vcpu):
    return tuple(vcpu.read(GUEST_PDPTE0 + 2 * i) for i in range(4))


def test_the_pdptes_are_loaded(vcpu):
    assert control.write_cr3(vcpu, NEW) == ADVANCE
    assert vcpu.cr3 == NEW
    assert loaded(vcpu) == ENTRIES
    assert vcpu.vm.flushes == 1


@pytest.mark.parametrize("bad", [0x3003, 0x30E1, 0x1_0000_0000_3001 << 4 | 1])
def test_reserved_bits_are_refused(vcpu, bad):
    vcpu.vm.physical_store(NEW + 8, 8, bad)
    assert control.write_cr3(vcpu, NEW) == RESUME
    assert vcpu.cr3 == OLD
    assert loaded(vcpu) == (0, 0, 0, 0)
    assert vcpu.injected[0] & 0xFF == 13


def test_ia_32e_mode_has_none(vcpu):
    vcpu.efer |= EFER_LMA
    assert control.write_cr3(vcpu, NEW) == ADVANCE
    assert loaded(vcpu) == (0, 0, 0, 0)
