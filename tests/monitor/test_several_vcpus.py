"""A guest of several vCPUs at the prompt: policies, watched memory, pause, reset, destruction."""

import pytest
from bench import CODE, start_others
from pcanel.assemble import assemble

AP = 0x8000  # where the others start
WATCHED = 0x3000
TURNS = 200

# Both add to a watched word, locked and by an instruction of which the emulator knows nothing, and then wait.
FIRST = (
    start_others(AP)
    + f"""
    mov ebx, {WATCHED:#x}
    mov esi, {TURNS}
again:
    mov eax, 0x40000000
    push rbx
    cpuid
    pop rbx
    lock inc dword ptr [rbx]
    rol dword ptr [rbx + 8], 1
    dec esi
    jnz again
    lock inc dword ptr [rbx + 4]
    hlt
"""
)
OTHERS = f"""
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    mov si, {TURNS}
again:
    mov eax, 0x40000000
    cpuid
    lock inc dword ptr [{WATCHED:#x}]
    dec si
    jnz again
    lock inc dword ptr [{WATCHED + 4:#x}]
    hlt
"""
SPIN = start_others(AP) + "spin: jmp spin"


@pytest.fixture
def several(bench, guest):
    """Makes a guest whose other vCPUs run `others`; it stands still."""

    def make(first, others, cpus=2):
        made = guest(first, start=False, cpus=cpus)
        made.exec(
            f"code = {assemble(others, 16, AP)!r}\n"
            f"def start():\n"
            f"    with still():\n"
            f"        vm.start()\n"
            f"        vm.memory.write({AP:#x}, code)\n"
            f"def states(): return [vcpu.scheduled.state for vcpu in vm.vcpus]"
        )
        return made

    return make


@pytest.mark.parametrize("cpus", [2, 4])
def test_a_policy_gets_the_vcpu_on_which_it_happened(several, cpus):
    made = several(FIRST, OTHERS, cpus)
    made.exec(f"""
seen = [0] * {cpus}
@vm.on(CPUID, leaf=0x40000000)
def count(vcpu): seen[vcpu.number] += 1
start()
""")
    assert made.eval("wait(vm, lambda: states() == ['halted'] * len(vm.vcpus))")
    assert made.eval("seen") == [TURNS] * cpus
    assert made.eval(f"vm.memory.read_u32({WATCHED:#x})") == cpus * TURNS


@pytest.mark.parametrize("answer", ["pass", "if vcpu.number: return RETRY if vcpu.rsi & 1 and late() else None"])
def test_locked_operations_on_a_watched_page_are_atomic(several, answer):
    """The word is right, and no access is missed while the page is open for an instruction of another vCPU."""
    made = several(FIRST, OTHERS)
    made.exec(f"""
seen = [0, 0]
n = [0]
def late():
    n[0] += 1
    return n[0] & 1
@vm.on(MEMORY, gpa={WATCHED:#x}, length=4096)
def watch(vcpu):
    seen[vcpu.number] += 1
    {answer}
start()
""")
    assert made.eval("wait(vm, lambda: states() == ['halted'] * 2)")
    assert made.eval(f"(vm.memory.read_u32({WATCHED:#x}), vm.memory.read_u32({WATCHED + 4:#x}))") == (2 * TURNS, 2)
    first, second = made.eval("seen")
    assert first == 2 * TURNS + 1 and second >= TURNS + 1


def test_pause_and_resume_are_for_all(several):
    made = several(SPIN, "here: jmp here", 3)
    made.exec("start()")
    assert made.eval("wait(vm, lambda: states() == ['running'] * 3)")
    made.exec("vm.pause()\nbefore = [vcpu.guest_ticks for vcpu in vm.vcpus]\ntime.sleep_ms(5)")
    assert made.eval("(vm.state, states())") == ("paused", ["paused"] * 3)
    assert made.eval("[vcpu.guest_ticks for vcpu in vm.vcpus] == before")
    made.exec("vm.resume()\ntime.sleep_ms(60)")
    assert made.eval("[vcpu.guest_ticks > ticks for vcpu, ticks in zip(vm.vcpus, before)]") == [True] * 3


def test_those_at_hlt_are_so_after_a_pause(several):
    made = several(SPIN, "cli\nhlt")
    made.exec("start()")
    assert made.eval("wait(vm, lambda: states() == ['running', 'halted'])")
    made.exec("vm.pause()\nvm.resume()")
    assert made.eval("states()") == ["running", "halted"]


