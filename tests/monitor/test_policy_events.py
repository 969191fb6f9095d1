"""Policies on each event, with each verdict: what the guest then sees."""

from bench import CODE, DATA, HANDLERS
from ring3 import ring3

STORE = f"""
    mov rdi, {DATA:#x}
    mov [rdi], rax
    mov [rdi + 8], rbx
    mov [rdi + 16], rcx
    mov [rdi + 24], rdx
    hlt
"""
CPUID = "mov eax, 0x40000000\nxor ecx, ecx\ncpuid\n" + STORE
SIGNATURE = int.from_bytes(b"Pcan", "little")


def run(guest, source, event=None, body="", **options):
    """Run a guest with one policy to its HLT; the guest."""
    made = guest(source, **options)
    if event:
        made.policy(event, body)
    made.halted()
    return made


def test_without_policy(guest):
    assert run(guest, CPUID).word(1) == SIGNATURE


def test_cpuid_default(guest):
    made = run(guest, CPUID, "CPUID, leaf=0x40000000", "return DEFAULT")
    assert made.word(1) == SIGNATURE
    assert made.eval("p.hits") == 1


def test_cpuid_nothing_returned_is_default(guest):
    assert run(guest, CPUID, "CPUID", "pass").word(1) == SIGNATURE


def test_cpuid_value(guest):
    made = run(guest, CPUID, "CPUID, leaf=0x40000000", "return Value((1, 2, 0xFFFFFFFF, 1 << 31))")
    assert made.words(4) == (1, 2, 0xFFFFFFFF, 1 << 31)


def test_cpuid_handled(guest):
    made = run(guest, CPUID, "CPUID", "vcpu.rbx = 0x1234567890abcdef\nreturn HANDLED")
    assert made.words(2) == (0x40000000, 0x1234567890ABCDEF)


def test_cpuid_skip(guest):
    assert run(guest, "mov ebx, 77\n" + CPUID, "CPUID", "return SKIP").words(2) == (0x40000000, 77)


def test_cpuid_retry_runs_the_instruction_again(guest):
    body = "n[0] += 1\nif n[0] < 4: return RETRY"
    made = guest(CPUID)
    made.exec("n = [0]")
    made.policy("CPUID", body)
    made.halted()
    assert made.eval("n[0]") == 4
    assert made.word(1) == SIGNATURE


def test_retry_from_another_rip(guest):
    made = run(guest, CPUID, "CPUID", "vcpu.rip += 2\nvcpu.rbx = 5\nreturn RETRY")
    assert made.words(2) == (0x40000000, 5)


FAULT = f"mov rax, [rsp]\nmov [{DATA + 0x40:#x}], rax\nmov qword ptr [{DATA + 0x48:#x}], rsp\nhlt"


def test_inject_with_error_code(guest):
    made = run(guest, CPUID, "CPUID", "return Inject(13, 0x1230)", handlers={13: FAULT})
    assert made.word(8) == 0x1230
    assert made.word(0) == 0


def test_inject_without_error_code(guest):
    made = guest(CPUID, handlers={6: FAULT})
    made.policy("CPUID", "return Inject(6)")
    rip = made.eval("vcpu.rip")
    made.halted()
    assert rip < made.word(8) < HANDLERS  # the address of the instruction


def test_pause_and_go_on(guest):
    made = guest(CPUID)
    made.policy("CPUID, leaf=0x40000000", "return PAUSED")
    text = made.until("vm.state == 'paused'")
    assert f"[{made.name}] paused by policy p on cpuid at rip {made.eval('vcpu.rip'):#x}" in text
    assert made.eval("vcpu.rax") == 0x40000000
    made.exec("vm.resume()")
    made.halted()
    assert made.word(1) == SIGNATURE
    assert made.eval("p.hits") == 1


def test_rdmsr_of_a_passed_through_msr(guest):
    """KERNEL_GS_BASE does not exit until somebody watches it."""
    source = "mov ecx, 0xc0000102\nrdmsr\n" + STORE
    made = run(guest, source, "RDMSR, msr=0xc0000102", "return Value(0x1122334455667788)")
    assert made.word(0) == 0x55667788
    assert made.word(3) == 0x11223344


def test_wrmsr_value_and_skip(guest):
    source = """
        mov ecx, 0xc0000102
        mov eax, 0x11111111
        xor edx, edx
        wrmsr
        mov ecx, 0xc0000081
        mov eax, 0x22222222
        wrmsr
        mov ecx, 0xc0000102
        rdmsr
        mov rbx, rax
        mov ecx, 0xc0000081
        rdmsr
    """
    made = guest(source + STORE)
    made.policy("WRMSR, msr=0xc0000102", "return Value(0x333344444444)")
    made.policy("WRMSR, msr=0xc0000081", "return SKIP", "q")
    made.halted()
    assert made.word(1) == 0x44444444
    assert made.word(0) == 0


