"""Writes the header by which C and assembly have what the tables of vmm/ declare: the frame's offsets, VMCS encodings,
registers, bits, ports, slots.

    header.py OUTPUT

OUTPUT is written only where its text changes. The frame's members have the names of vmm/vtx/frame.py in lower case;
vcpu.h asserts that each lies where Python has it.
"""

import ast
import sys

from constants import Tree

FRAME = "vmm.vtx.frame"
GPRS = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI")  # in encoding order
MEMBERS = {name: f"gpr[{index}]" for index, name in enumerate(GPRS)}
MEMBERS |= {f"R{index}": f"gpr[{index}]" for index in range(8, 16)}
MEMBERS |= {"TIMERS": "timer", "TIMER_COUNT": "timers", "MSRS": "msr"}
BYTES = ("MSRS", "GUEST_MSRS", "HOST_MSRS", "XSAVE")  # offsets in bytes; the others are of 32-bit words
NO_MEMBERS = ("MSR_SLOTS", "STORED_MSRS", "SIZE")

ASSEMBLY = ("HOST_RSP", "LAUNCHED")  # offsets that vmx.S uses

# (module, name or prefix in Python, in C): constants that both sides use. A prefix ends in "_", or is empty: all.
# "McStatus." are the fields of a register class, in C the masks of their bits.
SHARED = (
    (FRAME, "DIRTY_", "FRAME_DIRTY_"),
    (FRAME, "WANT_", "FRAME_WANT_"),
    (FRAME, "SIZE", "VCPU_FRAME_SIZE"),
    ("vmm.vtx.reasons", "ATTENTION", "VCPU_SLOT_ATTENTION"),
    ("vmm.vtx.reasons", "PENDING", "VCPU_SLOT_PENDING"),
    ("vmm.vtx.reasons", "COMPLETED", "VCPU_SLOT_COMPLETED"),
    ("vmm.vtx.reasons", "WRITTEN", "VCPU_SLOT_WRITTEN"),
    ("vmm.vtx.reasons", "SLOTS", "VCPU_REASONS"),
    ("vmm.vtx.mitigations", "MITIGATE_", "VCPU_MITIGATE_"),
    ("vmm.vtx.trial", "FLAW_", "FLAW_"),
    ("vmm.policies.account", "CALL_", "ACCOUNT_"),
    ("vmm.verdict", "ADVANCE", "VERDICT_ADVANCE"),
    ("vmm.scheduling.clock", "MIN_RUN_MOST", "MIN_RUN_MOST"),
    ("vmm.scheduling.words", "POLL_TICKS", "SERVICE_TICKS"),
    (FRAME, "MSR_SLOTS", "VCPU_MSRS"),
    ("vmm.vtx.reasons", "TABLE_SLOTS", "VCPU_SLOTS"),
    ("vmm.vtx.vmcs", "", ""),
    ("vmm.vtx.vmcs_bits", "BLOCKING_BY_STI_MOV_SS", "BLOCKING_BY_STI_MOV_SS"),
    ("vmm.vtx.vmcs_bits", "PENDING_BS", "PENDING_BS"),
    ("vmm.vtx.vmcs_bits", "ENTRY_IA32E_MODE_GUEST", "ENTRY_IA32E_MODE_GUEST"),
    ("vmm.vtx.vmcs_bits", "RIGHTS_L", "RIGHTS_L"),
    ("vmm.vtx.events", "VALID", "INFO_VALID"),
    ("vmm.vtx.breakpoints", "ENABLES", "DR7_ENABLES"),
    ("vmm.vtx.cpuid_bits", "LEAF_1_", "CPUID_1_"),
    ("vmm.vtx.cpuid_bits", "LEAF_D_", "CPUID_D_"),
    ("vmm.vtx.cpuid_bits", "EXTENDED_1_", "CPUID_EXTENDED_1_"),
    ("vmm.vtx.cpuid_bits", "XCR0_", "XCR0_"),
    ("vmm.vtx.x86", "CR0_", "CR0_"),
    ("vmm.vtx.x86", "CR4_", "CR4_"),
    ("vmm.vtx.x86", "EFER_", "EFER_"),
    ("vmm.vtx.x86", "RFLAGS_", "RFLAGS_"),
    ("vmm.vtx.x86", "DEBUGCTL_", "DEBUGCTL_"),
    ("vmm.vtx.x86", "IA32_", "IA32_"),
    ("vmm.vtx.x86", "APIC_BASE", "APIC_BASE"),
    ("vmm.vtx.x86", "APIC_BASE_", "APIC_BASE_"),
    ("vmm.vtx.x86", "X2APIC_MSRS", "X2APIC_MSRS"),
    ("vmm.vtx.x86", "IOAPIC_BASE", "IOAPIC_BASE"),
    ("vmm.vtx.x86", "INSTRUCTION_BYTES", "INSTRUCTION_BYTES"),
    ("vmm.vtx.x86", "MXCSR_RESET", "MXCSR_RESET"),
    ("vmm.vtx.mitigations", "IA32_PRED_CMD", "IA32_PRED_CMD"),
    ("vmm.devices.lapic_registers", "ID", "APIC_ID"),
    ("vmm.devices.lapic_registers", "TPR", "APIC_TPR"),
    ("vmm.devices.lapic_registers", "PPR", "APIC_PPR"),
    ("vmm.devices.lapic_registers", "EOI", "APIC_EOI"),
    ("vmm.devices.lapic_registers", "SVR", "APIC_SVR"),
    ("vmm.devices.lapic_registers", "SVR_ENABLED", "APIC_SVR_ENABLED"),
    ("vmm.devices.lapic_registers", "ISR", "APIC_ISR"),
    ("vmm.devices.lapic_registers", "IRR", "APIC_IRR"),
    ("vmm.devices.lapic_registers", "LVT_", "APIC_LVT_"),
    ("vmm.devices.lapic_registers", "TIMER_", "APIC_TIMER_"),
    ("vmm.devices.ioapic", "IOWIN", "IOAPIC_IOWIN"),
    ("vmm.devices.ioapic", "VER", "IOAPIC_VER"),
    ("vmm.devices.ioapic", "REDIRECTION", "IOAPIC_REDIRECTION"),
    ("vmm.devices.ioapic", "LEVEL", "IOAPIC_LEVEL"),
    ("vmm.devices.ioapic", "MASKED", "IOAPIC_MASKED"),
    ("vmm.devices.ioapic", "PINS", "IOAPIC_PINS"),
    ("vmm.devices.pc_ports", "", "PC_"),
    ("vmm.devices.i8259", "ICW1", "PIC_ICW1"),
    ("vmm.devices.i8259", "ICW1_", "PIC_ICW1_"),
    ("vmm.devices.i8259_lines", "CASCADE", "PIC_CASCADE"),
    ("vmm.devices.i8254", "CONTROL", "PIT_CONTROL"),
    ("vmm.devices.i8254", "GATE_2", "PIT_GATE_2"),
    ("vmm.devices.i8254", "SPEAKER", "PIT_SPEAKER"),
    ("vmm.devices.i8254", "OUT_2", "PIT_OUT_2"),
    ("vmm.devices.i8254_counters", "FREQUENCY", "PIT_HZ"),
    ("vmm.devices.reset_cf9", "SYSTEM", "RESET_SYSTEM"),
    ("vmm.devices.reset_cf9", "CPU", "RESET_CPU"),
    ("vmm.devices.i8042", "PULSE", "KEYBOARD_PULSE"),
    ("vmm.devices.i8042", "NOT_RESET", "KEYBOARD_NOT_RESET"),
    ("vmm.devices.mc146818", "SECONDS", "RTC_SECONDS"),
    ("vmm.devices.mc146818", "MINUTES", "RTC_MINUTES"),
    ("vmm.devices.mc146818", "HOURS", "RTC_HOURS"),
    ("vmm.devices.mc146818", "DAY", "RTC_DAY"),
    ("vmm.devices.mc146818", "MONTH", "RTC_MONTH"),
    ("vmm.devices.mc146818", "YEAR", "RTC_YEAR"),
    ("vmm.devices.mc146818", "A", "RTC_A"),
    ("vmm.devices.mc146818", "B", "RTC_B"),
    ("vmm.devices.mc146818", "A_UIP", "RTC_A_UIP"),
    ("vmm.devices.mc146818", "B_", "RTC_B_"),
    ("vmm.devices.mc146818", "PM", "RTC_PM"),
    ("vmm.devices.mc146818", "NMI_OFF", "RTC_NMI_OFF"),
    ("vmm.devices.uart16550_registers", "", "UART_"),
    ("vmm.machine_check", "McStatus.", "MC_STATUS_"),
    ("vmm.machine_check", "MC_", "MC_"),
    ("vmm.vtx.keys", "FACTOR", "VCPU_KEY_FACTOR"),
    ("vmm.debug.mailbox_layout", "RUNG", "MAILBOX_RUNG"),
    ("vmm.debug.mailbox_layout", "SEEN", "MAILBOX_SEEN"),
    ("vmm.debug.mailbox_layout", "BELLS", "MAILBOX_BELLS"),
    ("vmm.memory.paging", "ADDRESS", "PTE_ADDRESS"),
    ("vmm.memory.paging", "P", "PTE_P"),
    ("vmm.memory.paging", "RW", "PTE_RW"),
    ("vmm.memory.paging", "PWT", "PTE_PWT"),
    ("vmm.memory.paging", "PCD", "PTE_PCD"),
    ("vmm.memory.paging", "D", "PTE_D"),
    ("vmm.memory.paging", "PS", "PTE_PS"),
    ("vmm.memory.paging", "XD", "PTE_XD"),
    ("vmm.memory.paging", "WRITE", "PF_WRITE"),
    ("vmm.memory.paging", "USER", "PF_USER"),
    ("vmm.memory.paging", "RSVD", "PF_RSVD"),
    ("vmm.memory.paging", "FETCH", "PF_FETCH"),
    ("vmm.memory.guest", "PIECE", "MEMORY_PIECE"),
    ("vmm.memory.e820", "VGA", "VGA_MEMORY"),
    ("vmm.memory.e820", "OPTION_ROMS", "OPTION_ROMS"),
    ("vmm.vtx.recording", "RECORD_SIZE", "TRACE_RECORD_SIZE"),
    ("vmm.vtx.recording", "UNKNOWN_", "TRACE_UNKNOWN_"),
    ("vmm.vtx.recording", "SLOT_SIZE", "TRACE_SLOT_SIZE"),
    ("vmm.vtx.recording", "BUCKETS", "TRACE_BUCKETS"),
    ("vmm.vtx.recording", "BUCKET_BITS", "TRACE_BUCKET_BITS"),
)


