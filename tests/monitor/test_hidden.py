"""Hidden breakpoints: what they see, and that the guest sees nothing of them.

One file: all cases share the functions and callers that are assembled here.
"""

import pytest
import vtx
from bench import CODE, DATA, start_others
from pcanel.assemble import assemble

FUNCTION = 0x130000
CALLER = f"mov rbx, {FUNCTION:#x}\ncall rbx\nmov [{DATA:#x}], rax\n"
SSE = "mov rax, cr4\nor eax, 0x600\nmov cr4, rax\n"  # OSFXSR

# The first instruction of a function, which returns 7, with what comes before the caller's.
FIRST = {
    "nop": ("nop\nmov eax, 7\nret", ""),
    "long nop": ("nop dword ptr [rax + rax + 0]\nmov eax, 7\nret", ""),
    "endbr": (b"\xf3\x0f\x1e\xfa", "mov eax, 7\nret"),
    "push": ("push rbp\nmov rbp, rsp\nmov eax, 7\npop rbp\nret", ""),
    "mov": ("mov eax, 7\nret", ""),
    "sub": ("sub rsp, 0x28\nmov eax, 7\nadd rsp, 0x28\nret", ""),
    "lea": ("lea rax, [rip + 0x100]\nmov eax, 7\nret", ""),
    "jmp": ("jmp over\nhlt\nover:\nmov eax, 7\nret", ""),
    "sse": ("movaps xmm0, xmm1\nmov eax, 7\nret", SSE),
    "rep": ("rep stosb\nmov eax, 7\nret", f"mov edi, {DATA + 0x40:#x}\nmov ecx, 3\n"),
}


# Also as on a CPU whose EPT has no execute-only pages: guests that are made then have none.
BOTH = pytest.mark.parametrize("execute_only", [True, False], indirect=True)


@pytest.fixture(autouse=True)
def execute_only(request, bench):
    """Whether guests have execute-only pages."""
    wanted = getattr(request, "param", True)
    bench.exec(f"monitor.caps.ept_vpid.EXECUTE_ONLY = {int(wanted)}")
    yield wanted
    bench.exec("monitor.caps.ept_vpid.EXECUTE_ONLY = 1")


def function(source):
    return assemble(source, 64, FUNCTION)


def make(guest, first="push", then="hlt", **options):
    """A guest that calls the function once and stores its value."""
    source, before = FIRST[first]
    code = source + assemble(before, 64, FUNCTION + 4) if isinstance(source, bytes) else function(source)
    before = "" if isinstance(source, bytes) else before
    data = {FUNCTION: code, **options.pop("data", {})}
    made = guest(before + CALLER + then, data=data, **options)
    made.exec("seen = []")
    return made


def insert(made, body="seen.append(vcpu.rip)", gpa=FUNCTION, name="h"):
    lines = "\n".join("    " + line for line in body.split("\n"))
    made.exec(f"def call(vcpu):\n{lines}\n{name} = vm.hidden.insert({gpa:#x}, call)")


@pytest.mark.parametrize("first", FIRST)
def test_called_once_and_passed(guest, first):
    made = make(guest, first)
    insert(made)
    made.halted()
    assert made.eval("seen") == [FUNCTION]
    assert made.word() == 7
    assert made.eval("h.hits") == 1


@BOTH
def test_what_the_page_may_be_accessed_for(guest, execute_only):
    """Without execute-only pages for nothing: each fetch from it is an exit, and the neighbours are stepped."""
    loops = 100
    made = make(
        guest,
        "push",
        "hlt",
        data={FUNCTION: function(f"push rbp\nmov ecx, {loops}\nagain: dec ecx\njnz again\npop rbp\nmov eax, 7\nret")},
    )
    insert(made)
    assert made.eval("vm.ept.walk(%#x)[0] & 7" % FUNCTION) == (4 if execute_only else 0)
    made.halted()
    assert (made.word(), made.eval("seen")) == (7, [FUNCTION])
    counts = made.eval("vm.exit_counts()")
    steps = 2 * loops + 5  # of the function
    if execute_only:
        assert "EPT_VIOLATION" not in counts
    else:
        assert counts["MONITOR_TRAP_FLAG"][0] == steps <= counts["EPT_VIOLATION"][0]
        cost = (counts["EPT_VIOLATION"][1] + counts["MONITOR_TRAP_FLAG"][1]) / steps
        print(f"{cost:.0f} ticks an instruction")
        assert cost < 7000 or vtx.engine() != "bochs"


