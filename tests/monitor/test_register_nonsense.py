"""Registers that a policy sets to what no CPU takes: refused, or its guest is stopped; no other guest's are touched."""

import pytest
from bench import DATA

SSE = "mov rax, cr0; and eax, 0xfffffffb; or eax, 2; mov cr0, rax\nmov rax, cr4; or eax, 0x40600; mov cr4, rax\n"
SECRET = 0x5EC2E75EC2E75EC2
# Compares XMM0 with what it put there: counts at DATA + 8 what was another's, and its rounds at DATA + 16.
KEEPS = f"""{SSE}
    mov rax, {SECRET:#x}
    movq xmm0, rax
    again: movq rbx, xmm0
    cmp rax, rbx
    je same
    mov [{DATA:#x}], rbx
    inc qword ptr [{DATA + 8:#x}]
    same: inc qword ptr [{DATA + 16:#x}]
    jmp again
"""
# Shows its XMM0, which the policy's call comes between.
CALLS = f"""{SSE}
    mov rax, 0xBBBBBBBBBBBBBBBB
    movq xmm0, rax
    again: mov eax, 0x777
    vmcall
    movq rbx, xmm0
    mov [{DATA:#x}], rbx
    inc qword ptr [{DATA + 8:#x}]
    jmp again
"""
OWN = 0xBBBBBBBBBBBBBBBB

REFUSED = {  # what the policy does, and what it reads afterwards
    "XCR0 of 0": ("vcpu.xcr0 = 0", "vcpu.xcr0", 1),
    "XCR0 without x87": ("vcpu.xcr0 = 6", "vcpu.xcr0", 1),
    "XCR0 with AVX and no SSE": ("vcpu.xcr0 = 5", "vcpu.xcr0", 1),
    "XCR0 with what there is not": ("vcpu.xcr0 = 1 | 1 << 62", "vcpu.xcr0", 1),
    "LSTAR that is not canonical": ("vcpu.msr(0xc0000082, 1 << 63)", "vcpu.msr(0xc0000082)", 0),
    "CSTAR that is not canonical": ("vcpu.msr(0xc0000083, 1 << 47)", "vcpu.msr(0xc0000083)", 0),
    "KERNEL_GS_BASE": ("vcpu.msr(0xc0000102, 1 << 62)", "vcpu.msr(0xc0000102)", 0),
    "an MSR that does not follow": ("vcpu.msr(0x10, 0)", "0", 0),
}
STOPPED = {
    "MXCSR": "vcpu.fpu()[24:28] = b'\\xff' * 4",
    "XSTATE_BV": "vcpu.fpu()[512:520] = b'\\xff' * 8",
    "XCOMP_BV": "vcpu.fpu()[520:528] = b'\\xff' * 8",
    "DR7": "vcpu.dr7 = 1 << 40",
    "EFER": "vcpu.efer = 1 << 20",
    "PAT": "vcpu.write(0x2804, 0x0202020202020202)",
    "CR3": "vcpu.cr3 = 1 << 60",
    "CR0": "vcpu.cr0 = 1 << 31",
    "RFLAGS": "vcpu.rflags = 0",
    "RIP": "vcpu.rip = 1 << 63",
    "CS": "vcpu.set_segment('cs', 8, 0, 0xffffffff, 0)",
    "event": "vcpu.event(0x80000000 | 1 << 8)",
}
HARMLESS = {  # bits that the CPU does not have, and addresses of any kind
    "DR6": "vcpu.debug()[4] = 1 << 40",
    "DR0": "vcpu.debug()[0] = 1 << 63",
    "CR2": "vcpu.cr2 = 1 << 63",
}


RUN = """
def nonsense(vm, keeps, body, look):
    "A policy does this at its twentieth call: states, messages, what look says, XMM0, what the neighbour has seen."
    scope = {"n": 0, "HANDLED": HANDLED}
    lines = ["def p(vcpu):", "    global n", "    n += 1", "    if n == 20:", "        " + body, "    return HANDLED"]
    exec("\\n".join(lines), scope)
    vm.start()
    del vm.messages[:]
    policy = vm.on(VMCALL, number=0x777)(scope["p"])
    rounds = keeps.memory.read_u64(ROUNDS)
    wait(vm, lambda: vm.state != "running" or scope["n"] > 40)
    state, said = vm.state, len(vm.messages)
    policy.detach()
    value = eval(look, {"vcpu": vm.vcpu})
    vm.resume()
    calls = vm.memory.read_u64(OWN + 8)
    wait(vm, lambda: vm.state != "running" or vm.memory.read_u64(OWN + 8) > calls + 5)
    wait(keeps, lambda: keeps.memory.read_u64(ROUNDS) > rounds + 1000)
    own = vm.memory.read_u64(OWN)
    others = keeps.memory.read_u64(FOREIGN), keeps.memory.read_u64(FOREIGN + 8)
    on = keeps.memory.read_u64(ROUNDS) > rounds and keeps.state == "running"
    return state, said, value, vm.state, own, others, on
"""
WORDS = f"""
ROUNDS = {DATA + 16:#x}
OWN = FOREIGN = {DATA:#x}
"""
KEPT = ((0, 0), True)


@pytest.fixture(scope="module")
def keeps(bench):
    made = bench.guest(KEEPS)
    made.go()
    bench.exec(WORDS + RUN)
    yield made
    made.destroy()


def run(made, keeps, cases):
    """{name: what nonsense() says} of {name: (what the policy does, what to look at)}."""
    made.exec(f"found = {{name: nonsense(vm, {keeps.ref}, *case) for name, case in {cases!r}.items()}}")
    return made.eval("found")


def test_refused(guest, keeps):
    """The policy fails and its guest is paused; without it the guest goes on, with the register as it was."""
    found = run(guest(CALLS), keeps, {name: case[:2] for name, case in REFUSED.items()})
    assert found == {name: ("paused", 1, case[2], "running", OWN, *KEPT) for name, case in REFUSED.items()}


def test_stopped_with_a_line(bench, guest, keeps):
    """And so again at resume(), since nothing has changed."""
    found = run(guest(CALLS, on_triple_fault="stop"), keeps, {name: (body, "0") for name, body in STOPPED.items()})
    assert found == {name: ("stopped", 1, 0, "stopped", OWN, *KEPT) for name in STOPPED}
    assert bench.exec("print(vms)")


def test_an_injected_monitor_trap_stops_once(guest, keeps):
    """It is an exit that nobody has asked for, and over with that."""
    found = run(guest(CALLS), keeps, {"trap": ("vcpu.event(0x80000000 | 7 << 8)", "0")})
    assert found == {"trap": ("stopped", 1, 0, "running", OWN, *KEPT)}


def test_harmless(guest, keeps):
    found = run(guest(CALLS), keeps, {name: (body, "0") for name, body in HARMLESS.items()})
    assert found == {name: ("running", 0, 0, "running", OWN, *KEPT) for name in HARMLESS}


def test_floats_of_the_monitor_after_a_failed_entry(bench, guest, keeps):
    """The registers are the monitor's then, not those of the guest that ran before: its control words are plain."""
    found = run(guest(CALLS), keeps, {"MXCSR": (STOPPED["MXCSR"], "1.0 / 3.0 + 2.0 / 3.0")})
    assert found["MXCSR"][:3] == ("stopped", 1, 1.0)
