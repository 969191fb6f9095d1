"""vmm/handlers/task_switch.py with paging: CR3, page faults, PDPTEs."""

from tasks import EXCEPTION, GATE, JMP, NEW, entered, injected, machine, new_task, switch, switched

from vmm import verdict
from vmm.fault import PF, TS
from vmm.vtx.vmcs import GUEST_PDPTE0


def paging_on(vcpu, directory, table, absent=()):
    """4 KiB pages, the first 64 KiB of memory identity mapped."""
    memory = vcpu.vm.memory
    memory.write_u32(directory, table | 3)
    for page in range(16):
        memory.write_u32(table + 4 * page, 0 if page in absent else page << 12 | 3)
    vcpu.cr0 = 0x80010031


def test_cr3_changes_with_paging():
    vcpu = machine()
    paging_on(vcpu, 0x9000, 0xA000)
    paging_on(vcpu, 0xB000, 0xC000)
    vcpu.cr3 = 0x9000
    new_task(vcpu, cr3=0xB000)
    switched(vcpu, JMP)
    assert vcpu.cr3 == 0xB000 and vcpu.vm.flushes == 1


def test_page_faults_come_before_any_change():
    for absent, selector, cr2, error in ((2, NEW, 0x2100, 0), (1, NEW, 0x1020, 0)):
        vcpu = machine()
        vcpu.cr3 = 0x9000
        paging_on(vcpu, 0x9000, 0xA000, (absent,))
        fields = dict(vcpu.fields)
        switch(vcpu, JMP, selector)
        assert injected(vcpu) == (PF, error)
        assert vcpu.cr2 == cr2 and vcpu.fields == fields and vcpu.rip == 0x1234


def test_page_fault_in_the_new_address_space():
    vcpu = machine()
    vcpu.cr3 = 0x9000
    paging_on(vcpu, 0x9000, 0xA000)
    paging_on(vcpu, 0xB000, 0xC000, (7,))
    new_task(vcpu, cr3=0xB000)
    switch(vcpu, GATE, NEW, EXCEPTION, 17, 0)
    assert injected(vcpu) == (PF, 2) and vcpu.cr2 == 0x7FFC and vcpu.rip == 0x4000
    entered(vcpu)


def test_pae_loads_pdptes():
    for low, want in ((0xC001, None), (0xC007, (TS, 0))):
        vcpu = machine()
        memory = vcpu.vm.memory
        for pdpt, entry in ((0x9000, 0xC001), (0x9020, low)):
            memory.write_u64(pdpt, entry)
        memory.write_u64(0xC000, 0xD003)
        for page in range(16):
            memory.write_u64(0xD000 + 8 * page, page << 12 | 3)
        vcpu.cr0, vcpu.cr3, vcpu.cr4 = 0x80010031, 0x9000, 0x2020
        vcpu.write(GUEST_PDPTE0, 0xC001)
        memory.write_u64(0x9000, 0)  # what counts is what MOV to CR3 loaded
        new_task(vcpu, cr3=0x9020)
        switch(vcpu, JMP)
        if want:
            assert injected(vcpu) == want
        else:
            assert vcpu.injected[0] == 0 and vcpu.read(GUEST_PDPTE0) == low
        assert vcpu.cr3 == 0x9020


def test_paging_structures_outside_memory_stop_the_guest():
    vcpu = machine()
    vcpu.cr0, vcpu.cr3 = 0x80010031, 0x10000000
    assert switch(vcpu, JMP) == verdict.STOP
    assert "outside guest memory" in vcpu.vm.reports[0]
