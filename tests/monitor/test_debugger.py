"""Breakpoints, watches and steps at the prompt, of small guests of one and of two processors."""

import pytest
from bench import CODE, DATA, HANDLERS, start_others
from pcanel.assemble import assemble

COUNT = 0x500

# f counts at DATA and calls g, which counts at DATA + 8; main loops.
LOOP = f"""
    mov rbp, 0
again:
    call f
    jmp again
f:
    push rbp
    mov rbp, rsp
    inc qword ptr [{DATA:#x}]
    call g
    pop rbp
    mov eax, 77
    ret
g:
    push rbp
    mov rbp, rsp
    inc qword ptr [{DATA + 8:#x}]
    nop
    pop rbp
    ret
"""


@pytest.fixture
def made(guest):
    made = guest(LOOP)
    lines = made.eval("[(line.gva, line.name) for line in vm.disassemble(count=16)]")
    made.at = [gva for gva, _ in lines]
    # 0 mov rsp, 1 mov rbp, 2 call f, 3 jmp, 4 f: push, 5 mov, 6 inc, 7 call g, 8 pop, 9 mov eax, 10 ret, 11 g: push ...
    names = " ".join([name for _, name in lines[2:12]])
    assert names == "call jmp push mov inc call pop mov ret push"
    return made


def paused(made) -> str:
    made.exec("vm.resume()")
    made.until("vm.state == 'paused'")
    return made.eval("vm.why")


def test_a_breakpoint(made):
    f, g = made.at[4], made.at[11]
    assert made.eval(f"repr(vm.break_at({f:#x}))") == f"<breakpoint 1 at {f:#x}: 0 hits, enabled>"
    assert paused(made) == f"breakpoint 1 at {f:#x}"
    assert (made.eval("vcpu.rip"), made.word()) == (f, 0)
    assert made.eval("vm.messages[-1]") == f"breakpoint 1 at {f:#x}: paused, resume() goes on"
    assert made.eval(f"bytes(vcpu.peek({f:#x}, 1))") == b"\x55"
    assert paused(made) and (made.eval("vcpu.rip"), made.word()) == (f, 1)
    made.exec(f"vm.break_at({g:#x}, when=lambda vcpu: vm.memory.read_u64({DATA:#x}) == 5, once=True)")
    made.exec("vm.breakpoints[1].disable()")
    assert paused(made) == f"breakpoint 2 at {g:#x}"
    assert made.words(2) == (5, 4)
    row = made.eval("repr(vm.breakpoints)").splitlines()[1]
    assert row.split()[:5] == ["1", "breakpoint", f"{f:#x}", "2", "disabled"]
    assert made.eval("len(vm.breakpoints)") == 1
    made.exec("vm.breakpoints[1].enable()")
    assert paused(made) == f"breakpoint 1 at {f:#x}"
    made.exec("vm.breakpoints.remove()\nvm.resume()\ntime.sleep_ms(5)")
    assert made.state == "running" and made.eval("(len(vm.breakpoints), len(vm.hidden))") == (0, 0)
    assert "breakpoint 1 at" in made.exec("vm.pause()\nprint(vm.messages[-1])")


def test_a_watch(made):
    assert made.eval(f"repr(vm.watch({DATA + 8:#x}, 8))") == f"<watch 1 at {DATA + 8:#x}, 8 bytes, w: 0 hits, enabled>"
    inc = made.at[13]
    assert paused(made).startswith("watch 1 at 0x")
    line = made.eval("vm.messages[-1]")
    assert f"{DATA + 8:#x}, 8 bytes, w: 0x0 -> 0x1, written by {inc:#x}: paused" in line
    assert (made.eval("vcpu.rip"), made.words(2)) == (made.at[14], (1, 1))
    assert made.eval("(vm.breakpoints[1].old, vm.breakpoints[1].new)") == (0, 1)
    paused(made)
    assert made.words(2) == (2, 2)
    made.exec(f"vm.breakpoints.remove()\nvm.watch({DATA:#x}, 8, 'r', when=lambda vcpu: False)")
    made.exec("vm.resume()\ntime.sleep_ms(20)")
    assert made.state == "running"