def test_wrmsr_default_of_msrs_that_do_not_exit_otherwise(guest):
    """As the CPU does it: in the VMCS, or in the CPU; #GP(0) for an address that is not canonical."""
    write = "mov ecx, {:#x}\nmov eax, {:#x}\nmov edx, {:#x}\nwrmsr\n"
    read = "mov ecx, {:#x}\nrdmsr\nmov [rdi + {}], eax\nmov [rdi + {}], edx\n"
    values = {
        0xC0000100: 0x7FFF12345678,
        0xC0000101: 0xFFFF800012345678,
        0xC0000081: 0x0023001087654321,
        0xC0000082: 0xFFFFFFFF81000000,
        0xC0000084: 0x47700,
        0x174: 0x10,
        0x176: 0xFFFFFFFF82000000,
    }
    source = f"mov edi, {DATA:#x}\n"
    source += "".join(write.format(msr, value & 0xFFFFFFFF, value >> 32) for msr, value in values.items())
    source += "".join(read.format(msr, 8 * i, 8 * i + 4) for i, msr in enumerate(values))
    refused = ((0xC0000100, 0x8000), (0xC0000082, 0xFFFF0000), (0xC0000102, 0x10000), (0xC0000084, 1), (0x174, 1))
    faults = "".join(write.format(msr, 0, high) for msr, high in refused)
    skip = "add dword ptr [rdi + 0x80], 1\nadd rsp, 8\nadd qword ptr [rsp], 2\niretq\n"
    made = guest(source + faults + "hlt\n", handlers={13: skip})
    for i, msr in enumerate((*values, 0xC0000102)):
        made.policy(f"WRMSR, msr={msr:#x}", "pass", f"p{i}")
    made.halted()
    assert made.words(len(values)) == tuple(values.values())
    assert made.word(16) == len(refused)
    assert made.eval("p0.hits") == made.eval("p3.hits") == made.eval("p4.hits") == 2


def test_port_value(guest):
    source = "mov rax, -1\nmov dx, 0x2f0\nin al, dx\nmov rbx, rax\nmov rax, -1\nin ax, dx\nmov rcx, rax\nin eax, dx\n"
    made = run(guest, source + STORE, "IO, port=0x2f0", "return Value(0x123456ab)")
    assert made.words(3) == (0x123456AB, 0xFFFFFFFFFFFFFFAB, 0xFFFFFFFFFFFF56AB)


def test_port_filters(guest):
    source = """
        mov dx, 0x2f0
        in al, dx
        in ax, dx
        out dx, al
        out dx, eax
        mov dx, 0x2f1
        in al, dx
    """
    made = guest(source + STORE)
    made.exec("seen = []")
    made.policy("IO, port=0x2f0, write=True, size=4", "seen.append('out4')")
    made.policy("IO, port=0x2f0, write=False", "seen.append('in')")
    made.policy("IO, size=1", "seen.append('byte')")
    made.halted()
    assert made.eval("seen") == ["in", "byte", "in", "byte", "out4", "byte"]


def test_out_value_is_what_the_device_gets(guest):
    """RTC index 0x0D replaces 0x0A: register D reads as valid."""
    source = "mov al, 0x3c\nout 0x70, al\nin al, 0x71\nmovzx eax, al\n"
    made = guest("mov al, 0x3b\nout 0x70, al\nmov al, 0x55\nout 0x71, al\n" + source + STORE)
    made.policy("IO, port=0x70, write=True", "if vcpu.rax & 0xff == 0x3c: return Value(0x3b)")
    made.halted()
    assert made.word(0) == 0x55


def test_vmcall(guest):
    made = run(
        guest, "mov eax, 0x1234\nmov ebx, 5\nvmcall\n" + STORE, "VMCALL, number=0x1234", "return Value(vcpu.rbx * 2)"
    )
    assert made.word(0) == 10


def test_vmcall_of_another_number_is_not_seen(guest):
    made = run(guest, "mov eax, 0x1235\nvmcall\n" + STORE, "VMCALL, number=0x1234", "return Value(1)")
    assert made.word(0) == 0xFFFFFFFFFFFFFFFF
    assert made.eval("p.hits") == 0


DIVIDE = "xor edx, edx\nmov eax, 1\nxor ecx, ecx\ndiv ecx\n"


def test_exception_default_is_delivered(guest):
    made = run(guest, DIVIDE + STORE, "EXCEPTION, vector=0", "pass", handlers={0: FAULT})
    assert made.eval("p.hits") == 1
    assert made.word(8) > 0