@pytest.mark.parametrize("execute_only", [False], indirect=True)
def test_an_instruction_across_two_closed_pages(guest):
    """It begins on the page before; each may have breakpoints, at it and behind it."""
    at = FUNCTION + 0x1000 - 3
    code = function("mov eax, 7\nret")
    made = guest(CALLER.replace(f"{FUNCTION:#x}", f"{at:#x}") + "hlt", data={at: code})
    made.exec("seen = []")
    insert(made, gpa=at)
    insert(made, gpa=at + 5, name="g")
    made.halted()
    assert (made.word(), made.eval("seen")) == (7, [at, at + 5])
    made = guest(CALLER.replace(f"{FUNCTION:#x}", f"{at:#x}") + "hlt", data={at: code})
    made.exec("seen = []")
    insert(made, gpa=at + 5)
    made.halted()
    assert (made.word(), made.eval("seen")) == (7, [at + 5])


@BOTH
def test_removed(guest):
    made = make(guest, then="call rbx\ncall rbx\nhlt")
    insert(made, "seen.append(vcpu.rip)\nif len(seen) == 2: h.remove()")
    armed = made.eval("vm.ept.walk(%#x)[1]" % FUNCTION)
    made.halted()
    assert made.eval("len(seen)") == 2
    assert armed == 4096 and made.eval("vm.ept.walk(%#x)[1]" % FUNCTION) > 4096
    assert made.eval("vm.vcpu.read(0x4004) & 8") == 0  # EXCEPTION_BITMAP
    assert made.eval("(len(vm.hidden), h.attached)") == (0, False)


@BOTH
def test_reads_see_the_guests_own_bytes(guest):
    """By plain loads, by a string instruction and by SSE; the monitor's looks too."""
    then = f"""
        mov rsi, {FUNCTION:#x}
        mov al, [rsi]
        mov [{DATA + 8:#x}], rax
        mov rdi, {DATA + 0x10:#x}
        mov ecx, 2
        rep movsq
        mov rsi, {FUNCTION:#x}
        movups xmm0, [rsi]
        movups [{DATA + 0x20:#x}], xmm0
        hlt
    """
    made = make(guest, "endbr", SSE + "xor eax, eax\n" + then)
    insert(made)
    own = int.from_bytes(b"\xf3\x0f\x1e\xfa\xb8\x07\x00\x00", "little")
    assert made.eval(f"vcpu.peek({FUNCTION:#x}, 1)") == b"\xf3"
    made.halted()
    assert made.words(3)[1] == 0xF3
    assert made.words(3)[2] == own
    assert made.words(5)[4] == own
    assert made.eval("len(seen)") == 1


@BOTH
def test_an_instruction_that_reads_two_such_pages(guest):
    """The quick step opens one page; the other is opened by the slow one, and REP ends."""
    other = FUNCTION + 0x1000
    then = f"""
        mov rsi, {FUNCTION:#x}
        mov rdi, {other:#x}
        mov ecx, 2
        repe cmpsq
        setne al
        movzx eax, al
        mov [{DATA + 8:#x}], rax
        mov [{DATA + 0x10:#x}], rcx
        call rdi
        hlt
    """
    body = function("mov eax, 7\nret") + b"\x90" * 10
    then = then.replace("call rdi", f"mov rdi, {other:#x}\ncall rdi\nmov [{DATA + 0x18:#x}], rax")
    made = guest(CALLER + then, data={FUNCTION: body, other: body})
    made.exec("seen = []")
    insert(made)
    insert(made, gpa=other, name="g")
    made.halted()
    assert made.words(4) == (7, 0, 0, 7)
    assert made.eval("seen") == [FUNCTION, other]
    made.exec("h.remove(); g.remove()")
    assert made.eval("vm.ept.walk(%#x)[1]" % FUNCTION) > 4096


