"""The bench on the real engine: rows that are sane, a slowed handler that shows, a profile that adds up."""

import pytest
from pcanel.bench import calls, conditions, guest, native, profile
from pcanel.bench.measures import EXITS, SHORTEST_EXIT
from pcanel.bench.monitored import Monitored
from pcanel.bench.trace import trace
from pcanel.paths import ELF
from pcanel.symbols import Symbols

ROUNDS = 100
FEW = 20
LOOPS = 2000
BY_THE_CPU = {
    "wbinvd",
    "rdrand",
    "int3",
    "cr4_write",
    "cr8_write",
    "ram",
    "page_first_touch",
    "xapic_read",
    "xapic_eoi",
    "xapic_icr",
    "x2apic_read",
    "x2apic_eoi",
    "wrmsr_fs_base",
    "ud2",
    "cr3_write",
    "syscall",
    "nop",
}


@pytest.fixture(scope="module")
def bench():
    with Monitored() as bench:
        yield bench


def rows(bench, *names):
    return guest.parse(bench.run(list(names), ROUNDS))


def test_rows(bench):
    """All that the table has, and each is an exit but for those that the CPU carries out."""
    found = bench.rows(FEW)
    assert {*found, "cpuid_mitigated"} == {measure.name for measure in EXITS}
    for name, row in found.items():
        assert row.min <= row.median <= row.max, name
        assert (row.median < SHORTEST_EXIT) == (name in BY_THE_CPU), (name, row)


def test_mitigations_are_off_but_for_their_row(bench):
    """They cost what is executed at an exit: registers and return stack on this CPU."""
    assert "on" not in bench.monitor.eval("list(mitigations.state.values())")
    with Monitored(cmdline="") as mitigated:
        assert mitigated.monitor.eval("mitigations.bits") == 3
        found = mitigated.under(conditions.MITIGATED, ROUNDS)
    assert list(found) == ["cpuid_mitigated"]
    assert 50 < found["cpuid_mitigated"].median - rows(bench, "cpuid")["cpuid"].median < 120


def test_a_policy_answers_its_row_only(bench):
    """Without the policy nobody answers; with it, its function is called each time."""
    bench.monitor.exec("attach_policies(vm, 'handled')")
    try:
        rows(bench, "out_policy")
        hits = bench.monitor.eval("[policy.hits for policy in vm.policies]")
    finally:
        bench.monitor.exec("detach_policies(vm)")
    assert hits.pop() >= ROUNDS
    assert not any(hits)
    rows(bench, "out_policy")
    assert bench.monitor.eval("vm.unclaimed()['ports'][(0x5E0, True)]") >= ROUNDS


def test_a_slowed_handler_shows(bench):
    before = rows(bench, "cpuid", "in_pic")
    bench.monitor.exec(
        "from vmm.vtx import reasons\n"
        "quick = vm.exits.default(reasons.CPUID)\n"
        "def slow(vcpu):\n"
        f"    for i in range({LOOPS}):\n"
        "        pass\n"
        "    return quick(vcpu)\n"
        "vm.exits.replace(reasons.CPUID, 'test', lambda vcpu, below: slow)"
    )
    try:
        slowed = rows(bench, "cpuid", "in_pic")
    finally:
        bench.monitor.exec("vm.exits.replace(reasons.CPUID, 'test')")
    assert slowed["cpuid"].min > before["cpuid"].max + 5 * LOOPS
    assert slowed["in_pic"].median == before["in_pic"].median
    assert rows(bench, "cpuid")["cpuid"].median == before["cpuid"].median


def test_native_rows():
    """Where no monitor is, an instruction is one tick and VMCALL has no row."""
    found = native.rows(rounds=ROUNDS)
    assert "vmcall" not in found
    assert max(found[name].max for name in ("cpuid", "rdmsr", "in_pic", "in_pit")) < SHORTEST_EXIT


def test_a_profile_adds_up(bench):
    instructions, functions = trace("mmio_policy")
    symbols = Symbols(ELF)
    names = profile.name_all(instructions, symbols)
    assert instructions[-1].tick - instructions[0].tick == len(instructions) - 1
    assert names[0] == names[-1] == profile.GUEST
    assert {"vmx_exit", "vcpu_enter", "vmx_guest"} <= set(names)
    assert sum(count for _, count in profile.in_order(names)) == len(names)
    assert sum(count for _, count, _ in profile.summed(names)) == len(names)
    assert len(names) == pytest.approx(rows(bench, "mmio_policy")["mmio_policy"].median, rel=0.2)
    found = {call.name: call for call in calls.attribute(instructions, symbols, functions)}
    device = found["__main__.Plain.read"]
    assert device.count == 1
    assert 0 < device.own <= device.whole < len(names) // 4
    assert any(name.startswith("[vmm_emulation_sites") for name in names)  # the handler, that has called it