def test_exception_skip_goes_past_the_instruction(guest):
    made = run(guest, DIVIDE + "mov eax, 99\n" + STORE, "EXCEPTION, vector=0", "return SKIP")
    assert made.word(0) == 99


def test_exception_skips_in_a_loop(guest):
    """Of instructions with lengths of their own, which are kept; and of one whose bytes have changed since."""
    source = """
        xor ebx, ebx
        xor esi, esi
        mov r9, 0x8000000000000000
        lea rdi, [rip + changes]
    again:
        ud2
        add ebx, 1
    changes:
        div ecx
        nop
        nop
        add ebx, 0x100
        mov rax, [r9 + rcx*8 + 0x12345678]
        add ebx, 0x10000
        add esi, 1
        cmp esi, 2
        jne once
        mov dword ptr [rdi], 0x900b0f66
    once:
        cmp esi, 4
        jb again
        xor eax, eax
    """
    made = guest("xor ecx, ecx\n" + source + STORE)
    made.policy("EXCEPTION", "return HANDLED")
    made.halted()
    assert made.word(1) == 0x40404
    assert made.eval("p.hits") == 12


def test_exception_retry_after_repair(guest):
    made = run(guest, DIVIDE + STORE, "EXCEPTION, vector=0", "vcpu.rcx = 1\nreturn RETRY")
    assert made.words(3) == (1, 0, 1)


def test_exception_handled_emulates(guest):
    """UD2 becomes an instruction that puts 7 into RBX."""
    made = run(guest, "ud2\n" + STORE, "EXCEPTION, vector=6", "vcpu.rbx = 7\nreturn HANDLED")
    assert made.word(1) == 7


def test_exception_replaced_by_another(guest):
    made = run(guest, "ud2\n" + STORE, "EXCEPTION, vector=6", "return Inject(13, 0x50)", handlers={13: FAULT})
    assert made.word(8) == 0x50


def test_breakpoint_skip(guest):
    made = run(guest, "int3\nmov eax, 3\n" + STORE, "EXCEPTION, vector=3", "return SKIP")
    assert made.word(0) == 3


def test_page_fault_keeps_its_address_and_error_code(guest):
    source = "mov rax, 0x123456789000\nmov byte ptr [rax + 0x10], 1\n" + STORE
    handler = f"mov rax, cr2\nmov [{DATA + 0x50:#x}], rax\n" + FAULT
    made = run(guest, source, "EXCEPTION, vector=14", "pass", handlers={14: handler})
    assert made.word(10) == 0x123456789010
    assert made.word(8) == 2


def test_policies_run_in_order_of_attachment(guest):
    made = guest(CPUID)
    made.exec("seen = []")
    made.policy("CPUID", "seen.append('any 1')")
    made.policy("CPUID, leaf=0x40000000", "seen.append('leaf')")
    made.policy("CPUID, leaf=0", "seen.append('other leaf')")
    made.policy("CPUID", "seen.append('any 2')\nreturn Value((1, 2, 3, 4))")
    made.policy("CPUID, leaf=0x40000000", "seen.append('too late')")
    made.halted()
    assert made.eval("seen") == ["any 1", "leaf", "any 2"]
    assert made.word(1) == 2


def test_subleaf(guest):
    made = guest("mov eax, 4\nmov ecx, 1\ncpuid\nmov eax, 4\nmov ecx, 2\ncpuid\n" + STORE)
    made.exec("seen = []")
    made.policy("CPUID, leaf=4, subleaf=2", "seen.append(vcpu.rcx)\nreturn Value((7, 7, 7, 7))")
    made.halted()
    assert made.eval("seen") == [2]
    assert made.word(0) == 7


def test_real_mode_guest(guest):
    source = "xor ecx, ecx\nmov eax, 0x40000000\ncpuid\nmov ax, 0x2000\nmov ds, ax\nmov [0], ebx\nhlt"
    made = run(guest, source, "CPUID", "return Value((0, 0xdeadbeef, 0, 0))", bits=16)
    assert made.eval("vm.memory.read_u32(0x20000)") == 0xDEADBEEF


def test_what_a_policy_leaves_is_the_handlers_own(guest):
    """Ports, MSRs, leaves and pages have handlers of their own, which get what they need behind a policy, too."""
    source = f"""
        mov al, 0x5a
        out 0x21, al
        in al, 0x21
        movzx esi, al
        mov ecx, 0x1b
        rdmsr
        mov edi, eax
        mov eax, 1
        cpuid
        mov [{DATA + 64:#x}], eax
        mov rax, rdi
        hlt
    """
    state = f"(vcpu.rsi, vcpu.rax, vm.memory.read_u32({DATA + 64:#x}))"
    plain = guest(source)
    plain.halted()
    expected = plain.eval(state)
    for filters in (("IO, port=0x21", "RDMSR, msr=0x1b", "CPUID, leaf=1"), ("IO", "CPUID", "IO, size=1")):
        made = guest(source)
        made.exec("seen = []")
        for event in filters:
            made.policy(event, "seen.append(1)")
        made.halted()
        assert made.eval(state) == expected
        assert made.eval("len(seen)") >= 4