def test_a_read_by_any_instruction_costs_a_quick_step(guest):
    """VERW, which Linux executes at each way back to a program, on its own page of entry code."""
    loops = 200
    then = f"""
        mov rsi, {FUNCTION + 0x40:#x}
        mov ecx, {loops}
    again:
        verw word ptr [rsi]
        dec ecx
        jnz again
        hlt
    """
    made = make(guest, "push", then, data={FUNCTION + 0x40: b"\x10\0"})
    insert(made)
    made.halted()
    counts = made.eval("vm.exit_counts()")
    assert counts["EPT_VIOLATION"][0] >= loops
    assert (counts["EPT_VIOLATION"][1] + counts["MONITOR_TRAP_FLAG"][1]) / loops < 4500 or vtx.engine() != "bochs"


@BOTH
def test_writes_reach_what_is_executed(guest):
    """Beside the breakpoint, and over it: the breakpoint stays, with the new instruction under it."""
    then = f"""
        mov rsi, {FUNCTION:#x}
        mov dword ptr [rsi + 5], 9
        call rbx
        mov [{DATA + 8:#x}], rax
        mov dword ptr [rsi + 4], 0x0bb8
        mov dword ptr [rsi], 0x90909090
        call rbx
        mov [{DATA + 16:#x}], rax
        mov rax, 0xc300000011b8
        mov [rsi], rax
        call rbx
        mov [{DATA + 24:#x}], rax
        hlt
    """
    made = make(guest, "endbr", then)
    insert(made)
    made.halted()
    assert made.words(4) == (7, 9, 0xB, 0x11)
    assert made.eval("len(seen)") == 4


def test_the_monitors_writes_reach_what_is_executed(guest):
    made = make(guest, "mov")
    insert(made)
    made.exec(f"vcpu.poke({FUNCTION + 1:#x}, b'\\x2a')")
    made.halted()
    assert (made.word(), made.eval("len(seen)")) == (0x2A, 1)


@BOTH
@pytest.mark.parametrize("way", ["write({0:#x}, code)", "view({0:#x}, 6)[:] = code"])
def test_a_call_that_writes_what_stands_under_it(guest, way):
    """By whatever way, that is what is executed next, and not the NOP that is known to have been there."""
    made = make(guest, "nop", "call rbx\nmov [0x200008], rax\nhlt")
    made.exec(f"code = {function('mov eax, 9' + chr(10) + 'ret')!r}")
    insert(made, f"seen.append(vcpu.rip)\nif len(seen) == 2: vcpu.vm.memory.{way.format(FUNCTION)}")
    made.halted()
    assert made.words(2) == (7, 9)
    assert made.eval("seen") == 2 * [FUNCTION]


def test_a_write_reaches_what_every_processor_executes(guest):
    """Each of two runs the function again and again, on a page with a breakpoint that neither comes to."""
    first = start_others(0x8000) + "mov ebx, 0x15000\nagain: call rbx\nmov [0x3000], al\npause\njmp again"
    other = "xor ax, ax\nmov ds, ax\nmov ss, ax\nmov sp, 0x7000\nmov bx, 0xd000\n"
    other += "again: call bx\nmov [0x3001], al\npause\njmp again"
    made = guest(first, cpus=2, data={0x8000: assemble(other, 16, 0x8000), 0x15000: b"\xb0\x07\xc3"})
    made.exec("seen = []")
    insert(made, gpa=0x15800)
    made.until("vm.memory.read_u16(0x3000) == 0x0707")
    made.exec("with still(): vm.memory.view(0x15001, 1)[0] = 9")
    made.until("vm.memory.read_u16(0x3000) == 0x0909")
    assert made.eval("seen") == []


