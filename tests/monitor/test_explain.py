"""vm.explain(): small guests that die as a young kernel does, each of its kind; those that hang; tables and walks."""

import re
import struct

import ring3
from bench import CODE, DATA, HANDLERS, IDT, IDTR, REAL, STACK
from pcanel.assemble import assemble

GDTR, GDT = DATA + 0x8000, DATA + 0x8100
CODE64, DATA64, CODE32 = 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF
AT = CODE + 7  # behind `mov rsp`
SHUTDOWN = "an exception in the delivery of #DF: the CPU shuts down, a triple fault"
DF = "#GP in the delivery of %s makes a double fault, #DF"


def gdt(*entries):
    return {
        GDTR: struct.pack("<HQ", 8 * len(entries) - 1, GDT),
        GDT: struct.pack(f"<{len(entries)}Q", *entries),
    }


def idt(gates, limit=0xFFF):
    """{vector: (selector, type byte)}: gates of 64-bit mode, all to HANDLERS."""
    table = bytearray(4096)
    for vector, (selector, kind) in gates.items():
        struct.pack_into("<HHBBHI", table, 16 * vector, HANDLERS & 0xFFFF, selector, 0, kind, HANDLERS >> 16, 0)
    return {IDT: bytes(table), IDTR: struct.pack("<HQ", limit, IDT), HANDLERS: b"\xf4"}


def image(made, source: str, bits: int = 64) -> None:
    """Start the guest with another program, and let it stand before the first instruction."""
    code = assemble(f"mov rsp, {STACK:#x}\n{source}", bits, CODE)
    made.exec(f"vm.blobs = {{'code': {code!r}}}\nvm.start()\nvm.pause()")


def explained(made) -> list[str]:
    """The lines of vm.explain() without their indentation; the first one and the last registers are checked here."""
    made.until("vm.state == 'stopped'")
    text = made.exec("print(vm.explain())")
    print(text)
    lines = text.splitlines()
    assert re.match(f"run [0-9]+ of {made.name} ended after ", lines[0]) and "triple fault at 0x" in lines[0]
    return [line.strip() for line in lines[1:]]


def test_no_idt(guest):
    made = guest("mov ebx, 7; ud2")
    at = AT + 5
    lines = explained(made)
    assert lines == [
        f"1. #UD invalid opcode, at {at:#x}",
        f"{at:#018x} 64: 0f 0b                          ud2",
        "UD2: the program's own trap (a failed assertion, code that is never reached)",
        "2. the CPU could not deliver #UD: #GP(0x33)",
        "the IDT at 0x0 ends before vector 6: its limit is 0x0, and 0x6f is needed",
        "3. the CPU could not deliver #GP: #GP(0x6b)",
        "the IDT at 0x0 ends before vector 13: its limit is 0x0, and 0xdf is needed",
        "4. #GP in the delivery of #GP makes a double fault, #DF",
        "5. the CPU could not deliver #DF: #GP(0x43)",
        "the IDT at 0x0 ends before vector 8: its limit is 0x0, and 0x8f is needed",
        f"6. {SHUTDOWN}",
    ]
    # The guest stands at the instruction, with the registers that it had.
    assert made.eval("(vcpu.rip, vcpu.rbx, vcpu.rsp, vcpu.reason, vm.starts)") == (at, 7, STACK, 2, 1)
    assert made.eval("vm.messages") == [
        f"triple fault at {at:#x}: #UD, #GP(0x33), #GP(0x6b), #DF, #GP(0x43); vm.explain() tells more"
    ]


GATES = {
    "all zero": ({}, " is all zero: there is no handler", "#GP(0x33)"),
    "not present": ({6: (0x10, 0x0E)}, " is not present (P = 0)", "#NP(0x33)"),
    "no gate": ({6: (0x10, 0x89)}, " has type 0x9; only 0xe (interrupt) and 0xf (trap) are gates", "#GP(0x33)"),
    "null selector": ({6: (0, 0x8E)}, " names selector 0x0: the null selector", "#GP(0x1)"),
    "no selector": ({6: (0x80, 0x8E)}, " names selector 0x80, beyond the GDT's limit 0x2f", "#GP(0x81)"),
    "data": ({6: (0x18, 0x8E)}, " names selector 0x18, which is no code segment", "#GP(0x19)"),
    "16-bit code": (
        {6: (0x20, 0x8E)}, " names selector 0x20, which is no 64-bit code segment (L = 1, D = 0)", "#GP(0x21)",
    ),
}  # fmt: skip