def test_a_value_is_written_past_the_policies_behind(guest):
    """The first answer counts: who was attached later is not asked, and the device gets the value."""
    source = "mov al, 0x11\nout 0x21, al\nmov rbx, rax\nin al, 0x21\nmov rcx, rax\n"
    made = guest("xor eax, eax\n" + source + STORE)
    made.exec("seen = []")
    made.policy("IO, port=0x21, write=True", "seen.append('first')\nreturn Value(0x42)")
    made.policy("IO, port=0x21, write=True", "seen.append('second')")
    made.halted()
    assert made.eval("seen") == ["first"]
    assert made.words(3)[1:] == (0x11, 0x42)


def test_string_io_is_seen_by_port_and_direction(guest):
    source = f"mov rdi, {DATA + 64:#x}\nmov dx, 0x2f0\nmov ecx, 3\nrep insb\nmov rsi, rdi\noutsw\n"
    made = guest(source + STORE)
    made.exec("seen = []")
    made.policy("IO, port=0x2f0, write=False", "seen.append('in')")
    made.policy("IO, port=0x2f0, write=True, size=2", "seen.append('out2')")
    made.policy("IO, port=0x2f1", "seen.append('other')")
    made.halted()
    assert made.eval("seen") == ["in", "out2"]


def test_many_keys_and_more_than_there_are_slots(guest):
    """Each leaf its own policy, more of them than the table has slots left, and than the keys have room for at first:
    all are found, and go when they are detached."""
    source = "\n".join(f"mov eax, {0x50000000 + leaf}\ncpuid\nadd r8, rbx" for leaf in (0, 7, 40, 75))
    made = guest("xor r8, r8\n" + source + f"\nmov [{DATA:#x}], r8\nhlt")
    made.exec(
        "from vmm.vtx import reasons\n"  # an attachment takes the longer the more there are
        "while vm.exits._unused > reasons.ALL_SLOTS + 70: vm.exits._take_slot()"
    )
    before = made.eval("[id(h) for h in vm.exits.tables[0]]")
    made.exec(
        "def answer(vcpu):\n    return Value((0, vcpu.rax & 0xffff, 0, 0))\n"
        "held = [vm.on(CPUID, leaf=0x50000000 + leaf)(answer) for leaf in range(76)]",
        300,
    )
    assert made.eval("vm.exits._fronted[reasons.CPUID]") == {}
    made.halted()
    assert made.word() == 7 + 40 + 75
    assert made.eval("[p.hits for p in held if p.hits]") == [1] * 4
    made.exec("for p in vm.policies: p.detach()", 300)
    assert made.eval("[id(h) for h in vm.exits.tables[0]]") == before


def test_hlt(guest):
    """HANDLED: the guest does not halt; without an answer it does."""
    made = guest(f"hlt\nmov eax, 5\nmov [{DATA:#x}], eax\nhlt")
    made.exec("n = [0]")
    made.policy("HLT", "n[0] += 1\nif n[0] == 1: return HANDLED")
    made.halted()
    assert (made.eval("n[0]"), made.word()) == (2, 5)


def test_rdtsc_arms_its_control_and_the_default_is_the_guests_tsc(guest):
    """What the guest reads by way of the monitor fits in between what it reads itself."""
    read = "rdtsc\nshl rdx, 32\nor rax, rdx\n"
    source = f"mov ecx, 0x10\nmov eax, 0x1000\nmov edx, 0x77\nwrmsr\n{read}mov rbx, rax\nhlt\n"
    made = guest(source, handlers={2: f"{read}mov [{DATA:#x}], rax\nhlt"})
    made.halted()
    first = made.eval("vcpu.rbx")
    made.policy("RDTSC", "pass")
    made.exec("vm.nmi()")
    made.until(f"vm.memory.read_u64({DATA:#x})")
    now = made.eval("vm.msrs.read(vm.vcpu, 0x10)")
    assert 0x77 << 32 < first < made.word() < now
    assert made.eval("vm.events.primary >> 12 & 1") == 1
    made.exec("p.detach()")
    assert made.eval("vm.events.primary >> 12 & 1") == 0


def test_rdtsc_value(guest):
    source = "rdtsc\nmov rbx, rdx\n" + STORE
    assert run(guest, source, "RDTSC", "return Value(0x1122334455667788)").words(2) == (0x55667788, 0x11223344)