@BOTH
def test_verdicts(guest):
    made = make(guest, "mov", "hlt")
    insert(made, "vcpu.rax = 3\nreturn HANDLED")
    made.halted()
    assert made.word() == 3
    made = make(guest, "mov", "hlt")
    insert(made, f"vcpu.rip = {FUNCTION + 5:#x}\nvcpu.rax = 4\nreturn RETRY")
    made.halted()
    assert made.word() == 4
    made = make(guest, "mov", "hlt", handlers={13: f"mov qword ptr [{DATA:#x}], 0xd\nhlt"})
    insert(made, "return Inject(13, 0)")
    made.halted()
    assert made.word() == 13


@BOTH
def test_paused_at_it_and_going_on(guest):
    made = make(guest)
    insert(made, "return PAUSED")
    made.until("vm.state == 'paused'")
    assert made.eval("vcpu.rip") == FUNCTION
    made.exec("vm.resume()")
    made.halted()
    assert (made.word(), made.eval("h.hits")) == (7, 1)


def test_a_call_that_raises_pauses_its_guest(guest):
    made = make(guest)
    insert(made, "seen.append(1)\nif len(seen) == 1: 1 // 0")
    assert "ZeroDivisionError" in made.until("vm.state == 'paused'")
    assert made.eval("vcpu.rip") == FUNCTION
    made.exec("vm.resume()")
    made.halted()
    assert (made.word(), made.eval("len(seen)")) == (7, 2)


OWN = f"""
    inc qword ptr [{DATA + 0x80:#x}]
    mov rax, [rsp]
    mov [{DATA + 0x88:#x}], rax
    iretq
"""


@BOTH
def test_the_guests_own_int3(guest):
    """It is delivered, and policies on vector 3 see it alone."""
    made = make(guest, "push", "own:\nint3\nhlt", handlers={3: OWN})
    insert(made)
    made.policy("EXCEPTION, vector=3", "seen.append(3)")
    made.halted()
    assert made.eval("seen") == [FUNCTION, 3]
    assert made.word(16) == 1
    assert CODE < made.word(17) < CODE + 0x40


@BOTH
def test_the_guests_own_int3_under_it(guest):
    made = make(guest, "push", "hlt", handlers={3: OWN}, data={FUNCTION: b"\xcc" + function("mov eax, 7\nret")})
    insert(made)
    made.halted()
    assert made.eval("seen") == [FUNCTION]
    assert (made.word(), made.word(16), made.word(17)) == (7, 1, FUNCTION + 1)


DEBUG = f"""
    inc qword ptr [{DATA + 0x80:#x}]
    mov rax, dr6
    mov [{DATA + 0x88:#x}], rax
    xor eax, eax
    mov dr6, rax
    mov rax, [rsp]
    mov [{DATA + 0x90:#x}], rax
    or qword ptr [rsp + 16], 0x10000
    iretq
"""


@BOTH
@pytest.mark.parametrize("first", ["nop", "push", "mov"])
def test_the_guests_own_breakpoint_at_the_same_place(guest, first):
    source, _ = FIRST[first]
    set_up = f"mov rax, {FUNCTION:#x}\nmov dr0, rax\nmov eax, 0x402\nmov dr7, rax\n"
    made = guest(set_up + CALLER + "hlt", data={FUNCTION: function(source)}, handlers={1: DEBUG})
    made.exec("seen = []")
    insert(made)
    made.halted()
    assert made.eval("seen") == [FUNCTION]
    assert (made.word(), made.word(16), made.word(17) & 0xF, made.word(18)) == (7, 1, 1, FUNCTION)


