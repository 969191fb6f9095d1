"""vmm/vtx/guest_checks.py: a valid state is silent, and each spoilt field is named, alone where it can be."""

from vcpus import UNUSABLE, Vcpu

from vmm.vtx import guest_checks, vmcs

SILENT = ["no check of vmm/vtx/guest_checks.py fails"]
VALID = 1 << 31
SECONDARY = "SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS"
EPT_ONLY = 1 << 1  # no unrestricted guest
V86 = 1 << 17 | 2
PAE = {"GUEST_CR0": 0x80000031, "GUEST_CR4": 0x2020}


def found(changes, vcpu=None):
    vcpu = vcpu or Vcpu()
    for name, value in changes.items():
        if name.startswith("GUEST_R") and name[6:] in ("RIP", "RFLAGS"):
            setattr(vcpu, name[6:].lower(), value)
        else:
            vcpu.write(getattr(vmcs, name), value)
    return guest_checks.faults(vcpu)


# field, value: exactly one line, about that field
ALONE = (
    ("GUEST_CR0", 0x11),
    ("GUEST_CR0", 1 << 32 | 0x31),
    ("GUEST_CR4", 0),
    ("GUEST_CR4", 0x2000 | 1 << 30),
    ("GUEST_CR4", 0x2000 | 1 << 17),
    ("GUEST_CR3", 1 << 40),
    ("GUEST_DR7", 1 << 32),
    ("GUEST_IA32_DEBUGCTL", 1 << 3),
    ("GUEST_IA32_PAT", 0x0007040600070402),
    ("GUEST_IA32_EFER", 1 << 1),
    ("GUEST_IA32_EFER", 1 << 10),
    ("GUEST_IA32_SYSENTER_ESP", 1 << 47),
    ("GUEST_IA32_SYSENTER_EIP", 0xFFFF7FFFFFFFFFFF),
    ("GUEST_CS_ACCESS_RIGHTS", 0xC09A),
    ("GUEST_CS_ACCESS_RIGHTS", 0xC095),
    ("GUEST_CS_ACCESS_RIGHTS", 0xC08B),
    ("GUEST_CS_ACCESS_RIGHTS", 0xC01B),
    ("GUEST_CS_ACCESS_RIGHTS", 0xC0FB),
    ("GUEST_CS_ACCESS_RIGHTS", 0xC0FF),
    ("GUEST_CS_ACCESS_RIGHTS", 0xC0F3),
    ("GUEST_CS_ACCESS_RIGHTS", 0x409B),
    ("GUEST_CS_ACCESS_RIGHTS", 0x2C09B),
    ("GUEST_CS_ACCESS_RIGHTS", 0xC19B),
    ("GUEST_CS_BASE", 1 << 32),
    ("GUEST_SS_ACCESS_RIGHTS", 0xC09B),
    ("GUEST_SS_BASE", 1 << 32),
    ("GUEST_DS_ACCESS_RIGHTS", 0xC092),
    ("GUEST_ES_ACCESS_RIGHTS", 0xC099),
    ("GUEST_FS_ACCESS_RIGHTS", 0xC013),
    ("GUEST_GS_BASE", 1 << 47),
    ("GUEST_TR_SELECTOR", 4),
    ("GUEST_TR_ACCESS_RIGHTS", 0x89),
    ("GUEST_TR_ACCESS_RIGHTS", 0x1008B),
    ("GUEST_TR_ACCESS_RIGHTS", 0x9B),
    ("GUEST_TR_BASE", 1 << 63),
    ("GUEST_LDTR_ACCESS_RIGHTS", 0x83),
    ("GUEST_GDTR_LIMIT", 0x10000),
    ("GUEST_IDTR_BASE", 1 << 50),
    ("GUEST_RIP", 1 << 32),
    ("GUEST_RFLAGS", 0),
    ("GUEST_RFLAGS", 0x8002),
    ("GUEST_ACTIVITY_STATE", 4),
    ("GUEST_INTERRUPTIBILITY_STATE", 1),
    ("GUEST_INTERRUPTIBILITY_STATE", 4),
    ("GUEST_INTERRUPTIBILITY_STATE", 32),
    ("GUEST_PENDING_DEBUG_EXCEPTIONS", 1 << 13),
    ("VMCS_LINK_POINTER", 0x123),
)

