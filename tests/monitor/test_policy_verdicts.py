"""Each verdict of policies on instructions and exceptions: what the guest then sees."""

from bench import DATA, HANDLERS
from policy_runs import CPUID, SIGNATURE, STORE, run


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