def test_a_watch_lets_each_access_happen(guest):
    """Also those of instructions whose length the monitor knows, which it could skip quickly."""
    made = guest(
        f"mov eax, 1\nmov esi, {DATA:#x}\nagain: inc rax\nmov [rsi], rax\nmov rbx, [rsi]\n"
        "mov byte ptr [rsi + 1], 5\npush rax\npop rcx\njmp again"
    )
    made.exec(f"w = vm.watch({DATA:#x}, 8, 'rw')")
    for round in range(2, 7):
        before = 0 if round == 2 else round - 1 | 0x500
        for old, new in ((before, round), (round, round), (round, round | 0x500)):
            assert paused(made).startswith("watch 1 at 0x")
            assert made.eval("(w.old, w.new)") == (old, new) and made.word() == new
        assert made.eval("vcpu.rbx") == round
    assert made.eval("(w.hits, w._policies[0].hits)") == (15, 15)
    made.exec(f"w.remove()\nw = vm.watch({DATA:#x}, 8, when=lambda vcpu: vcpu.rax == 100)")
    paused(made)
    assert made.eval("(w.hits, vcpu.rax, w.new)") == (1, 100, 100)  # of two writes in a round, the first


def test_steps(made):
    call, f, g = made.at[2], made.at[4], made.at[11]
    made.exec(f"vm.until({call:#x})")
    stop = made.exec("print(vm.step())").splitlines()
    assert stop[0] == f"{f:#x}" and stop[1].startswith(f"=> {f:#018x} 64: 55 ")
    assert made.eval("(vcpu.rip, vm.why)") == (f, f"by a step at {f:#x}")
    assert made.eval("vm.step(3).gva") == made.at[7]
    assert made.eval("vm.next().gva") == made.at[8]
    assert made.words(2) == (1, 1)
    assert made.eval(f"vm.until({g:#x}).gva") == g
    trace = made.eval("[frame.pc for frame in vm.backtrace()]")
    assert trace == [g, made.at[8], made.at[3]]
    assert "by frame pointers" in made.eval("repr(vm.backtrace())")
    assert made.eval("vm.finish().gva") == made.at[8]
    assert made.eval("vm.finish().note") == "returned 0x4d"
    assert made.eval("vcpu.rip") == made.at[3]
    made.exec("vm.resume()\ntime.sleep_ms(5)")
    assert made.state == "running"
    line = f"ValueError: guest {made.name} is running: pause() it, or let a breakpoint do so"
    assert made.refused("vm.step()") == line


def test_steps_over_breakpoints(made):
    """A step at a breakpoint executes the instruction, and the breakpoint holds afterwards."""
    f, g = made.at[4], made.at[11]
    made.exec(f"vm.break_at({f:#x})")
    paused(made)
    assert made.eval("vm.step().gva") == made.at[5]
    assert paused(made) == f"breakpoint 1 at {f:#x}" and made.word() == 1
    made.exec(f"vm.break_at({g:#x})")
    assert made.eval("vm.step(3).gva") == made.at[7]
    made.exec("stop = vm.next()")
    assert made.bench.eval("(stop.gva, stop.note)") == (g, f"stopped before: breakpoint 2 at {g:#x}")
    made.exec("stop = vm.until(0x134000, seconds=0.05)")
    assert made.bench.eval("stop.note").startswith("stopped before: breakpoint 1")
    made.exec("vm.breakpoints.remove()")
    assert made.eval("vm.until(0x134000, seconds=0.05).note") == "it was not there after 0.05 s: paused where it is"
    assert made.eval("(vm.state, len(vm.hidden))") == ("paused", 0)


def test_steps_into_a_handler(guest):
    """A step of an instruction that faults ends at the handler's first one; a step of CPUID behind it."""
    made = guest("ud2\ncpuid\nhlt", handlers={6: "add qword ptr [rsp], 2; iretq"})
    made.exec("vm.step(2)")
    assert made.eval("vm.step().gva") == HANDLERS
    assert made.eval("vm.step(2).gva") == CODE + 7 + 7 + 2
    assert made.eval("vm.step().gva") == CODE + 7 + 7 + 4


