"""VMX itself, on the engine: failures by name, every exit reason answered, large pages of EPT."""

import pytest
from bench import DATA
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx import vmcs

LOOP = f"again:\ninc qword ptr [{DATA:#x}]\njmp again"
GIB = 1 << 30

# What the monitor's shim is asked for, the VM-instruction error, its SDM name.
FAILURES = {
    "VMXON": ("vmx.on(0)", 15, "VMXON executed in VMX root operation"),
    "VMCLEAR": ("vmx.clear(1)", 2, "VMCLEAR with invalid physical address"),
    "VMPTRLD": ("vmx.load(1)", 9, "VMPTRLD with invalid physical address"),
    "VMREAD": ("vcpu.read(0x6ffe)", 12, "VMREAD/VMWRITE from/to unsupported VMCS component"),
    "VMWRITE": ("vcpu.write(0x6ffe, 0)", 12, "VMREAD/VMWRITE from/to unsupported VMCS component"),
    "INVEPT": ("vmx.invept(9, 0)", 28, "Invalid operand to INVEPT/INVVPID"),
    "INVVPID": ("vmx.invvpid(9, 1, 0)", 28, "Invalid operand to INVEPT/INVVPID"),
}

# Exit reasons without a handler, and the control without which there is no such exit.
NEVER = {
    "MONITOR_TRAP_FLAG": ("proc", "MONITOR_TRAP_FLAG"),
    "PAGE_MODIFICATION_LOG_FULL": ("proc2", "ENABLE_PML"),
    "SPP_RELATED_EVENT": ("proc2", "SUB_PAGE_WRITE_PERMISSIONS"),
    "BUS_LOCK": ("proc2", "BUS_LOCK_DETECTION"),
    "INSTRUCTION_TIMEOUT": ("proc2", "INSTRUCTION_TIMEOUT"),
}


@pytest.mark.parametrize("op", FAILURES)
def test_a_failure_has_the_sdms_number_and_name(guest, op):
    call, number, name = FAILURES[op]
    made = guest("hlt")
    made.exec("import vmx\nvcpu.rip")  # its VMCS is the current one
    assert made.refused(call) == f"VmxError: ({op!r}, {number}, {name!r})"
    made.halted()


def test_bad_controls_stop_the_guest_by_name(bench, guest):
    made = guest(LOOP)
    control = vmcs.PIN_BASED_VM_EXECUTION_CONTROLS
    good = made.eval(f"vcpu.read({control})")
    made.exec(f"vcpu.write({control}, 0)")
    said = made.until("vm.state == 'stopped'") + bench.run(20)
    assert "7, 'VM entry with invalid control field(s)')" in said
    made.exec(f"vcpu.write({control}, {good})\nvm.resume()")
    bench.run(20)
    assert made.state == "running" and made.word() > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("GUEST_TR_ACCESS_RIGHTS", 0x1008B), ("GUEST_CS_ACCESS_RIGHTS", 0xA09A), ("VMCS_LINK_POINTER", 0x123)],
)
def test_a_failed_entry_names_the_field(bench, guest, field, value):
    made = guest(LOOP)
    encoding = getattr(vmcs, field)
    good = made.eval(f"vcpu.read({encoding})")
    made.exec(f"vcpu.write({encoding}, {value})")
    said = made.until("vm.state == 'stopped'") + bench.run(20)
    assert "VM entry failed (exit reason 33, invalid guest state)" in said
    assert field in said.split("exit reason 33, qualification")[0]
    made.exec(f"vcpu.write({encoding}, {good})\nvm.resume()")
    bench.run(20)
    assert made.state == "running" and made.word() > 0


def test_every_exit_that_can_come_has_a_handler(bench, guest):
    made = guest("hlt")
    names = bench.eval("__import__('vmm.vtx.reasons').vtx.reasons.names()")
    taken = made.eval("[reason for reason in range(78) if vm.exits.default(reason) is not vm.exits.unhandled]")
    without = {name for reason, name in names.items() if reason not in taken and name not in ("ATTENTION", "PENDING")}
    for name in without:
        group, control = NEVER[name]
        assert not bench.eval(f"getattr(vmx_caps.used[{group!r}], {control!r}, 0)"), name


def test_pages_of_every_size(guest):
    """4 MiB of RAM, and one page of 1 GiB of the host's memory beside it."""
    made = guest(f"mov rdi, {DATA:#x}\nmov rsi, [rdi]\nmov rax, [rsi]\nmov [rdi + 16], rax\nhlt")
    hpa = made.eval("vm.memory.segments[0][2]")
    value = 0x1122334455667788
    made.exec(f"""
vm.ept.map({GIB}, 0, {GIB})
vm.ept.narrow({DATA:#x}, 3)
vm.flush()
vm.memory.write_u64({DATA:#x}, {GIB + hpa + DATA + 8})
vm.memory.write_u64({DATA + 8:#x}, {value})
""")
    sizes = made.eval(f"[vm.ept.walk(gpa)[1] for gpa in (0x100000, {DATA}, {GIB + hpa})]")
    assert sizes == [2 << 20, 4096, GIB]
    made.halted()
    assert made.word(2) == value
    assert made.eval("vm.exit_counts().get('EPT_VIOLATION', 0)") == 0