def test_they_wait_for_sipi_after_a_reset(several):
    made = several("spin: jmp spin", "hlt")
    made.exec("start()\ntime.sleep_ms(2)")
    assert made.eval("(vm.state, states())") == ("running", ["running", "wait-for-SIPI"])
    made.exec("vm.pause()\nvm.resume()")
    assert made.eval("states()") == ["running", "wait-for-SIPI"]
    made.exec("vm.reset()\ntime.sleep_ms(2)")
    assert made.eval("states()") == ["running", "wait-for-SIPI"]


def test_equal_shares_whatever_the_number_of_vcpus(bench, several):
    made = several(SPIN, "here: jmp here", 3)
    made.exec("start()")
    assert made.eval("wait(vm, lambda: states() == ['running'] * 3)")
    alone = bench.guest("spin: jmp spin")
    alone.go()
    made.exec(f"other = {alone.ref}\nvm.used()\nother.used()\ntime.sleep_ms(1500)")
    mine, its = made.eval("(vm.used()[0], other.used()[0])")
    assert 0.85 < mine / its < 1.18
    alone.destroy()


def test_triple_fault_of_any_stops_all(several):
    made = several(SPIN, "lidt [0x7100]\nint3")
    made.exec("vm.config['on_triple_fault'] = 'stop'")
    made.exec("with still():\n    start()\n    vm.memory.write(0x7100, bytes(6))")
    assert made.eval("wait(vm, lambda: states() == ['stopped'] * 2)")
    assert made.eval("vm.why").startswith("triple fault at 0x")


def test_init_by_the_shorthand_for_itself_is_nobody_elses(several):
    """The second one sends it, in x2APIC mode; the others go on."""
    made = several(
        SPIN,
        "mov ecx, 0x1b\nrdmsr\nor eax, 0xc00\nwrmsr\nmov ecx, 0x830\nxor edx, edx\nmov eax, 0x44500\nwrmsr\nhlt",
    )
    made.exec("before = vm.starts\nstart()")
    assert made.eval("wait(vm, lambda: vm.vcpus[1].lapic.x2apic and states() == ['running', 'wait-for-SIPI'])")
    made.exec("time.sleep_ms(2)")
    assert made.eval("(vm.starts - before, states())") == (1, ["running", "wait-for-SIPI"])


@pytest.mark.parametrize("ends", ["stop", "reset"])
def test_init_of_all_resets_the_machine(several, ends):
    """As firmware would after INIT of the processor that boots: nobody goes on where it was."""
    made = several(
        # Memory is empty after the reset: the second one then finds CLI, HLT.
        f"mov edi, {AP:#x}\ncmp byte ptr [rdi], 0\njne begin\nmov word ptr [rdi], 0xf4fa\nbegin:\n"
        + start_others(AP)
        + "mov ebx, 0x3000\nwait: cmp dword ptr [rbx], 1\njne wait\nmov eax, 0x8c500\nwrmsr\nspin: jmp spin",
        "xor ax, ax\nmov ds, ax\nmov dword ptr [0x3000], 1\nspin: jmp spin",
    )
    made.exec(f"vm.config['on_reset'] = {ends!r}\nbefore = vm.starts\nstart()")
    if ends == "stop":
        assert made.eval("wait(vm, lambda: states() == ['stopped'] * 2)")
        assert made.eval("vm.why") == "INIT of the processor that boots"
    else:
        assert made.eval("wait(vm, lambda: vm.starts == before + 2)")
        assert made.eval("vm.state") == "running"


def test_too_many_are_refused(bench):
    for cpus in (0, 17, "2"):
        said = bench.refused(
            f"monitor.create({{'name': 'x', 'memory': 4 << 20, 'protocol': 'flat', 'kernel': 'k', 'address': {CODE}, "
            f"'console': 'none', 'cpus': {cpus!r}}}, {{'k': b'\\xf4'}})"
        )
        assert said == f"ValueError: guest x: cpus: must be a number from 1 to 16, not {cpus!r}"


def test_what_is_destroyed_leaves_room(bench):
    """Pages, VPIDs and places in the schedule come back."""
    create = (
        f"vm = monitor.create({{'name': 'x', 'memory': 4 << 20, 'protocol': 'flat', 'kernel': 'k', 'address': {CODE}, "
        f"'mode': 'long', 'console': 'none', 'cpus': 8}}, {{'k': b'\\xf4'}})\n"
        "vm.start()\ntime.sleep_ms(1)\nvm.destroy()\n"
    )
    counts = "(monitor.pages.available, len(monitor._vpids), len(sched.vcpus))"
    bench.exec(create)
    before = bench.eval(counts)
    bench.exec(create * 3)
    assert bench.eval(counts) == before