def test_two_processors(guest):
    """The vCPU that came to the breakpoint is the one that steps; the other stands still meanwhile."""
    made = guest(f"{start_others(0x8000)}\nagain: call f; jmp again\nf: nop; nop; nop; ret", cpus=2, data={
        0x8000: assemble(f"mov ax, 0; mov ds, ax; other: inc dword ptr [{COUNT:#x}]; jmp other", 16, 0),
    })  # fmt: skip
    made.until(f"vm.memory.read_u32({COUNT:#x}) > 100")
    made.exec("vm.break_at(0x8005)")
    made.until("vm.state == 'paused'")
    assert made.eval("(vm.stopped.number, vm.why)") == (1, "breakpoint 1 at 0x5 on vCPU 1")
    made.exec("first = vm.vcpus[0].guest_ticks")
    assert made.eval("vm.step().vcpu.number") == 1
    assert made.bench.eval("vm.vcpus[0].guest_ticks - first") == 0
    assert made.eval("vm.step(5).vcpu.number") == 1
    count = made.eval(f"vm.memory.read_u32({COUNT:#x})")
    assert made.eval("vm.step(4, vcpu=0).vcpu.number") == 0
    assert made.eval(f"vm.memory.read_u32({COUNT:#x})") == count
    made.exec("vm.breakpoints.remove()\nvm.resume()\ntime.sleep_ms(5)")
    assert made.state == "running" and made.eval(f"vm.memory.read_u32({COUNT:#x})") > count


def test_what_makes_no_sense(made):
    for call, line in (
        ("vm.break_at(1 << 62)", "ValueError: gva 0x4000000000000000 is not canonical"),
        ("vm.break_at(0x1000, when=3)", "ValueError: when=3: a function of the vCPU"),
        ("vm.break_at(0x1000, cpl=7)", "ValueError: cpl=7: a number from 0 to 0x3"),
        ("vm.break_at(0x1000, comm=7)", "ValueError: comm=7: a str of 1 to 15 bytes"),
        ("vm.watch(0x1000, comm='')", "ValueError: comm='': a str of 1 to 15 bytes"),
        ("vm.watch(0x1000, 0)", "ValueError: size 0: 1 to 1048576 bytes"),
        ("vm.watch(0x1000, 8, 'q')", "ValueError: access 'q': letters of r, w and x"),
        ("vm.breakpoints[7]", "KeyError: no breakpoint 7"),
        ("vm.step(0)", "ValueError: step(0): a number from 1 up"),
    ):
        assert made.refused(call) == line
    assert made.eval("(len(vm.breakpoints), len(vm.hidden), vm.policies)") == (0, 0, [])


def test_a_restart_takes_breakpoints_away(made):
    f = made.at[4]
    made.exec(f"vm.break_at({f:#x})\nvm.start()\ntime.sleep_ms(5)")
    assert made.state == "running"
    assert made.eval("repr(vm.breakpoints[1])") == f"<breakpoint 1 at {f:#x}: 0 hits, gone: the guest started anew>"


def test_a_scan_of_the_stack(guest):
    made = guest(f"mov rbp, 0; call f; hlt; f: sub rsp, 0x20; again: inc qword ptr [{DATA:#x}]; jmp again")
    made.exec("vm.resume()\ntime.sleep_ms(5)\nvm.pause()")
    text = made.eval("repr(vm.backtrace())")
    assert "by a scan of the stack" in text and f"{CODE + 7 + 7 + 5:#018x}" in text
    # In the upper half, where a kernel's stack is: the same tables once more
    made.exec("top = vcpu.cr3 & ~0xFFF\nvm.memory.write_u64(top + 8 * 511, vm.memory.read_u64(top))")
    made.exec("vcpu.rsp |= 0xFFFFFF8000000000")
    assert made.eval("repr(vm.backtrace())") == text