def test_mov_dr_by_number_and_direction(guest):
    source = f"mov eax, {CODE:#x}\nmov dr0, rax\nmov dr1, rax\nmov rbx, dr0\nmov rcx, dr1\n"
    made = guest(source + STORE)
    made.exec("seen = []")
    made.policy("MOV_DR, number=0, write=True", "seen.append('to 0')")
    made.policy("MOV_DR, write=False", "seen.append('from')\nif vcpu.qualification & 7: return SKIP")
    made.halted()
    assert made.eval("seen") == ["to 0", "from", "from"]
    assert made.words(3)[1:] == (CODE, 0)


# What policies arm: secondary controls, guest/host masks, primary controls but for the interrupt window.
ARMED = "[vcpu.read(f) for f in (0x401E, 0x6000, 0x6002)] + [vcpu.events.primary & ~4]"


def watched(guest, source, event, body="pass", **options):
    """Run a guest with a policy that counts; [hits, whether detaching puts back all that was armed], and the guest."""
    made = guest(source + STORE, **options)
    before = made.eval(ARMED)
    made.policy(event, body)
    made.halted()
    hits = made.eval("p.hits")
    made.exec("p.detach()")
    return [hits, made.eval(ARMED) == before], made


def test_control_registers_by_number_and_direction(guest):
    """Each default does what the CPU does; CR0 and CR4 exit where a bit changes."""
    source = """
        mov rax, cr3
        mov cr3, rax
        mov rsi, rax
        mov rax, cr0
        mov cr0, rax
        xor eax, 0x10000
        mov cr0, rax
        mov rax, cr4
        xor eax, 0x80
        mov cr4, rax
        mov r8, rax
        mov eax, 5
        mov cr8, rax
        mov rbx, cr8
        mov rcx, cr0
        mov rdx, cr4
    """
    body = "seen.append((vcpu.qualification & 15, vcpu.qualification >> 4 & 3))"
    _, bare = watched(guest, source, "CPUID")
    made = guest(source + STORE)
    before = made.eval(ARMED)
    made.exec("seen = []")
    made.policy("CR", body)
    made.policy("CR, number=3, write=False", "return Value(0x123000) if len(seen) > 1 else None", "q")
    made.halted()
    assert made.eval("seen") == [(3, 1), (3, 0), (0, 0), (4, 0), (8, 0), (8, 1)]
    assert made.words(4) == bare.words(4)
    assert made.eval("q.hits") == 1
    assert made.eval(ARMED) != before
    made.exec("p.detach(); q.detach()")
    assert made.eval(ARMED) == before
    for filters, why in (("number=0, write=False", "does not exit"), ("cr3=0, number=4", "cr3="), ("number=2", "0, 3")):
        assert why in made.refused(f"vm.on(CR, {filters})")


def test_process_switch_and_the_value_of_cr3(guest):
    """A copy of the page tables is another process; the tables' bits alone count. Reserved bits are refused."""
    source = """
        mov rsi, cr3
        mov rbx, rsi
        mov edi, 0x220000
        mov ecx, 512
        rep movsq
        mov eax, 0x220018
        mov cr3, rax
        mov rcx, cr3
        mov cr3, rbx
        mov rdx, cr3
        bts rax, 62
        mov cr3, rax
        mov eax, 7
    """
    made = guest(
        source + STORE, handlers={13: f"mov qword ptr [{DATA + 0x40:#x}], 1\nadd rsp, 8\nadd qword ptr [rsp], 3\niretq"}
    )
    made.exec("seen = []")
    made.policy("CR, cr3=0x220000", "seen.append(hex(vcpu.rax))")
    made.policy("CR, number=3, write=False", "return Value(0x77) if vcpu.cr3 >> 12 == 0x220 else None", "q")
    made.halted()
    assert made.eval("seen") == ["0x220018", "0x4000000000220018"]
    rbx, rcx, rdx = made.words(3, 1)
    assert (made.word(), rcx, rdx) == (7, 0x77, rbx)
    assert made.word(8) == 1


def test_switches_of_page_tables(guest):
    """Of a system that is no Linux: a write of the same tables is none, one of others is told before it is done."""
    source = """
        mov rsi, cr3
        mov rbx, rsi
        mov edi, 0x220000
        mov ecx, 512
        rep movsq
        mov cr3, rbx
        mov eax, 0x220018
        mov cr3, rax
        mov eax, 0x220000
        mov cr3, rax
        mov cr3, rbx
        mov rcx, cr3
    """
    made = guest(source + STORE)
    before = made.eval(ARMED)
    made.exec("seen = []")
    made.policy("SWITCH", "seen.append(vcpu.cr3)")
    made.policy("SWITCH, cr3=0x220000", "pass", "q")
    made.halted()
    rbx = made.word(1)
    assert made.eval("seen") == [rbx, 0x220018] or made.eval("seen") == [rbx, 0x220000]
    assert made.eval("(p.hits, q.hits)") == (2, 2) and made.word(2) == rbx
    made.exec("p.detach(); q.detach()")
    assert made.eval(ARMED) == before
    assert "switch has no filter at=" in made.refused("vm.on(SWITCH, at=1)")