def test_a_bad_gate(guest):
    """One guest, which is started again for each."""
    made = guest(f"lidt [{IDTR:#x}]\nud2")
    idtr = idt({})[IDTR]
    for how, (gates, why, error) in GATES.items():
        gate = idt(gates)[IDT][96:112]
        write = f"vm.memory.write({IDTR:#x}, {idtr!r})\nvm.memory.write({IDT + 96:#x}, {gate!r})"
        made.exec(f"vm.start()\nvm.pause()\n{write}")
        lines = explained(made)
        assert lines[3:5] == [f"2. the CPU could not deliver #UD: {error}", "gate 6 of the IDT" + why], how
        assert lines[-1].endswith(SHUTDOWN)


def test_a_software_interrupt_that_its_gate_does_not_allow(guest):
    """The DPL is of INT n alone: for what the CPU raises itself the gate is as good as any."""
    made = guest(
        f"lidt [{IDTR:#x}]\n{ring3.enter(ring3.USER)}",
        data={**ring3.tables(), ring3.USER: assemble("int 0x80", 64, ring3.USER), **idt({0x80: (0x10, 0x8E)})},
    )
    lines = explained(made)
    assert lines[:4] == [
        "1. the CPU could not deliver INT 0x80: #GP(0x402)",
        "gate 128 of the IDT has DPL 0, and CPL is 3",
        "2. the CPU could not deliver #GP: #GP(0x6b)",
        "gate 13 of the IDT is all zero: there is no handler",
    ]


def test_a_stack_that_is_not_mapped(guest):
    made = guest("mov rsp, 0x800000000; ud2", handlers={6: "hlt", 8: "hlt", 14: "hlt"})
    lines = explained(made)
    why = "the handler's stack, RSP = 0x800000000, cannot be written at 0x7fffffff8: the PDPTE is not present (P = 0)"
    assert lines[3:] == [
        "2. the CPU could not deliver #UD: #PF(0x2)", why,
        "3. the CPU could not deliver #PF: #PF(0x2)", why,
        "4. #PF in the delivery of #PF makes a double fault, #DF",
        "5. the CPU could not deliver #DF: #PF(0x2)", why,
        f"6. {SHUTDOWN}",
    ]  # fmt: skip


def test_page_tables_that_do_not_map_the_code(guest):
    """MOV to CR3 of a table that is empty: the next instruction cannot be fetched, nor can the IDT be read."""
    made = guest(f"mov rax, {DATA + 0x2000:#x}\nmov cr3, rax\nnop", handlers={14: "hlt"})
    lines = explained(made)
    rip = made.eval("vcpu.rip")
    assert rip == made.eval("vcpu.cr2") or lines[0].startswith("1. #PF")
    assert lines[0] == f"1. #PF(0x0) page fault, at {rip:#x}"
    assert f"an instruction fetch from {rip:#x}" in lines
    assert "the PML4E is not present (P = 0)" in lines
    gate = IDT + 14 * 16
    assert f"the IDT's gate 14 at {gate:#x} cannot be read: the PML4E is not present (P = 0)" in lines


def test_a_bad_gdt(guest):
    """A GDT without a code segment where the IDT's gates expect one, and one that is too short for MOV to SS."""
    table = gdt(0, DATA64)
    lines = explained(guest(f"lgdt [{GDTR:#x}]\nmov eax, 0x18\nmov ss, ax", data=table, handlers={13: "hlt"}))
    assert lines[0].startswith("1. #GP(0x18) general protection, at 0x")
    assert lines[2] == f"selector 0x18 lies beyond the GDT at {GDT:#x}, whose limit is 0xf"
    assert "gate 13 of the IDT names selector 0x10, beyond the GDT's limit 0xf" in lines