def names(tree, module):
    """The constants that a module declares itself, in its order."""
    with open(tree.path(module)) as file:
        body = ast.parse(file.read()).body
    targets = [node.targets[0].id for node in body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    return [name for name in targets if tree.value(module, name) is not None]


def masks(tree, module, register):
    """[(name, mask), ...] of the fields that a register class declares."""
    with open(tree.path(module)) as file:
        body = ast.parse(file.read()).body
    (found,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == register]
    for node in found.body:
        if isinstance(node, ast.Assign) and node.value.func.id == "Bits":
            high, *low = [argument.value for argument in node.value.args]
            yield node.targets[0].id, (2 << high) - (1 << (low or [high])[0])


def shared(tree, module, python):
    """[(the rest of its name in C, value), ...] of a line of SHARED."""
    if python.endswith("."):
        return list(masks(tree, module, python[:-1]))
    found = [
        name for name in names(tree, module) if name == python or (python[-1:] in ("_", "") and name.startswith(python))
    ]
    return [(name[len(python) :], tree.value(module, name)) for name in found]


def number(value):
    """From bit 31 on of 64 bits, so that its complement is, too; C wants a suffix for that, the assembler none."""
    return f"SHARED_U64({value:#x})" if value >> 31 else f"{value:#x}"


def header(tree):
    lines = ["// Made by port/header.py from the tables in vmm/.", "#ifdef __ASSEMBLER__", "#define SHARED_U64(n) n"]
    lines += ["#else", "#define SHARED_U64(n) n##ull", "#endif"]
    for module, python, c in SHARED:
        found = shared(tree, module, python)
        if not found:
            raise SystemExit(f"header.py: {module} has no {python}")
        lines += [f"#define {c}{rest} ({number(value)})" for rest, value in found]
    members = []
    for name in names(tree, FRAME):
        if name not in NO_MEMBERS and not name.startswith(("DIRTY_", "WANT_")):
            offset = tree.value(FRAME, name) * (1 if name in BYTES else 4)
            members.append(f"    F({MEMBERS.get(name, name.lower())}, {offset:#x})")
    lines += [f"#define FRAME_{name} ({tree.value(FRAME, name) * 4:#x})" for name in ASSEMBLY]
    lines += ["#define VCPU_FRAME_MEMBERS(F) \\", " \\\n".join(members)]
    return "\n".join(lines) + "\n"


def main(output):
    text = header(Tree(".."))
    try:
        with open(output) as file:
            same = file.read() == text
    except FileNotFoundError:
        same = False
    if not same:
        with open(output, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