def only(test):
    """A policy's lines: it fails, and the guest never comes to its HLT, unless it sees what it should."""
    return f"if not ({test}): raise AssertionError\n"


INVLPG = "mov eax, 0x5000\ninvlpg [rax]\ninvlpg [rax + 0x1000]\n"
TABLES = f"mov edi, {DATA + 0x100:#x}\nsgdt [rdi]\nsidt [rdi + 16]\nlgdt [rdi]\nstr ax\nsldt bx\nlldt bx\n"


def test_each_instruction_that_only_exits_for_policies(guest):
    """Default, filter, and what detaching leaves."""
    assert watched(guest, INVLPG, "INVLPG", only("vcpu.qualification in (0x5000, 0x6000)"))[0] == [2, True]
    assert watched(guest, INVLPG, "INVLPG, gva=0x6000")[0] == [1, True]
    assert watched(guest, "pause\npause\n", "PAUSE", only("vcpu.peek(vcpu.rip, 2) == b'\\xf3\\x90'"))[0] == [2, True]
    assert watched(guest, "invd\nwbinvd\n", "INVD", only("vcpu.peek(vcpu.rip, 2) == b'\\x0f\\x08'"))[0] == [1, True]
    assert watched(guest, "rdtsc\nrdtscp\n", "RDTSCP", "return Value(0x1122334455)")[0] == [1, True]
    counted, made = watched(guest, "mov ecx, 7\nrdpmc\n", "RDPMC, counter=7", "return Value(0x1122334455)")
    assert (counted, made.word(0), made.word(3)) == ([1, True], 0x22334455, 0x11)
    for filters, hits in (("", 6), (", instruction='sidt'", 1), (", write=True", 2), (", instruction='ltr'", 0)):
        assert watched(guest, TABLES, "DESCRIPTOR_TABLE" + filters)[0] == [hits, True]
    counted, made = watched(guest, TABLES, "DESCRIPTOR_TABLE, instruction='str'", "vcpu.rax = 0x99\nreturn HANDLED")
    assert (counted, made.word()) == ([1, True], 0x99)


def test_wbinvd_where_the_cpu_can(guest, bench):
    if not bench.eval("monitor.caps.found['proc2'].WBINVD_EXITING"):
        assert "lacks WBINVD_EXITING" in guest("hlt").refused("vm.on(WBINVD)")
        return
    assert watched(guest, "wbinvd\ninvd\n", "WBINVD", only("vcpu.peek(vcpu.rip, 2) == b'\\x0f\\x09'"))[0] == [1, True]


def test_invpcid_where_the_cpu_can(guest, bench):
    """Types 0 to 3; type 4 and a PCID without CR4.PCIDE are #GP(0)."""
    if not bench.eval("monitor.caps.found['proc2'].ENABLE_INVPCID"):
        assert "lacks ENABLE_INVPCID" in guest("hlt").refused("vm.on(INVPCID)")
        return
    at = f"mov edi, {DATA + 0x200:#x}\n"
    tries = "".join(f"mov eax, {kind}\ninvpcid rax, [rdi]\n" for kind in range(5))
    source = at + tries + "mov qword ptr [rdi], 5\nmov eax, 1\ninvpcid rax, [rdi]\n"
    skip = f"add qword ptr [{DATA + 0x40:#x}], 1\nadd rsp, 8\nadd qword ptr [rsp], 5\niretq\n"
    counted, made = watched(guest, source, "INVPCID", data={DATA + 0x200: bytes(16)}, handlers={13: skip})
    assert (counted, made.word(8)) == ([6, True], 2)


def test_xsetbv(guest, xsave):
    if not xsave:
        return
    source = "mov rax, cr4\nor eax, 0x40000\nmov cr4, rax\nmov eax, 1\nxor edx, edx\nxor ecx, ecx\nxsetbv\nxgetbv\n"
    counted, made = watched(guest, source, "XSETBV", only("(vcpu.rcx, vcpu.rax) == (0, 1)") + "return Value(3)")
    assert (counted, made.word()) == ([1, True], 3)


CPUIDS = "mov ebx, 9\nxor esi, esi\nagain:\nmov eax, 0x40000000\ncpuid\nadd esi, 1\ncmp esi, 9\njne again\n"


