"""Whatever fails outside a guest's exit is reported and stops that guest alone; others and the prompt go on."""

import json

import pytest
from bench import DATA, deadline_timer

COUNTS = f"again: inc qword ptr [{DATA:#x}]\njmp again"
SLEEPS = deadline_timer(0x40) + "mov ecx, 0x6e0; rdtsc; add eax, 1000000; adc edx, 0; wrmsr\nsti\nagain: hlt; jmp again"
PREEMPTS = deadline_timer(0x40) + "mov ecx, 0x6e0; rdtsc; add eax, 10000000; adc edx, 0; wrmsr\nsti\nhlt\ncpuid\nhlt"
BAD = "def bad(*_): raise ValueError('broken')\n"


@pytest.fixture
def counts(bench, guest):
    """A guest that counts; at the end it still does, and the idle hook is there."""
    made = guest(COUNTS)
    made.go()
    bench.run(20)
    yield made
    before = made.word()
    bench.run(50)
    assert made.word() > before
    assert made.state == "running"
    assert "idle hook" not in bench.said()


RULE = "class Rule:\n    def pick(self, runnable): return runnable[-1]\nsched.policy = Rule()\n"


@pytest.mark.parametrize("rule", ["", RULE])
def test_a_timer_of_a_halted_guest(bench, guest, counts, rule):
    made = guest(SLEEPS, handlers={0x40: "iretq"})
    made.exec(f"{BAD}{rule}vm.clock.callbacks[:] = [bad] * len(vm.clock.callbacks)")
    try:
        out = made.until("vm.state == 'stopped'")
    finally:
        bench.exec("sched.policy = None")
    assert out.count("stopped: the monitor failed at a timer's end") == 1
    assert "ValueError: broken" in out
    assert made.eval("vm.messages[-1]") == "stopped: the monitor failed at a timer's end"


def test_the_exit_of_a_guest(guest, counts):
    made = guest("cpuid\nhlt")
    made.exec(f"{BAD}vm.exits.replace(10, 'test', lambda vcpu, below: bad)")
    assert "stopped: the monitor failed at exit reason 10, or the entry after it" in made.until("vm.state == 'stopped'")


def test_a_console(bench, guest, counts):
    made = guest(COUNTS, console="com2")
    made.go()
    made.exec(f"{BAD}sched._ready[0] = lambda: 1\nsched._polls[0] = bad\nsched.poll_later()")
    made.until("vm.state == 'stopped'")
    assert made.eval("vm.messages") == ["stopped: the monitor failed at its console, which is unplugged"]
    assert bench.eval("len(sched._watched)") == 0


def test_a_guest_that_preempts_the_service_of_a_console(bench, guest, counts):
    """Its failure is its own: the console that was being served is not unplugged."""
    made = guest(COUNTS, console="com2")
    made.go()
    above = guest(PREEMPTS, handlers={0x40: "iretq"}, priority=5)
    above.exec("seen = []\ndef bad(_):\n    seen.append(sched._serviced)\n    raise ValueError('broken')")
    above.exec("def slow():\n    for _ in range(100000):\n        if seen: return")
    above.exec(
        "vm.exits.replace(10, 'test', lambda vcpu, below: bad)\n"
        "sched._ready[0], sched._polls[0] = (lambda: not seen), slow\n"
        "sched.poll_later()\nvm.resume()"
    )
    above.until("vm.state == 'stopped'")
    assert bench.eval("seen") == [0]
    assert above.eval("vm.messages") == ["stopped: the monitor failed at exit reason 10, or the entry after it"]
    assert (made.state, bench.eval("len(sched._watched)")) == ("running", 1)


def test_what_guests_have_for_each_other(bench, counts):
    out = bench.exec(f"{BAD}sched._settle.append(bad)\nsched.defer()\ntime.sleep_ms(100)\nsched._settle.remove(bad)")
    assert out.count("[monitor] failed between the guests' turns, and goes on") == 1
    assert "ValueError: broken" in out


def test_what_is_no_guests(bench, counts):
    """It fails whenever it is tried: a few lines, and guests run between."""
    before = bench.eval("sched.failures")
    out = bench.exec(
        f"{BAD}monitor.journal.flush = bad\nfor _ in range(30): time.sleep_ms(20)\ndel monitor.journal.flush"
    )
    assert bench.eval("sched.failures") >= before + 30
    assert 1 <= out.count("[monitor] failed between") <= 20


def test_the_scheduler_itself(bench, counts):
    out = bench.exec(f"{BAD}step, sched._turns = sched._turns, bad\ntime.sleep_ms(50)\ndel sched._turns")
    assert "[monitor] failed between" in out


GUEST = {"memory": 4 << 20, "protocol": "flat", "kernel": "k", "address": 0x7C00, "console": "none"}
MODULES = {
    "guest:list": b"[]",
    "guest:number": b"3",
    "guest:text": b'"guest"',
    "guest:none": b"null",
    "guest:deep": b"[" * 2000,
    "guest:bytes": b"\xff\xfe",
    "guest:empty": b"",
    "guest:nameless": b"{}",
    "guest:links": json.dumps({**GUEST, "name": "links", "links": [[]]}).encode(),
    "guest:good": json.dumps({**GUEST, "name": "good"}).encode(),
    "k": b"\xf4",
    "policy:bad": b"raise SystemExit",
    "policy:good": b"seen.append(sorted(vms))",
}


def test_bad_boot_modules(bench, counts):
    out = bench.exec(f"""
import vmm.boot as m
modules = {MODULES!r}
before, m.boot_modules = m.boot_modules, lambda: modules
seen = []
try:
    m.run_policies(m.load_guests(monitor), globals())
finally:
    m.boot_modules = before
""")
    try:
        lines = [line for line in out.splitlines() if line.startswith("guest ")]
        assert sorted(line.split()[1].rstrip(":") for line in lines) == sorted(
            ["list", "number", "text", "none", "deep", "bytes", "empty", "None", "links"]
        )
        assert "guest list: ValueError: a guest is described by a dict, not list" in lines
        assert "good" in bench.eval("seen[0]")
    finally:
        bench.exec("vms['good'].destroy()")
