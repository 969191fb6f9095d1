"""CALL and RETURN: arguments, values, and which return is whose."""

from bench import DATA, STACK, start_others
from pcanel.assemble import assemble

FUNCTION = 0x130000
OTHER = 0x131000
SUM = "push rbp\nmov rbp, rsp\nlea rax, [rdi + rsi]\npop rbp\nret"
FACTORIAL = f"""
    cmp rdi, 1
    jbe one
    push rdi
    dec rdi
    call again
    pop rdi
    imul rax, rdi
    ret
one:
    mov eax, 1
    ret
again:
    jmp {FUNCTION:#x}
"""
CALLS = f"""
    mov rbx, {FUNCTION:#x}
    mov edi, 3
    mov esi, 4
    push 0x88
    push 0x77
    call rbx
    mov [{DATA:#x}], rax
    hlt
"""


def make(guest, source, function=SUM, **options):
    made = guest(source, data={FUNCTION: assemble(function, 64, FUNCTION)}, **options)
    made.exec("seen = []")
    return made


def test_arguments_and_the_value(guest):
    made = make(guest, CALLS)
    made.policy(f"CALL, at={FUNCTION:#x}", "seen.append([vcpu.args[0]] + vcpu.args[1:2] + vcpu.args[6:8])")
    made.policy(f"RETURN, at={FUNCTION:#x}", "seen.append(vcpu.result)", "q")
    made.halted()
    assert made.eval("seen") == [[3, 4, 0x77, 0x88], 7]
    assert made.word() == 7
    assert made.eval("(p.hits, q.hits, len(vm.policies))") == (1, 1, 2)
    made.exec("p.detach(); q.detach()")
    assert made.eval("(len(vm.hidden), vm.policies, vm.vcpu.read(0x4004) & 8)") == (0, [], 0)  # EXCEPTION_BITMAP


def test_a_call_that_returns_at_once(guest):
    made = make(guest, CALLS)
    made.policy(f"CALL, at={FUNCTION:#x}", "return Value(-22)")
    made.policy(f"RETURN, at={FUNCTION:#x}", "seen.append(vcpu.result)", "q")
    made.halted()
    assert made.word() == 2**64 - 22
    assert made.eval("seen") == [2**64 - 22]
    assert made.eval("vcpu.rsp") == STACK - 16
    made = make(guest, CALLS)
    made.policy(f"CALL, at={FUNCTION:#x}", "vcpu.rax = 5\nreturn HANDLED")
    made.halted()
    assert made.word() == 5


def test_another_value(guest):
    made = make(guest, CALLS)
    made.policy(f"RETURN, at={FUNCTION:#x}", "return Value(0x1122334455667788)")
    made.policy(f"RETURN, at={FUNCTION:#x}", "seen.append(1)", "q")
    made.halted()
    assert (made.word(), made.eval("seen")) == (0x1122334455667788, [])
    made = make(guest, CALLS)
    made.policy(f"RETURN, at={FUNCTION:#x}", "seen.append(1)\nreturn HANDLED")
    made.policy(f"RETURN, at={FUNCTION:#x}", "seen.append(2)", "q")
    made.halted()
    assert (made.word(), made.eval("seen")) == (7, [1])


def test_recursion(guest):
    source = f"mov edi, 5\nmov rbx, {FUNCTION:#x}\ncall rbx\nmov [{DATA:#x}], rax\nhlt"
    made = make(guest, source, FACTORIAL)
    made.policy(f"CALL, at={FUNCTION:#x}", "seen.append(vcpu.args[0])")
    made.policy(f"RETURN, at={FUNCTION:#x}", "seen.append(-vcpu.result)", "q")
    made.halted()
    assert made.word() == 120
    # The call in the middle of the recursion goes by a jump to the entry.
    assert made.eval("seen") == [5, 4, 3, 2, 1, -1, -2, -6, -24, -120]


def test_calls_that_sleep(guest):
    """A hundred stacks: each call is entered, and all return in the order in which they were entered."""
    sleeper = f"""
        mov rax, rdi
        xchg rsp, [{DATA + 0x100:#x}]
        ret
    """
    tasks = 100
    source = f"""
        mov rbx, {FUNCTION:#x}
        mov r12d, 0
        mov r13, rsp
    enter:
        mov rsp, r12
        shl rsp, 8
        add rsp, 0x240100
        mov rdi, r12
        lea rax, [rip + switched]
        mov rcx, {DATA + 0x108:#x}
        mov [rcx], rax
        mov rax, rcx
        mov [{DATA + 0x100:#x}], rax
        call rbx
        mov [{DATA + 0x110:#x} + 8 * rax], rdi
        mov [{DATA + 0x100:#x}], rsp
        mov rsp, {DATA + 0x108:#x}
        inc r14
        cmp r14d, {tasks}
        jb wake
        hlt
    switched:
        mov rax, [{DATA + 0x100:#x}]
        mov [r12 * 8 + 0x230000], rax
        inc r12
        cmp r12d, {tasks}
        jb enter
        xor r14d, r14d
    wake:
        mov rsp, [r14 * 8 + 0x230000]
        mov rax, r14
        ret
    """
    made = make(guest, source, sleeper)
    made.policy(f"CALL, at={FUNCTION:#x}", "pass")
    made.policy(f"RETURN, at={FUNCTION:#x}", "seen.append(vcpu.result)", "q")
    made.halted()
    assert made.eval("(p.hits, q.hits)") == (tasks, tasks)
    assert made.eval("seen") == list(range(tasks))
    assert made.eval("list(vm.hidden._returns.values())[0].lost") == 0