CAUSES = {
    "read-only": (
        f"mov rax, 0xb008; mov rbx, [rax]; and rbx, -3; mov [rax], rbx; mov rax, cr3; mov cr3, rax\n"
        f"mov rax, cr0; or eax, 0x10000; mov cr0, rax; mov [{DATA:#x}], eax",
        "the page is read-only: the PDE has RW = 0, and CR0.WP = 1",
    ),
    "not canonical": (
        "mov rax, 0x800000000000; mov ebx, [rax]", "its operand is at 0x800000000000, which is not canonical",
    ),
    "SSE": (
        "xorps xmm0, xmm0",
        "an SSE instruction, and CR4.OSFXSR = 0: the kernel has not enabled SSE (-mno-sse, or set it)",
    ),
    "an MSR": (
        "mov ecx, 0x12345; xor eax, eax; xor edx, edx; wrmsr",
        "WRMSR of MSR 0x12345 with 0x0: this CPU has no such MSR, or refuses the value",
    ),
    "division": ("xor ecx, ecx; div ecx", "the divisor is 0, or the quotient has no room in its register"),
    "RET": (
        "mov rax, 0x8000000000000000; push rax; ret",
        "RET to 0x8000000000000000, which is not canonical: the stack at 0x1efff8 is not what it was",
    ),
}  # fmt: skip


def test_the_first_exception(guest):
    """One guest with another image each time."""
    made = guest("hlt")
    for what, (source, why) in CAUSES.items():
        image(made, source)
        assert why in explained(made)[:4], what


def test_an_interrupt_that_nobody_handles(guest):
    """The 8254's, at the vectors that the 8259s have after a reset."""
    source = "mov al, 0x11; out 0x20, al; mov al, 8; out 0x21, al; mov al, 4; out 0x21, al; mov al, 1; out 0x21, al\n"
    source += "mov al, 0xfe; out 0x21, al; mov al, 0x34; out 0x43, al; mov al, 0; out 0x40, al; mov al, 0x10\n"
    lines = explained(guest(source + "out 0x40, al; sti; again: jmp again"))
    assert lines[0].startswith("1. an interrupt came at 0x")
    assert lines[0].endswith(
        ": vector 0x8, line 0 of the 8259s (the 8254). That is also the vector of #DF: the 8259s have not been moved "
        "away from the exceptions"
    )
    assert lines[1].startswith("2. the CPU could not deliver interrupt 0x8") or "deliver #DF" in lines[1]
    assert lines[2] == "the IDT at 0x0 ends before vector 8: its limit is 0x0, and 0x8f is needed"


def test_a_handler_that_faults_itself(guest):
    """Its first instruction cannot be fetched: each #PF raises the next one, until no stack is left."""
    data = idt({14: (0x10, 0x8E)})
    table = bytearray(data[IDT])
    struct.pack_into("<H", table, 14 * 16 + 6, 0x4000)  # the handler's address: 1 GiB, which is mapped, but has no RAM
    struct.pack_into("<I", table, 14 * 16 + 8, 1)  # 4 GiB further, which is not
    source = f"lidt [{IDTR:#x}]\nmov rsp, 0x1000\nmov rax, 0x800000000\nmov eax, [rax]"
    made = guest(source, data={**data, IDT: bytes(table)})
    made.until("vm.state != 'running'", 20000)
    text = made.exec("print(vm.explain())")
    assert "triple fault" in text


def test_protected_mode(guest):
    made = guest(f"mov esp, 0x1000\nlgdt [{GDTR:#x}]\nint3", bits=32, mode="protected", data=gdt(0, CODE32, DATA64))
    lines = explained(made)
    assert lines[0].startswith("1. #BP breakpoint, at 0x")
    assert lines[3].startswith("2. the CPU could not deliver #BP: #GP(0x1")
    assert "ends before vector 3: its limit is 0x0, and 0x1f is needed" in lines[4] or "limit" in lines[4]


def test_ends_of_earlier_runs_are_kept(guest):
    made = guest("ud2", on_triple_fault="reset")
    made.until("vm.backoff.held")
    made.until("vm.starts > 2")
    assert 2 <= made.eval("len(vm.ends)") <= 8
    made.exec("vm.power_off()")
    text = made.exec("print(vm.explain())")
    runs = [int(n) for n in re.findall("^run ([0-9]+) of", text, re.MULTILINE)]
    assert text.count(SHUTDOWN) == len(runs) >= 2 and runs == sorted(runs, reverse=True)
    made.exec("for i in range(20): vm._ended('on_reset', 'stop', 'one more')")
    assert made.eval("len(vm.ends)") == 8


