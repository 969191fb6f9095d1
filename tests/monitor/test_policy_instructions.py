"""Policies on what exits for them alone: what they arm, their filters, and what detaching leaves."""

from bench import CODE, DATA
from policy_runs import ARMED, STORE, only, run, watched


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


def test_a_switch_has_no_value(guest):
    """A Value pauses the guest, and is not written to CR3."""
    made = guest("mov rax, cr3\nor eax, 8\nmov cr3, rax\nmov rcx, cr3\n" + STORE)
    cr3 = made.eval("vcpu.cr3")
    made.policy(f"SWITCH, cr3={cr3:#x}", "return Value(5)")
    assert "switch has no value" in made.until("vm.state == 'paused'")
    assert made.eval("vcpu.cr3") == cr3
    made.exec("p.detach(); vm.resume()")
    made.halted()
    assert made.word(2) == cr3 | 8


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


def test_rdrand_and_rdseed_where_the_cpu_can(guest, bench):
    """The default differs each time; a Value is cut to the operand's size; of the status flags CF alone is set."""
    skipped = []
    for event in ("RDRAND", "RDSEED"):
        word = event.lower()
        if not bench.eval(f"monitor.caps.found['proc2'].{event}_EXITING"):
            assert f"lacks {event}_EXITING" in guest("hlt").refused(f"vm.on({event})")
            skipped.append(event)
            continue
        read = f"{word} rax\n{word} rbx\n"
        counted, made = watched(guest, read, event)
        assert counted == [2, True] and len({0, *made.words(2)}) == 3
        tries = f"mov rax, -1\nmov rcx, -1\nmov rbx, rsp\n{word} ax\n{word} ecx\n{word} rsp\nxchg rbx, rsp\n"
        flags = "pushfq\npop rdx\nand edx, 0x8d5\n"
        sees = only("b'\\x0f\\xc7' in vcpu.peek(vcpu.rip, 4)")
        counted, made = watched(guest, tries + flags, event, sees + "return Value(0x1122334455667788)")
        assert (counted, made.words(4)) == ([3, True], (0xFFFFFFFFFFFF7788, 0x1122334455667788, 0x55667788, 1))
        assert watched(guest, tries, event + ", cpl=3")[0] == [0, True]
        high = f"mov r9, -1\n{word} r9d\nmov rax, r9\n{word} r9w\nmov rbx, r9\n"
        counted, made = watched(guest, high, event, sees + "return Value(0x1122334455667788)")
        assert (counted, made.words(2)) == ([2, True], (0x55667788, 0x55667788))
    assert skipped in ([], ["RDSEED"], ["RDRAND", "RDSEED"])


def test_xsetbv(guest, xsave):
    if not xsave:
        return
    source = "mov rax, cr4\nor eax, 0x40000\nmov cr4, rax\nmov eax, 1\nxor edx, edx\nxor ecx, ecx\nxsetbv\nxgetbv\n"
    counted, made = watched(guest, source, "XSETBV", only("(vcpu.rcx, vcpu.rax) == (0, 1)") + "return Value(3)")
    assert (counted, made.word()) == ([1, True], 3)