@pytest.mark.parametrize("first", ["nop", "push", "mov", "sse"])
def test_the_guests_own_single_step(guest, first):
    """With RFLAGS.TF it has a trap after each instruction, that under the breakpoint too."""
    source, before = FIRST[first]
    step = f"""
        inc qword ptr [{DATA + 0x80:#x}]
        mov rax, [rsp]
        mov rcx, [{DATA + 0x80:#x}]
        mov [{DATA + 0x80:#x} + 8 * rcx], rax
        xor eax, eax
        iretq
    """
    flags = "pushfq\nor qword ptr [rsp], 0x100\npopfq\n"
    off = "pushfq\nand qword ptr [rsp], -0x101\npopfq\nhlt"
    places = []
    for hooked in (False, True):
        code = before + f"mov rbx, {FUNCTION:#x}\n" + flags + "call rbx\n" + off
        made = guest(code, data={FUNCTION: function(source)}, handlers={1: step})
        made.exec("seen = []")
        if hooked:
            insert(made)
        made.halted()
        places.append(made.words(12, 16))
    assert places[0] == places[1]
    assert made.eval("seen") == [FUNCTION]


@BOTH
def test_a_fault_of_the_instruction_under_it(guest):
    """It is the guest's, with the registers as they were; the call is not asked again when the instruction is."""
    handler = f"""
        inc qword ptr [{DATA + 0x80:#x}]
        mov rax, [rsp + 8]
        mov [{DATA + 0x88:#x}], rax
        mov ecx, {DATA:#x}
        add rsp, 8
        iretq
    """
    code = function("mov rax, [rcx]\nmov eax, 7\nret")
    source = "mov rcx, 0x8000000000000000\n" + CALLER + "call rbx\nhlt"
    made = guest(source, data={FUNCTION: code}, handlers={13: handler})
    made.exec("seen = []")
    insert(made)
    made.halted()
    assert (made.word(), made.word(16), made.word(17)) == (7, 1, FUNCTION)
    assert made.eval("len(seen)") == 2


def test_several_at_one_place(guest):
    made = make(guest)
    insert(made, "seen.append(1)", name="a")
    insert(made, "seen.append(2)", name="b")
    made.exec("a.remove()")
    insert(made, "seen.append(3)", name="c")
    made.halted()
    assert made.eval("seen") == [2, 3]


@BOTH
def test_16_and_32_bit_code(guest):
    made = guest("call f\nmov [0x600], ax\nhlt\nf:\nmov ax, 7\nret", bits=16)
    made.exec("seen = []")
    place = made.eval("bytes(vm.memory.read(0x7c00, 32))").index(b"\xb8\x07\x00") + 0x7C00
    insert(made, gpa=place)
    made.halted()
    assert made.eval("seen") == [place]
    assert made.eval("vm.memory.read_u16(0x600)") == 7


@BOTH
def test_a_guest_that_starts_anew_or_is_destroyed(guest, bench):
    free = bench.eval("monitor.pages.available")
    made = make(guest)
    insert(made)
    made.exec("g = vm.hidden.insert_gva(vcpu.space(), 0x130100, call)")
    made.exec("vm.start(); vm.pause()")
    assert made.eval("(h.attached, g.attached, len(vm.hidden))") == (True, False, 1)
    made.exec(f"vm.memory.write({FUNCTION:#x}, {function(FIRST['push'][0])!r})")
    made.halted()
    assert made.word() == 7
    assert made.eval("seen") == [FUNCTION]
    made.destroy()
    assert bench.eval("monitor.pages.available") == free


def test_bad_places(guest):
    made = make(guest)
    assert "there is no RAM" in made.refused("vm.hidden.insert(0xfee00000, print)")
    assert "is not mapped" in made.refused("vm.hidden.insert_gva(vcpu.space(), 0xffff800000000000, print)")
    assert made.eval("len(vm.hidden)") == 0


@pytest.mark.parametrize("execute_only", [False], indirect=True)
def test_events_of_the_entry_code_need_execute_only_pages(guest):
    """All the kernel's entry code would be stepped, interrupts too: a timer's would take longer than its period."""
    made = make(guest)
    for event in ("SYSRET", "SYSCALL32", "SYSRET32"):
        line = f"ValueError: {event.lower()}: this CPU's EPT has no execute-only pages"
        assert made.refused(f"vm.on({event})(lambda vcpu: None)").startswith(line)
    assert made.eval("(len(vm.hidden), vm.policies)") == (0, [])