def test_the_last_exits_where_they_are_recorded(guest):
    made = guest("mov eax, 0; cpuid; ud2")
    made.exec("vm.exits.record(64)")
    text = "\n".join(explained(made))
    assert text.split("the last exits before it:")[1].count("CPUID") == 1 and SHUTDOWN in text


def test_a_policy_on_triple_faults_is_asked_once_and_before(guest):
    made = guest(f"ud2\nmov dword ptr [{DATA:#x}], 5\nhlt")
    made.policy("TRIPLE_FAULT", "vcpu.rip += 2\nreturn HANDLED")
    made.halted()
    assert (made.word(), made.eval("p.hits"), made.eval("vm.ends")) == (5, 1, [])


def test_what_the_replay_does_not_touch(guest):
    """Debug registers, a pending counter, other policies: a guest that goes on afterwards is as it was."""
    made = guest("mov rax, 0x1234; mov dr0, rax; mov ecx, 3; ud2; mov [0x200000], ecx; hlt")
    made.policy("EXCEPTION, vector=6", "return DEFAULT")
    explained(made)
    made.exec("vcpu.rip += 2\nvm.resume()")
    made.until("vm.state == 'halted'")
    assert made.word() == 3 and made.eval("vcpu.dr(0)") == 0x1234


HANGS = {
    "no interrupts": ("cli; hlt", "at HLT at 0x10000", "with interrupts off (IF = 0): nothing but an NMI ends that"),
    "a loop": ("again: jmp again", "in a loop from 0x100007 to 0x100007, with interrupts off (IF = 0)", "jmp 0x100007"),
    "a port": ("again: in al, 0x64; test al, 1; jz again", "runs in a loop from 0x1000", "IN from port 0x64"),
    "no timer": ("sti; hlt", "waits for an interrupt (IF = 1)", "no timer is armed that would interrupt it"),
    "a mask": (
        "mov al, 0x34; out 0x43, al; mov al, 0; out 0x40, al; out 0x40, al; sti; hlt",
        "waits for an interrupt (IF = 1)",
        "the 8254 ticks, and its line 0 is masked at the 8259 and at the I/O APIC (pin 2)",
    ),
}  # fmt: skip


def test_a_hang(guest):
    made = guest("hlt")
    for how, (source, *said) in HANGS.items():
        image(made, source)
        made.exec("vm.resume()\ntime.sleep_ms(5)")
        text = made.exec("print(vm.explain())")
        print(text)
        for words in said:
            assert words in text, how


def test_a_missing_end_of_interrupt(guest):
    """Line 1 is in service and line 4 asks."""
    source = "mov al, 0x11; out 0x20, al; mov al, 0x20; out 0x21, al; mov al, 4; out 0x21, al\n"
    source += "mov al, 1; out 0x21, al; mov al, 0; out 0x21, al; sti; again: hlt; jmp again"
    made = guest(source, handlers={0x21: "iretq"})
    made.exec("vm.resume()\ntime.sleep_ms(5)\nfor level in (1, 0): vm.pc.gsi.line(1)(level)\ntime.sleep_ms(5)")
    made.exec("line = vm.pc.gsi.line(4)\nline(1)\ntime.sleep_ms(5)")
    text = made.exec("print(vm.explain())")
    assert "line 4 (COM1) asks, and waits for the end (EOI) of 1 (the keyboard), which is in service" in text


def test_paused_is_said(guest):
    made = guest("again: jmp again")
    text = made.exec("print(vm.explain())")
    assert f"{made.name} is paused, by pause()" in text and "mov rsp" not in text


def test_faults_are_recorded(guest):
    made = guest("int3; ud2; ud2; hlt", handlers={3: "iretq", 6: "add qword ptr [rsp], 2; iretq"})
    made.exec("record = vm.record_faults(2)")
    made.halted()
    rows = made.bench.eval("[tuple(row[2:]) for row in record]")
    assert [row[1:] for row in rows] == [(6, None, None, None)] * 2
    assert rows[1][0] == rows[0][0] + 2
    assert made.bench.eval("(record.count, repr(record).split('\\n')[0])") == (3, "3 exceptions, the last 2:")
    made.exec("record.stop()")
    assert made.eval("vm.policies") == []