# changes, the field that one of the lines names
TOGETHER = (
    ({"GUEST_CS_LIMIT": 0xFFFF0000}, "GUEST_CS_ACCESS_RIGHTS"),
    ({SECONDARY: EPT_ONLY, "GUEST_CR0": 0x31}, "GUEST_CR0"),
    ({"GUEST_CR0": 0x80000030}, "GUEST_CR0"),
    ({SECONDARY: EPT_ONLY, "GUEST_CS_ACCESS_RIGHTS": 0xC093}, "GUEST_CS_ACCESS_RIGHTS"),
    ({SECONDARY: EPT_ONLY, "GUEST_SS_SELECTOR": 0x13}, "GUEST_SS_SELECTOR"),
    ({SECONDARY: EPT_ONLY, "GUEST_DS_SELECTOR": 0x13}, "GUEST_DS_ACCESS_RIGHTS"),
    (
        {"GUEST_CR0": 0x30, "GUEST_SS_ACCESS_RIGHTS": 0xC0F3, "GUEST_CS_ACCESS_RIGHTS": 0xC0FB},
        "GUEST_SS_ACCESS_RIGHTS",
    ),
    ({"GUEST_RFLAGS": V86}, "GUEST_CS_ACCESS_RIGHTS"),
    ({"GUEST_RFLAGS": V86}, "GUEST_ES_BASE"),
    ({"GUEST_RFLAGS": V86}, "GUEST_GS_LIMIT"),
    ({"GUEST_LDTR_ACCESS_RIGHTS": 0x82, "GUEST_LDTR_SELECTOR": 4}, "GUEST_LDTR_SELECTOR"),
    ({"VM_ENTRY_INTERRUPTION_INFORMATION": VALID | 0x20}, "GUEST_RFLAGS"),
    (
        {
            "VM_ENTRY_INTERRUPTION_INFORMATION": VALID | 0x20,
            "GUEST_RFLAGS": 0x202,
            "GUEST_INTERRUPTIBILITY_STATE": 2,
        },
        "GUEST_INTERRUPTIBILITY_STATE",
    ),
    (
        {
            "VM_ENTRY_INTERRUPTION_INFORMATION": VALID | 0x202,
            "PIN_BASED_VM_EXECUTION_CONTROLS": 1 << 5,
            "GUEST_INTERRUPTIBILITY_STATE": 8,
        },
        "GUEST_INTERRUPTIBILITY_STATE",
    ),
    ({"GUEST_ACTIVITY_STATE": 1, "VM_ENTRY_INTERRUPTION_INFORMATION": VALID | 0x30D}, "GUEST_ACTIVITY_STATE"),
    ({"GUEST_ACTIVITY_STATE": 1, "GUEST_SS_ACCESS_RIGHTS": 0xC0F3}, "GUEST_ACTIVITY_STATE"),
    ({"GUEST_ACTIVITY_STATE": 1, "GUEST_INTERRUPTIBILITY_STATE": 2}, "GUEST_ACTIVITY_STATE"),
    ({"GUEST_INTERRUPTIBILITY_STATE": 2, "GUEST_RFLAGS": 0x102}, "GUEST_PENDING_DEBUG_EXCEPTIONS"),
    (
        {"GUEST_INTERRUPTIBILITY_STATE": 2, "GUEST_PENDING_DEBUG_EXCEPTIONS": 1 << 14},
        "GUEST_PENDING_DEBUG_EXCEPTIONS",
    ),
    ({"GUEST_CR0": 0x80000031, "GUEST_IA32_EFER": 0x100}, "GUEST_IA32_EFER"),
    (dict(PAE, GUEST_PDPTE2=3), "GUEST_PDPTE2"),
    (dict(PAE, GUEST_PDPTE3=1 | 1 << 41), "GUEST_PDPTE3"),
)

FINE = (
    {},
    PAE,
    dict(PAE, GUEST_PDPTE0=2, GUEST_PDPTE1=0x5001),
    {"GUEST_CR0": 0x30, "GUEST_CS_ACCESS_RIGHTS": 0xC093},
    {"GUEST_ACTIVITY_STATE": 1, "VM_ENTRY_INTERRUPTION_INFORMATION": VALID | 0x202},
    {"GUEST_DS_ACCESS_RIGHTS": UNUSABLE, "GUEST_SS_ACCESS_RIGHTS": UNUSABLE, "GUEST_ES_BASE": 1},
    {"GUEST_INTERRUPTIBILITY_STATE": 1, "GUEST_RFLAGS": 0x302, "GUEST_PENDING_DEBUG_EXCEPTIONS": 1 << 14},
    {"GUEST_INTERRUPTIBILITY_STATE": 2, "GUEST_RFLAGS": 0x102, "GUEST_IA32_DEBUGCTL": 2},
    {"GUEST_PENDING_DEBUG_EXCEPTIONS": 1 << 16 | 1 << 12},
)


def test_valid_states_are_silent():
    for changes in FINE:
        assert found(changes) == SILENT, (changes, found(changes))


def test_each_field_is_named_with_its_value():
    for name, value in ALONE:
        lines = found({name: value})
        assert len(lines) == 1, (name, value, lines)
        assert lines[0].startswith("%s %#x: " % (name, value)), (name, lines)


def test_checks_that_depend_on_others():
    for changes, name in TOGETHER:
        lines = found(changes)
        assert any([line.startswith(name + " ") for line in lines]), (changes, lines)


def test_message_says_what_must_be():
    want = "GUEST_CS_ACCESS_RIGHTS 0xc095: type of CS must be 9, 11, 13 or 15 (or 3 with unrestricted guest)"
    assert found({"GUEST_CS_ACCESS_RIGHTS": 0xC095}) == [want]


def test_virtual_8086_mode():
    vcpu = Vcpu()
    for name in ("es", "cs", "ss", "ds", "fs", "gs"):
        vcpu.set_segment(name, 0x1234, 0x12340, 0xFFFF, 0xF3)
    assert found({"GUEST_RFLAGS": V86}, vcpu) == SILENT


def test_64_bit_mode():
    vcpu = Vcpu()
    vcpu.long_mode()
    assert found({"GUEST_RIP": 0xFFFFFFFF81000000, "GUEST_FS_BASE": 0x7FFFFFFFFFFF}, vcpu) == SILENT
    lines = found({"GUEST_CR4": 0x2000, "GUEST_CS_ACCESS_RIGHTS": 0xE09B, "GUEST_RIP": 1 << 47}, vcpu)
    assert [line.split()[0] for line in lines] == ["GUEST_CR4", "GUEST_CS_ACCESS_RIGHTS", "GUEST_RIP"]
    vcpu = Vcpu()
    vcpu.long_mode()
    assert found({"GUEST_TR_ACCESS_RIGHTS": 0x83}, vcpu) == [
        "GUEST_TR_ACCESS_RIGHTS 0x83: type of TR must be 11 in IA-32e mode"
    ]


def test_qualification_is_explained():
    vcpu = Vcpu()
    vcpu.qualification = 2
    assert guest_checks.faults(vcpu) == ["qualification 2: loading the PDPTEs failed"]