def test_two_vcpus(guest):
    """Both call all the time, and one writes to the function's page; in every order."""
    counter = f"lock inc qword ptr [{DATA + 0x40:#x}]\nmov rax, rdi\nret"
    loop = f"""
        mov rbx, {FUNCTION:#x}
        mov ebp, 60
    turn:
        mov rdi, rbp
        call rbx
        cmp rax, rbp
        jne wrong
        inc qword ptr [{FUNCTION + 0x800:#x}]
        dec ebp
        jnz turn
        ret
    wrong:
        mov qword ptr [{DATA + 0x48:#x}], 1
        ret
    """
    # The second one comes from real mode to 64-bit mode by the tables of the first.
    start = assemble(
        """
        cli
        xor ax, ax
        mov ds, ax
        lgdt [0x8100]
        mov eax, 0x20
        mov cr4, eax
        mov eax, [0x8110]
        mov cr3, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x100
        wrmsr
        mov eax, 0x80000011
        mov cr0, eax
        """, 16, 0x8000,
    ) + b"\xea\x80\x80\x10\x00"  # fmt: skip
    rest = f"mov rsp, 0x1e0000\nmov rax, {OTHER:#x}\ncall rax\nlock inc qword ptr [{DATA:#x}]\nhlt"
    second = assemble(rest, 64, 0x8080)
    source = f"""
        sgdt [0x8100]
        mov rax, cr3
        mov [0x8110], rax
        {start_others(0x8000)}
        mov rax, {OTHER:#x}
        call rax
        lock inc qword ptr [{DATA:#x}]
    wait:
        pause
        cmp qword ptr [{DATA:#x}], 2
        jne wait
        hlt
    """
    data = {OTHER: assemble(loop, 64, OTHER), 0x8000: start, 0x8080: second}
    for order in ("None", "__import__('vmm.scheduling.interleave').scheduling.interleave.Random(7, ticks=8000)"):
        made = guest(source, data={FUNCTION: assemble(counter, 64, FUNCTION), **data}, cpus=2)
        made.exec(f"from array import array\nn = array('I', [0, 0])\nvm.interleave = {order}")
        made.policy(f"CALL, at={FUNCTION:#x}", "n[0] += 1")
        made.policy(f"RETURN, at={FUNCTION:#x}", "n[1] += 1", "q")
        made.until(f"vm.memory.read_u64({DATA:#x}) == 2", 30000)
        assert made.word(8) == 120
        assert made.word(9) == 0
        assert made.eval("list(n)") == [120, 120]


def test_filters(guest):
    source = f"mov rbx, {FUNCTION:#x}\nmov ebp, 6\nl:\nmov rdi, rbp\nmov esi, 0\ncall rbx\ndec ebp\njnz l\nhlt"
    made = make(guest, source)
    made.policy(f"CALL, at={FUNCTION:#x}, every=2", "seen.append(vcpu.args[0])")
    made.policy(f"CALL, at={FUNCTION:#x}, when=lambda vcpu: vcpu.args[0] == 2", "seen.append('when')", "q")
    made.policy(f"CALL, at={FUNCTION:#x}, cpl=3", "seen.append('cpl')", "r")
    made.policy(f"RETURN, at={FUNCTION:#x}, once=True", "seen.append(-vcpu.result)", "s")
    made.halted()
    assert made.eval("seen") == [-6, 5, 3, "when", 1]
    assert made.eval("len(vm.policies)") == 3


def test_failing_policies(guest):
    for event in ("CALL", "RETURN"):
        made = make(guest, CALLS)
        made.policy(f"{event}, at={FUNCTION:#x}", "seen.append(1)\nif len(seen) == 1: 1 // 0\nreturn Value('x')")
        assert "ZeroDivisionError" in made.until("vm.state == 'paused'")
        assert "the value" in made.exec("vm.resume()\nwait(vm, lambda: vm.state == 'paused')")
        made.exec("p.detach()\nvm.resume()")
        made.halted()
        assert made.word() == 7
        assert made.eval("len(vm.hidden)") == 0


def test_bad_places(guest):
    made = make(guest, CALLS)
    assert "is not mapped" in made.refused("vm.on(CALL, at=0xffff800000000000)")
    assert "an address, or the name" in made.refused("vm.on(CALL, at=-1)")
    assert "names at= or gpa=" in made.refused("vm.on(CALL)")
    assert "has no symbols" in made.refused("vm.on(RETURN, at='main')")
    assert made.eval("vm._hidden is None")