def test_filters_of_every_event(guest):
    """every= and limit= count what when= has let through; the last call detaches the policy."""
    made = guest(CPUIDS + STORE)
    made.exec(
        "seen = {name: [] for name in 'abcdef'}\ndef note(name):\n    return lambda vcpu: seen[name].append(vcpu.rsi)"
    )
    made.exec("a = vm.on(CPUID, leaf=0x40000000, every=4)(note('a'))")
    made.exec("b = vm.on(CPUID, leaf=0x40000000, limit=2)(note('b'))")
    made.exec("c = vm.on(CPUID, once=True, when=lambda vcpu: vcpu.rsi > 4)(note('c'))")
    made.exec("d = vm.on(CPUID, every=2, limit=2, when=lambda vcpu: vcpu.rsi & 1)(note('d'))")
    made.exec("e = vm.on(CPUID, cpl=0, leaf=0x40000000)(note('e'))")
    made.exec("f = vm.on(CPUID, cpl=3)(note('f'))")
    made.halted()
    expected = {"a": [3, 7], "b": [0, 1], "c": [5], "d": [3, 7], "e": list(range(9)), "f": []}
    assert made.eval("seen") == expected
    assert made.eval("[p.name for p in vm.policies]") == ["<lambda>"] * 3
    assert made.eval("[p.attached for p in (a, b, c, d, e, f)]") == [True, False, False, False, True, True]
    made.exec("for p in vm.policies: p.detach()")
    for filters, why in (
        ("cpl=4", "from 0 to 0x3"), ("every=0", "from 1"), ("limit=0", "from 1"), ("when=5", "a function"),
        ("once=False", "True"), ("once=True, limit=1", "exclude each other"), ("leave=1", "cpl, pid, comm, when, once"),
    ):  # fmt: skip
        assert why in made.refused(f"vm.on(CPUID, {filters})")


def test_privilege_level(guest):
    """CPUID of the kernel and of a program; the word that the filter needs is read while the policy is there only."""
    made = ring3(guest, "mov eax, 0x40000000\ncpuid\n", f"mov eax, 0x40000000\ncpuid\nmov [{DATA:#x}], rbx\nx: jmp x")
    made.exec("vm.on(CPUID, cpl=3, leaf=0x40000000)(lambda vcpu: Value((0, 33, 0, 0)))")
    made.exec("vm.on(CPUID, cpl=0, once=True)(lambda vcpu: Value((0, 11, 0, 0)))")
    made.until(f"vm.memory.read_u64({DATA:#x}) == 33")
    assert made.eval("[p.hits for p in vm.policies]") == [1]


def test_a_pause_within_the_filters(guest):
    """What is asked again after resume() is not counted again; a `when` that fails pauses as the function does."""
    made = guest(CPUIDS + STORE)
    made.exec("seen = []")
    made.exec("def stop(vcpu):\n    seen.append(vcpu.rsi)\n    return PAUSED")
    made.exec("p = vm.on(CPUID, every=3, limit=2, when=lambda vcpu: True)(stop)")
    for count in (1, 2):
        made.until("vm.state == 'paused'")
        assert made.eval("(seen, p.attached)") == ([2, 5][:count], count == 1)
        made.exec("vm.resume()")
    made.halted()
    made = guest(CPUIDS + STORE)
    made.exec("p = vm.on(CPUID, once=True, when=lambda vcpu: 1 // (vcpu.rsi - 2))(lambda vcpu: seen.append(vcpu.rsi))")
    assert made.eval("len(seen)") == 2
    made.until("len(seen) == 3")
    assert made.eval("(seen[2], p.attached)") == (0, False)
    made = guest(CPUIDS + STORE)
    made.exec("p = vm.on(CPUID, when=lambda vcpu: 1 // (vcpu.rsi - 2))(lambda vcpu: None)")
    assert "ZeroDivisionError" in made.until("vm.state == 'paused'")
    made.exec("p.detach(); vm.resume()")
    made.halted()
    assert made.word(1) == SIGNATURE


def test_once_that_fails_is_asked_again(guest):
    made = guest(CPUID)
    made.exec("bad = [1]")
    made.policy("CPUID, once=True", "if bad.pop(): raise ValueError\nreturn Value((1, 2, 3, 4))")
    made.exec("bad[:] = [0, 1]")
    made.until("vm.state == 'paused'")
    made.exec("vm.resume()")
    made.halted()
    assert (made.word(1), made.eval("p.attached")) == (2, False)


