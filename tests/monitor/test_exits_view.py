"""vm.exits.top() and vm.exits.trace(): what they count and record, and that they cost nothing when off."""

from bench import CODE

ROUNDS = 60
LOOP = f"""
    mov esi, {ROUNDS}
again:
    mov eax, 0x40000000
    xor ecx, ecx
    cpuid
    mov dx, 0x3fd
    in al, dx
    mov ecx, 0x6e0
    rdmsr
    dec esi
    jnz again
    hlt
"""


def rows(made, expression):
    return {row[0].strip(): row[1:] for row in made.eval(f"[tuple(row) for row in {expression}]")}


def test_the_first_top_has_counts_and_begins_to_measure(guest):
    made = guest(LOOP)
    made.halted()
    first = rows(made, "vm.exits.top()")
    assert first["CPUID"][0] == ROUNDS and first["CPUID"][3] == ""
    assert made.eval("vm.exits.recording.measures")
    assert "from now on" in made.exec("vm.exits.measure(False)\nprint(vm.exits.top())")


def test_top_by_reason_and_by_handler(guest):
    made = guest(LOOP)
    made.exec("vm.exits.measure()")
    made.policy("CPUID, leaf=0x40000000", "pass")
    made.halted()
    found = rows(made, "vm.exits.top()")
    for name in ("CPUID", "IO_INSTRUCTION", "RDMSR"):
        count, ticks, share, median, most, longest = found[name]
        assert count == ROUNDS
        assert 0 < median <= most <= longest < ticks and median * ROUNDS < 3 * ticks, (name, found[name])
        assert share.endswith("%")
    assert found["policy p on cpuid"][0] == ROUNDS
    assert 0 < found["policy p on cpuid"][1] < found["CPUID"][1]
    total = sum(made.eval("[ticks for count, ticks in vm.exit_counts().values()]"))
    measured = sum(row[1] for name, row in found.items() if name.isupper())
    assert 0.98 * total < measured <= total
    text = made.exec("vm.exits.measure(); vm.reset()\nwait(vm, lambda: vm.state == 'halted')\nprint(vm.exits.top())")
    assert "ticks in the guest" in text and "maximum" in text


def test_handlers_have_rows_of_their_own(guest):
    made = guest("mov dx, 0x3fd; in al, dx; mov dx, 0x21; in al, dx; in al, dx; hlt")
    made.exec("vm.exits.measure()")
    made.halted()
    text = made.exec("print(vm.exits.top())")
    assert "Uart16550: in 0x3f8 1, " in text and "I8259: in 0x21 1 " in text, text
    assert rows(made, "vm.exits.top()")["IO_INSTRUCTION"][0] == 3


def test_what_a_detached_policy_has_measured_stays_with_its_reason(guest):
    made = guest(LOOP)
    made.exec("vm.exits.measure()")
    made.policy("CPUID, leaf=0x40000000", "pass")
    made.halted()
    made.exec("p.detach()")
    assert rows(made, "vm.exits.top()")["CPUID"][0] == ROUNDS


def test_records_say_what_happened(guest):
    made = guest(LOOP)
    made.exec("before = vm.vcpu.host_ticks\nvm.exits.record(1 << 10)")
    made.halted()
    found = made.eval(
        "[(r.reason, r.rip, r.detail, r.verdict, r.vcpu) for r in vm.exits.trace(500)"
        " if r.reason in ('CPUID', 'IO_INSTRUCTION', 'RDMSR', 'HLT')]"
    )
    assert len(found) == 3 * ROUNDS + 1
    assert [reason for reason, *_ in found[:4]] == ["CPUID", "IO_INSTRUCTION", "RDMSR", "CPUID"]
    assert found[0][2:] == ("leaf 0x40000000, subleaf 0x0", "advance", 0)
    assert found[1][2:] == ("in 0x3fd 1", "advance", 0)
    assert found[2][2:] == ("0x6e0 IA32_TSC_DEADLINE", "advance", 0)
    assert found[-1][0] == "HLT" and found[-1][3] == "advance, wait"
    assert CODE < found[0][1] < found[1][1] < found[2][1] < found[-1][1]
    times = made.eval("[r.tsc for r in vm.exits.trace(500)]")
    assert times == sorted(times)
    durations = made.eval("[r.ticks for r in vm.exits.trace(500)]")
    assert None not in durations
    hosted, between = made.eval("(vm.vcpu.host_ticks - before, vm.exits.recording.between(vm.vcpu))")
    assert sum(durations) + between == hosted


def test_a_small_ring_keeps_the_last(guest):
    made = guest(LOOP)
    made.exec("vm.exits.record(50)")
    made.halted()
    assert made.eval("vm.exits.recording.size") == 64
    assert made.eval("vm.exits.trace(5000)[-1].reason") == "HLT"
    assert made.eval("len(vm.exits.trace(5000))") == 64
    assert made.eval("[r.reason for r in vm.exits.trace(3, 'cpuid')]") == ["CPUID"] * 3
    assert made.eval("len(vm.exits.trace(5000, ['RDMSR', 30]))") in range(38, 44)


def test_the_first_trace_begins_to_record(guest):
    made = guest(LOOP)
    assert "recorded from now on" in made.exec("print(vm.exits.trace(10))")
    made.halted()
    text = made.exec("print(vm.exits.trace(2))")
    assert text.splitlines()[0].split() == ["ms", "vcpu", "rip", "symbol", "reason", "detail", "verdict", "ticks"]
    assert "HLT" in text.splitlines()[-1]


def test_what_is_off_costs_nothing_and_gives_its_memory_back(guest):
    rounds = 6000  # so many that it does not matter which exit the host's interrupts come in
    made = guest(f"mov esi, {rounds}\nagain: mov eax, 0x40000000\nxor ecx, ecx\ncpuid\ndec esi\njnz again\nhlt")
    costs = []
    memory = made.eval("monitor.pages.available")
    for switch in ("pass", "vm.exits.record(256); vm.exits.measure()", "vm.exits.record(0); vm.exits.measure(False)"):
        made.exec(switch)
        # One sleep for all of it: the way into each turn counts as the exit's that was the last.
        made.exec("before = vm.exit_counts().get('CPUID', (0, 0))[1]\nvm.reset()\ntime.sleep_ms(200)")
        assert made.eval("vm.state") == "halted"
        costs.append(made.eval("vm.exit_counts()['CPUID'][1] - before"))
    off, on, again = costs
    assert 60 < (on - off) / rounds < 100, costs
    assert abs(again - off) / rounds < 2, costs
    assert made.eval("monitor.pages.available") == memory


def test_a_policy_may_end_the_recording(guest):
    made = guest(LOOP)
    made.exec("vm.exits.record(64); vm.exits.measure()")
    made.policy("CPUID", "vm.exits.record(0 if p.hits & 1 else 128); vm.exits.measure(p.hits & 1)")
    made.halted()
    assert made.eval("p.hits") == ROUNDS
    assert made.eval("vm.state") == "halted"


def test_bad_input_has_one_line(guest):
    made = guest(LOOP)
    assert "is no exit reason" in made.refused("vm.exits.trace(3, 'NONSENSE')")
    assert "how many of the last exits" in made.refused("vm.exits.trace(0)")
    assert "how many exits are kept" in made.refused("vm.exits.record(-1)")
    assert "from 64 to 1048576" in made.refused("vm.exits.record(1 << 30)")
    assert not made.eval("vm.exits.recording.size")