def test_page_walk(guest):
    made = guest("hlt")
    made.halted()
    text = made.eval(f"repr(vm.walk({DATA:#x}, 'w'))")
    assert text.splitlines()[0] == f"write of gva {DATA:#x} at CPL 0, 4-level paging"
    assert "PML4E at 0x9000" in text and f"gpa {DATA:#x}, in a page of 2 MiB" in text and "EPT: hpa 0x" in text
    assert made.eval(f"vm.walk({DATA:#x}, 'r', 3).why") == "the page is the supervisor's: the PML4E has US = 0"
    assert made.eval("vm.walk(0x800000000000).why").startswith("the address is not canonical")
    assert made.eval("repr(vm.walk(0xfee00000))").endswith("device memory: Lapic")
    made.policy(f"MEMORY, gpa={DATA:#x}, length=8, access='w'", "return DEFAULT", "watching")
    assert "r-x of rwx" in made.eval(f"repr(vm.walk({DATA:#x}))")
    assert "watched by <policy watching on memory" in made.eval(f"repr(vm.walk({DATA:#x}))")
    for call, line in (
        ("vm.walk(0, 'q')", 'ValueError: access \'q\': one of "r", "w", "x"'),
        ("vm.walk(0, cpl=4)", "ValueError: cpl 4: 0 to 3"),
        ("vm.walk(0, vcpu=9)", f"ValueError: vcpu=9: guest {made.name} has 1 vCPUs, from 0"),
        ("vm.walk(1.5)", "ValueError: 1.5 is neither an address nor a symbol's name"),
        ("vm.walk('12+x')", "ValueError: '12+x': an address, a symbol, or symbol+offset"),
    ):
        assert made.refused(call) == line


def test_tables_and_registers(guest):
    made = guest("hlt", handlers={6: "hlt", 0x20: "iretq"})
    made.halted()
    assert "0x10      0x0   0xffffffff  code 64 readable A" in made.eval("repr(vm.gdt())")
    text = made.eval("repr(vm.idt())")
    assert f"IDT at {IDT:#x}, limit 0xfff" in text
    assert f"6  #UD   interrupt gate    0       0x10:{HANDLERS:#x}" in " ".join(text.split("\n")) or "#UD" in text
    assert "interrupt gate" in text and f"0x10:{HANDLERS + 0x100:#x}" in text
    assert made.eval("repr(vm.cr())").splitlines()[0] == "64-bit code in IA-32e mode, CPL 0, 4-level paging"
    assert made.eval("vm.cr().cr0.PG") == 1
    assert made.eval("repr(vm.tss())").startswith("TSS 0x0 at 0x0")
    text = made.eval("repr(vm.pc)")
    for words in ("8259 master", "8254", "I/O APIC, ID 1", "local APIC 0: xAPIC mode", "MC146818", "COM1, a 16550"):
        assert words in text
    assert made.eval("repr(vm.lapic)") in text


def test_disassembly(guest):
    made = guest("call next; nop; next: lock inc dword ptr [rax]; rep movsb; iretq; hlt")
    text = made.eval("repr(vm.disassemble(count=6))")
    lines = text.splitlines()
    assert lines[0] == f"=> {CODE:#018x} 64: 48 c7 c4 00 00 1f 00           mov"
    assert lines[1].endswith(f"call {AT + 6:#x}") and lines[3].endswith("lock inc") and lines[4].endswith("rep movsb")
    assert made.eval("[len(line.code) for line in vm.disassemble(count=6)]") == [7, 5, 1, 3, 2, 2]
    assert made.refused("vm.disassemble(0, 0)") == "ValueError: count 0: a number from 1 up"
    assert "cannot be read: the address is not canonical" in made.eval("repr(vm.disassemble(1 << 62))")
    real = guest("call 0x7c10; hlt", bits=16, memory=1 << 20)
    line = f"=> {REAL:#018x} 16: 66 e8 0a 00 00 00              call 0x7c10"
    assert real.eval("repr(vm.disassemble(count=1))") == line
