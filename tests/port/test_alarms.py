"""NMIs and machine checks that reach the monitor itself, and interrupts at vectors of exceptions.

QEMU raises them: no CPU can do that to itself.
"""

import time

import pytest

VAL, UC, EN, ADDRV, PCC, S, AR = (1 << bit for bit in (63, 61, 60, 58, 57, 56, 55))
RIPV, EIPV, MCIP = 1, 2, 4
SCRUBBED = VAL | UC | EN | ADDRV | S | 0xC0  # a memory scrubber found it: nobody needs the data now
BUSY = "def f():\n  while True: pass\n"


def until(monitor, expression, wanted):
    deadline = time.monotonic() + 30
    while (got := monitor.eval(expression)) != wanted:
        assert time.monotonic() < deadline, f"{expression} is {got}, not {wanted}"
    return got


def test_an_nmi_is_counted_and_told_of(monitor):
    before = monitor.eval("__import__('cpu').nmis()")
    monitor.engine.nmi()
    until(monitor, "__import__('cpu').nmis()", before + 1)
    monitor.console("repl").expect(r"\[host\] NMI of the host \(\d+ so far\)", 30)
    monitor.engine.nmi()  # the CPU takes the next: the first has ended
    until(monitor, "__import__('cpu').nmis()", before + 2)


def test_an_nmi_in_the_middle_of_python_changes_nothing(monitor):
    """Numbers, lists and the stack of code that is interrupted."""
    code = (
        "import cpu\nbegan = cpu.nmis()\nrounds = 0\nwhile cpu.nmis() < began + 3:\n"
        "    assert sum([i * i for i in range(100)]) == 328350\n    assert sum([i * 0.5 for i in range(100)]) == 2475\n"
        "    rounds += 1\nprint('whole', rounds > 0)"
    )
    console = monitor.console("repl")
    console.send("\r\n\x05")
    console.expect("=== ", 30)
    console.send("print('going')\r" + code.replace("\n", "\r") + "\r\x04")
    console.expect(r"^going$", 30)
    for _ in range(3):
        time.sleep(0.2)  # so that each is one of its own
        monitor.engine.nmi()
    console.expect(r"^whole True", 30)


def test_a_machine_check_that_code_can_go_on_from(monitor):
    """Twice: the first one has been acknowledged, or the second would shut the CPU down."""
    for address in (0x1234000, 0x2345000):
        monitor.engine.machine_check(9, SCRUBBED, RIPV | MCIP, address)
        monitor.console("repl").expect(rf"\[host\] machine check: bank 9, .*UC.*, address {address:#x}", 30)
    assert monitor.eval("6 * 7") == 42
    monitor.exec("import cpu")
    assert monitor.eval("cpu.rdmsr(0x17a)") == 0
    assert monitor.eval("cpu.rdmsr(0x401 + 4 * 9)") == 0
    assert monitor.eval("cpu.cr(4) >> 6 & 1") == 1


@pytest.mark.parametrize(
    "status, mcg_status",
    [(SCRUBBED | PCC, RIPV | MCIP), (SCRUBBED | AR, RIPV | EIPV | MCIP), (SCRUBBED, MCIP)],
    ids=["context corrupt", "action required", "no way back"],
)
def test_a_machine_check_that_nothing_can_go_on_from(fresh, status, mcg_status):
    machine = fresh()
    machine.engine.machine_check(9, status, mcg_status, 0x1234000)
    machine.console("repl").expect(rf"PANIC: #MC bank 09 status {status:016x} address {0x1234000:016x}", 30)
    machine.console("repl").expect("The machine is stopped", 30)


@pytest.mark.parametrize("vector", [16, 18, 19, 31])
def test_an_interrupt_at_the_vector_of_an_exception_is_none(monitor, vector):
    """The local APIC takes vectors from 16 on."""
    monitor.exec("import cpu, machine")
    before = monitor.eval("cpu.counters()['unclaimed_interrupts']")
    x2apic = monitor.eval("cpu.rdmsr(0x1b) >> 10 & 1")
    icr = 1 << 18 | vector  # self
    monitor.exec(f"cpu.wrmsr(0x830, {icr})" if x2apic else f"machine.mem32[0xfee00300] = {icr}")
    until(monitor, "cpu.counters()['unclaimed_interrupts']", before + 1)
