"""Policies that fail stop their own guest, say so, and nothing else."""

import pytest
from bench import DATA
from test_policy_events import CPUID, SIGNATURE

COUNT = f"""
again:
    inc qword ptr [{DATA + 0x100:#x}]
    mov eax, 0x40000000
    cpuid
    jmp again
"""

FAULTS = {
    "raise": ("raise ValueError('by the test')", "ValueError: by the test"),
    "loop": ("while True: pass", "Timeout"),
    "call in a loop": ("while True: vcpu.rax", "Timeout"),
    "native loop": ("native_loop()", "Timeout"),
    "viper loop": ("viper_loop()", "Timeout"),
    "swallowed": ("while True:\n    try:\n        while True: pass\n    except: pass", "Timeout: caught and ignored"),
    "swallowed by finally": (
        "while True:\n    try:\n        while True: pass\n    finally:\n        continue",
        "Timeout: caught and ignored",
    ),
    "swallowed, natively": ("native_swallow()", "Timeout: caught and ignored"),
    "swallowed, heap locked": (
        "heap_lock()\nwhile True:\n    try:\n        while True: pass\n    except: pass",
        "Timeout: caught and ignored",
    ),
    "heap": ("kept = []\nwhile True: kept.append(bytearray(100000))", "MemoryError"),
    "heap, kept": ("while True: hoard.append(bytearray(1000))", "MemoryError"),
    "recursion": ("def f(): f()\nf()", "RuntimeError"),
    "exit": ("sys.exit()", "SystemExit"),
    "wild pointer": ("import machine\nmachine.mem32[1 << 45]", "HostFault"),
    "nonsense": ("return 'nonsense'", "TypeError: a policy cannot answer 'nonsense'"),
    "number": ("return 5", "TypeError: a policy cannot answer 5"),
    "bad value": ("return Value(3)", "ValueError: the value for CPUID is (EAX, EBX, ECX, EDX), not 3"),
    "bad vector": ("return Inject(2)", "ValueError: vector 2 is not an exception"),
}

LOOPS = """
import micropython
@micropython.native
def native_loop():
    while True: pass
@micropython.viper
def viper_loop():
    i = 0
    while True: i += 1
@micropython.native
def native_swallow():
    while True:
        try:
            while True: pass
        except:
            pass
hoard = []
"""


@pytest.mark.parametrize("name", FAULTS)
def test_fault(bench, guest, name):
    """The guest is paused at the instruction, with a traceback; another one runs on; detached, it goes on right."""
    body, words = FAULTS[name]
    other = guest(COUNT)
    made = guest(CPUID)
    bench.exec(LOOPS)
    made.policy("CPUID, leaf=0x40000000", body)
    made.exec("p.limit_ms = %d" % (60000 if words == "MemoryError" else 50))  # filling the heap takes a while
    other.go()
    text = made.until("vm.state == 'paused'", 60000)
    rip = made.eval("vcpu.rip")
    assert f"policy p failed on cpuid of guest {made.name} at rip {rip:#x}" in text
    assert "Traceback (most recent call last):" in text
    assert words in text
    assert made.eval("vcpu.rax") == 0x40000000  # not executed
    before = other.word(32)
    bench.run(20)
    assert other.word(32) > before
    assert other.state == "running"
    made.exec("p.detach()\nhoard = []\nvm.resume()")
    made.halted()
    assert made.word(1) == SIGNATURE


def test_resumed_without_detaching_it_fails_again(guest):
    made = guest(CPUID)
    made.policy("CPUID", "1 / 0")
    made.until("vm.state == 'paused'")
    assert "ZeroDivisionError" in made.exec("vm.resume()\nwait(vm, lambda: vm.state == 'paused', 1000)")


def test_sleeping_policy_does_not_run_its_own_guest(guest):
    made = guest(COUNT)
    made.exec("n = [0]")
    made.policy(
        "CPUID",
        "n[0] += 1\ntime.sleep_ms(5)\nif vm.memory.read_u64(%#x) != n[0]: raise ValueError('it ran')" % (DATA + 0x100),
    )
    made.until("n[0] > 5")
    assert made.state == "running"


def test_pause_and_power_off_by_a_policy(guest):
    made = guest(COUNT)
    made.policy("CPUID", "vm.pause()")
    made.until("vm.state == 'paused'")
    assert made.word(32) == 1
    made.exec("p.detach()")
    made.policy("CPUID", "vm.power_off()")
    made.exec("vm.resume()")
    made.until("vm.state == 'off'")
    assert made.word(32) == 2


def test_reset_by_a_policy(guest):
    made = guest(CPUID)
    made.exec("n = [0]")
    made.policy("CPUID", "n[0] += 1\nif n[0] < 3: vm.reset()")
    made.halted()
    assert made.eval("(n[0], vm.starts)") == (3, 3)
    assert made.word(1) == SIGNATURE


def test_destroy_by_a_policy_is_refused(guest):
    made = guest(CPUID)
    made.policy("CPUID", "vm.destroy()")
    assert "cannot be destroyed there" in made.until("vm.state == 'paused'")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("'cpuidd'", "event 'cpuidd' is unknown; there are cpuid, exception, io, memory, rdmsr, vmcall, wrmsr"),
        ("CPUID, lead=1", "cpuid has no filter lead=; it has leaf, subleaf"),
        ("CPUID, leaf=-1", "leaf=-1: a number from 0 to 0xffffffff"),
        ("CPUID, leaf='1'", "leaf='1': a number from 0 to 0xffffffff"),
        ("RDMSR", "a policy on rdmsr names its msr="),
        ("MEMORY", "a policy on memory names its gpa="),
        ("MEMORY, gpa=0, access='q'", "access='q': some of the letters r, w and x"),
        ("MEMORY, gpa=0, access=''", "access='': some of the letters r, w and x"),
        ("MEMORY, gpa=0, length=0", "length=0: a number from 1 to"),
        ("IO, port=0x10000", "port=65536: a number from 0 to 0xffff"),
        ("IO, size=3", "size=3: 1, 2 or 4"),
        ("IO, write=2", "write=2: True or False"),
        ("EXCEPTION, vector=32", "vector=32: a number from 0 to 0x1f"),
        ("EXCEPTION, vector=2", "vector 2 is the host's: no policy sees it"),
    ],
)
def test_bad_filters_are_refused(bench, guest, call, words):
    if "t_filters" not in bench.exec("print(list(vms))"):
        config = {"name": "t_filters", "memory": 1 << 20, "protocol": "flat", "kernel": "k", "address": 0x1000}
        bench.exec(f"monitor.create({config!r}, {{}})")
    line = bench.refused(f"vms['t_filters'].on({call})")  # at once, not when a function is attached
    assert line.startswith("ValueError: " + words)
    assert bench.eval("(vms['t_filters'].policies, vms['t_filters'].hooks)") == ([], {})


def test_a_loop_over_policies_detaches_all(guest):
    made = guest(CPUID)
    made.exec("def nothing(vcpu): pass\nfor leaf in range(5): vm.on(CPUID, leaf=leaf)(nothing)\nvm.on(VMCALL)(nothing)")
    assert made.eval("len(vm.policies)") == 6
    made.exec("for p in vm.policies: p.detach()\np.detach()")
    assert made.eval("(vm.policies, [hook.policies for hook in vm.hooks.values()])") == ([], [[], []])


def test_not_a_function(guest):
    made = guest(CPUID)
    assert made.refused("vm.on(CPUID)(3)").startswith("TypeError: a policy is a function of the vCPU, not 3")