def test_single_steps(guest, bench):
    """Each instruction once, one that exits by itself without a step after it; HANDLED skips the next one."""
    source = "mov eax, 1\nnop\nmov eax, 0x40000000\ncpuid\nadd eax, 2\nmov ecx, 3\nrep stosb\n"
    made = guest(f"mov edi, {DATA + 0x100:#x}\n" + source + STORE)
    if not bench.eval("monitor.trial.mtf"):
        assert "monitor trap flag" in made.refused("vm.on(STEP)") or "lacks" in made.refused("vm.on(STEP)")
        return
    before = made.eval(ARMED)
    made.exec("seen = []")
    made.policy("STEP", "seen.append(vcpu.rip)\nif vcpu.peek(vcpu.rip, 1) == b'\\x90': return HANDLED")
    start = made.eval("vcpu.rip")
    made.halted()
    seen = made.eval("seen")
    # mov rsp, mov edi, mov eax, (nop: skipped), mov eax, cpuid: no step; add, mov ecx, three of rep stosb, ...
    offsets = [at - start for at in seen]
    assert offsets == sorted(offsets)
    assert len(offsets) - len(set(offsets)) == 2
    assert made.eval(ARMED) != before
    made.exec("p.detach()")
    assert made.eval(ARMED) == before
    assert len(offsets) == 14


def test_single_steps_narrowed_and_with_a_watched_page(guest, bench):
    """A step that lets an access to a watched page happen is a single step of the guest's, too."""
    if not bench.eval("monitor.trial.mtf"):
        return
    source = f"mov edi, {DATA + 0x1000:#x}\nmov ecx, 1\nrep movsb\nlock add [rdi], ecx\nfnstcw [rdi]\nnop\n"
    rips = {}
    for name in ("alone", "both"):
        made = guest(f"mov esi, {DATA:#x}\n" + source + STORE)
        made.exec("seen = []")
        made.policy("STEP", "seen.append(vcpu.rip)")
        if name == "both":
            made.policy(f"MEMORY, gpa={DATA + 0x1000:#x}", "pass", "q")
        made.halted()
        rips[name] = set(made.eval("seen"))
    assert len(rips["alone"] - rips["both"]) <= 2  # what the monitor executes itself has no step
    made = guest(source + STORE)
    made.exec("p = vm.on(STEP, once=True)(lambda vcpu: PAUSED)")
    made.until("vm.state == 'paused'")
    made.exec("vm.resume()")
    made.halted()
    assert made.eval("p.hits") == 1


SHUT_DOWN = "ud2\nmov eax, 5\n"  # there is no IDT


def test_triple_fault(guest):
    """HANDLED goes on from the registers that the policy sets; paused, the guest can be looked at first."""
    made = guest(SHUT_DOWN + STORE, on_triple_fault="stop")
    made.policy("TRIPLE_FAULT, cpl=0", "vcpu.rip += 2\nreturn HANDLED")
    made.halted()
    assert (made.word(), made.eval("p.hits")) == (5, 1)
    made = guest(SHUT_DOWN + STORE, on_triple_fault="stop")
    made.policy("TRIPLE_FAULT", "return PAUSED")
    made.until("vm.state == 'paused'")
    made.exec("vm.resume()")
    made.until("vm.state == 'stopped'")
    assert (made.eval("vm.why").startswith("triple fault"), made.eval("p.hits")) == (True, 1)


def test_reset(guest):
    """Without an answer the guest's file decides; HANDLED drops the reset, and so does a pause."""
    source = "mov dx, 0xcf9\nmov al, 6\nout dx, al\nmov eax, 7\n"
    for body, state in (("pass", "off"), ("return HANDLED", "halted"), ("return PAUSED", "paused")):
        made = guest(source + STORE, on_reset="power-off")
        made.policy("RESET", body)
        made.until(f"vm.state == {state!r}")
        if state == "paused":
            made.exec("vm.resume()")
            made.halted()
        assert made.eval("p.hits") == 1
        assert state == "off" or made.word() == 7


def test_what_several_need_is_counted_on_all_processors(guest, bench):
    """Policies and vm.interleave need the same bits: each goes with the last of them."""
    if not bench.eval("monitor.trial.mtf"):
        return
    made = guest("mov rax, cr0\nxor eax, 0x10000\nmov cr0, rax\nhlt", cpus=2)
    armed = f"[{ARMED} for vcpu in vm.vcpus]"
    before = made.eval(armed)
    made.exec("held = [vm.on(event)(lambda vcpu: None) for event in (CR, STEP, PAUSE)]")
    made.exec("vm.interleave = lambda vm, runnable, why: runnable[0]")
    watched = made.eval(armed)
    assert watched[0] == watched[1] != before[0]
    made.halted()
    assert made.eval("held[0].hits") == 1
    made.exec("vm.interleave = None")
    assert made.eval(armed) == watched
    made.exec("for p in held: p.detach()")
    assert made.eval(armed) == before
