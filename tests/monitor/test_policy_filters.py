"""Filters that every event has: when, every, limit, once and cpl."""

from bench import DATA
from policy_runs import CPUID, SIGNATURE, STORE
from ring3 import ring3

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
