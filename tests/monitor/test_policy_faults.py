"""Policies that fail stop their own guest, say so, and nothing else."""

import metronome
import pytest
from bench import DATA
from policy_runs import CPUID, SIGNATURE

TAKEN = 60000  # bytes that a call keeps
BOUND = 700_000  # ticks from a deadline to its handler when the heap is nearly full: the last look of a collection
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
    "heap, in one piece": ("bytearray(1 << 20)", "MemoryError"),
    "heap, one list": ("while True: hoard.append(None)", "MemoryError"),
    "heap, small objects": ("while True: hoard.append([vcpu.rip])", "MemoryError"),
    "heap, garbage": ("while True: bytearray(1000)", "MemoryError"),
    "heap, MemoryError caught": (
        "try:\n    while True: hoard.append(bytearray(1000))\nexcept MemoryError: hoard.append(bytearray(10000))",
        "MemoryError",
    ),
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
    made.exec("p.limit_ms = %d" % (60000 if words == "MemoryError" else 50))
    other.go()
    text = made.until("vm.state == 'paused'", 60000)
    rip = made.eval("vcpu.rip")
    assert f"policy p failed on cpuid of guest {made.name} at rip {rip:#x}" in text
    assert "Traceback (most recent call last):" in text
    assert words in text
    limit = made.eval("p.limit_kib")
    assert (f"it needed more than the {limit} KiB of heap that a call may take (limit_kib)" in text) == (
        words == "MemoryError"
    )
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


def test_what_a_call_may_take_of_the_heap(bench, guest):
    """A sixteenth of it, or what the policy's limit_kib says; each call anew, but what is kept is kept."""
    made = guest(COUNT)
    heap = bench.eval("__import__('cpu').heap()[0]")
    bench.exec("sizes = []\nsize = 0")
    made.policy("CPUID", "global size\nsize += 1 << 16\nbytearray(size)\nsizes.append(size)")
    assert made.eval("p.limit_kib") == heap // 16 >> 10
    for limit in (heap // 16 >> 10, 200, 1500):
        made.exec(f"size = 0\np.limit_kib = {limit}\nvm.resume()")
        made.until("vm.state == 'paused'", 60000)
        assert limit - 64 - 1 <= bench.eval("sizes[-1]") >> 10 <= limit
    most = heap // 4 >> 10
    for wrong in ("0", "-1", str(most + 1), "'1'", "None"):
        assert made.refused(f"p.limit_kib = {wrong}").startswith(f"ValueError: limit_kib {wrong}: a number from 1 to")


def test_calls_that_keep_all_that_they_take(bench, guest):
    """Each takes a little; when hardly anything is left the policy fails, and a guest above has noticed nothing."""
    ticking = metronome.start(guest)
    made = guest(COUNT)
    bench.exec("hoard = []")
    made.policy("CPUID", f"hoard.append(bytearray({TAKEN}))")
    printed = made.exec(
        f"{ticking.ref}.memory.write_u64({DATA + 8 * metronome.SKIP:#x}, 5)\nvm.resume()\ntime.sleep_ms(20)\n"
        f"{ticking.ref}.memory.write_u64({DATA + 8 * metronome.LATEST:#x}, 0)\n"
        "print('is', wait(vm, lambda: vm.state == 'paused', 60000), "
        f"{ticking.ref}.memory.read_u64({DATA + 8 * metronome.LATEST:#x}), len(hoard))"
    )
    paused, latest, kept = printed.rpartition("is ")[2].split()
    print("latest", latest, "kept", kept)
    made.exec("p.detach()\nhoard = []\ngc.collect()")
    assert paused == "True"
    assert "the heap is nearly full: the guest is paused" in made.eval("vm.messages[-1]")
    assert int(latest) <= BOUND
    assert int(kept) * TAKEN > bench.eval("__import__('cpu').heap()[0]") // 2
    made.exec("vm.resume()")
    bench.run(20)
    assert made.state == "running"


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
        (
            "'cpuidd'",
            "event 'cpuidd' is unknown; there are arrival, call, cpuid, cr, descriptor_table, exception, execute, "
            "hlt, ",
        ),
        ("CPUID, lead=1", "cpuid has no filter lead=; it has leaf, subleaf"),
        ("CPUID, leaf=-1", "leaf=-1: a number from 0 to 0xffffffff"),
        ("CPUID, leaf='1'", "leaf='1': a number from 0 to 0xffffffff"),
        ("IO, prt=1", "io has no filter prt=; it has port, write, size"),
        ("HLT, port=1", "hlt has no filter port=; it has cpl, pid, comm, when, once, every, limit"),
        ("RDMSR", "a policy on rdmsr names its msr="),
        ("MEMORY", "a policy on memory names its gpa="),
        ("MEMORY, gpa=0, access='q'", "access='q': some of the letters r, w and x"),
        ("MEMORY, gpa=0, access=''", "access='': some of the letters r, w and x"),
        ("MEMORY, gpa=0, length=0", "length=0: a number from 1 to"),
        ("MEMORY, gpa=0, length=1 << 40", "length=0x10000000000: 268435456 pages; a policy watches at most 16384"),
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
    assert bench.eval("(vms['t_filters'].policies, vms['t_filters'].chains)") == ([], {})


def test_a_loop_over_policies_detaches_all(guest):
    made = guest(CPUID)
    made.exec("def nothing(vcpu): pass\nfor leaf in range(5): vm.on(CPUID, leaf=leaf)(nothing)\nvm.on(VMCALL)(nothing)")
    assert made.eval("len(vm.policies)") == 6
    made.exec("for p in vm.policies: p.detach()\np.detach()")
    assert made.eval("(vm.policies, [chain.policies for chain in vm.chains.values()])") == ([], [(), ()])


def test_not_a_function(guest):
    made = guest(CPUID)
    assert made.refused("vm.on(CPUID)(3)").startswith("TypeError: a policy is a function of the vCPU, not 3")
