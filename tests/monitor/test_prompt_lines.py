"""Lines at the prompt make way for guests of priority above 0, and for no others; `with still()` for none."""

import metronome
import pytest
from bench import DATA

COUNTS = "again: inc qword ptr [0x200000]\njmp again"
LATE = 10_000  # ticks
FRESH = "".join(
    f"vm.memory.write_u64({DATA + 8 * word:#x}, {value})\n"
    for word, value in ((metronome.SKIP, 2), (metronome.LATEST, 0))
)


def during(ticking, lines):
    """(ticks of the latest interrupt, how many) while these lines run, without a wait of theirs."""
    printed = ticking.exec(
        f"{FRESH}before = vm.memory.read_u64({DATA:#x})\n{lines}\n"
        f"after = vm.memory.read_u64({DATA:#x})\nlatest = vm.memory.read_u64({DATA + 8 * metronome.LATEST:#x})\n"
        "print('result', latest, after - before)",
        600,
    )
    latest, count = printed.rpartition("result ")[2].split()
    return int(latest), int(count)


@pytest.fixture
def ticking(bench, guest):
    made = metronome.start(guest)
    bench.run(20)
    return made


def test_a_guest_above_runs_in_the_middle_of_a_line(bench, guest, ticking):
    lower = guest(COUNTS)
    lower.go()
    bench.exec(f"lower = vms[{lower.name!r}]")
    latest, count = during(ticking, "stood = lower.memory.read_u64(0x200000)\nfor i in range(60000):\n    pass")
    assert count > 20
    assert latest <= LATE
    assert bench.eval("stood != 0")


def test_a_guest_of_priority_0_stands_still(bench, guest, ticking):
    lower = guest(COUNTS)
    lower.go()
    bench.exec(
        f"lower = vms[{lower.name!r}]\nseen = [lower.memory.read_u64(0x200000)]\n"
        "for i in range(30000):\n    pass\nseen.append(lower.memory.read_u64(0x200000))"
    )
    before, after = bench.eval("seen")
    assert before == after > 0


def test_tables_that_are_printed_make_nobody_late(ticking):
    latest, count = during(ticking, "for i in range(40):\n    print(vms)\n    sched.top()\n    print(monitor.links)")
    assert count > 20
    assert latest <= LATE


@pytest.mark.parametrize(
    "line",
    ["[vms['%s'].used() for i in range(50)]", "[__import__('vmm.network.offload') for i in range(50)]"],
    ids=["used", "import"],
)
def test_what_tables_and_imports_are_made_of_makes_nobody_late(ticking, line):
    """Numbers of sched.top(), and names that are looked up: 20,000 ticks without a branch once."""
    latest, count = during(ticking, "for again in range(4):\n    " + line.replace("%s", ticking.name))
    assert count > 3
    assert latest <= LATE


@pytest.mark.parametrize(
    "line",
    [
        "sorted(i * 7919 % 1009 for i in range(1000))",
        "list(range(4000))",
        "print(repr('long ' * 300))",
        "compile('\\n'.join(['def f(a, b):\\n  c = a + len([b, 1])\\n  return g(c, h.i, b=c)'] * 40), 'x', 'exec')",
        "vms['%s'].vcpu.registers(), vms['%s'].exit_counts()",
        "str(bytearray(b'\\xc3\\xa4' * 10000), 'utf-8')",
        "len('\xe4' * 20000)",
        "print('x' * 8000)",
        "[bytearray(0x10000) for i in range(9)]",
    ],
    ids=["sort", "list", "repr", "compile", "registers", "decode", "length", "long_line", "long_object"],
)
def test_what_c_does_in_a_line_makes_nobody_late(ticking, line):
    """MicroPython's own functions, which no bytecode interrupts."""
    latest, count = during(ticking, "for again in range(4):\n    " + line.replace("%s", ticking.name))
    assert count > 3
    assert latest <= 2 * LATE


@pytest.mark.parametrize(
    "line",
    [
        "__import__('vmm.insight.table', None, None, ['plain']).plain('x' * 8000)",
        "__import__('vmm.disks.memory', None, None, ['x']).MemoryDisk(0, 4 << 30, 'scratch', monitor.pages).close()",
    ],
    ids=["guests_text", "scratch_disk"],
)
def test_loops_in_viper_make_nobody_late(ticking, line):
    latest, count = during(ticking, "for again in range(4):\n    " + line)
    assert count > 3
    assert latest <= LATE


def test_a_heap_with_holes_makes_nobody_late(ticking):
    """A list that grows looks for room past all the holes that are too small for it."""
    ticking.exec(
        "holes = [bytearray(200) for i in range(8000)]\nfor i in range(0, 8000, 2):\n    holes[i] = None\n"
        "import gc\ngc.collect()"
    )
    try:
        latest, count = during(ticking, "for again in range(12):\n    list(i for i in range(1100))")
    finally:
        ticking.exec("del holes\ngc.collect()")
    assert count > 5
    assert latest <= LATE


def test_still_holds_everything(bench, ticking):
    ticking.exec(
        f"{FRESH}with still():\n    before = vm.memory.read_u64({DATA:#x})\n    for i in range(30000):\n        pass\n"
        f"    time.sleep_ms(20)\n    after = vm.memory.read_u64({DATA:#x})"
    )
    assert bench.eval("before == after")
    before = ticking.word(metronome.COUNT)
    bench.run(20)
    assert ticking.word(metronome.COUNT) > before + 10


def test_still_ends_with_an_exception(bench, ticking):
    assert "ZeroDivisionError" in bench.refused("with still():\n    with still():\n        1 // 0")
    before = ticking.word(metronome.COUNT)
    bench.run(20)
    assert ticking.word(metronome.COUNT) > before + 10


def test_guests_are_made_and_destroyed_beside_it(guest, ticking):
    lower = guest(COUNTS)
    ticking.exec(f"lower = vms[{lower.name!r}]\nmade = lower.config, lower.blobs")
    latest, count = during(
        ticking,
        "for i in range(2):\n    lower.destroy()\n    lower = monitor.create(*made)\n    lower.start()",
    )
    assert count > 100
    assert latest <= 4 * LATE  # a dictionary that grows takes so long
    assert lower.state == "running"


def test_its_own_table_is_changed_beside_it(bench, guest):
    ticking = metronome.start(guest, "push rax\nmov eax, 0x777\nvmcall\npop rax")
    bench.run(10)
    latest, count = during(
        ticking,
        "hits = 0\ndef count(vcpu):\n    global hits\n    hits += 1\n    return HANDLED\n"
        "for i in range(10):\n    policy = vm.on('vmcall', number=0x777)(count)\n"
        "    other = vm.on('cpuid')(count)\n    for j in range(3000):\n        pass\n"
        "    vm.pause()\n    vm.resume()\n    policy.detach()\n    other.detach()",
    )
    assert count > 10
    assert bench.eval("hits") > 10
    assert ticking.state in ("running", "halted")
    before = ticking.word(metronome.COUNT)
    bench.run(20)
    assert ticking.word(metronome.COUNT) > before + 10


def test_a_line_that_goes_on_after_a_collection_is_interrupted(ticking):
    """The idle hook collects what the line has left, and returns without a turn: the sleep is over."""
    latest, count = during(
        ticking,
        "before = __import__('cpu').counters()['collections']\nlen([bytes(4000) for i in range(1500)])\n"
        f"time.sleep_ms(1)\nassert __import__('cpu').counters()['collections'] > before\n{FRESH}"
        f"before = vm.memory.read_u64({DATA:#x})\nfor i in range(60000):\n    pass",
    )
    assert count > 20
    assert latest <= LATE


def test_lines_typed_ahead_do_not_fill_the_heap(bench, ticking):
    """No collection has time between them but one that is due, and the heap's last block is not waited for."""
    ticking.exec(FRESH + "words = vm.memory")
    console = bench.monitor.console("repl")
    console.send("\r" + "sum(len([i])for i in range(15000))\r" * 6)
    console.send(f"print('late', words.read_u64({DATA + 8 * metronome.LATEST:#x}))\r")
    assert int(console.expect(r"^late (\d+)\r?\n", 120).group(1)) <= LATE


def test_a_busy_guest_above_leaves_the_line_its_part(bench, guest):
    busy = guest(COUNTS, priority=5)
    busy.go()
    assert bench.exec("for i in range(3000):\n    pass\nprint('done')").strip() == "done"
    before = busy.word()
    bench.exec("for i in range(3000):\n    pass")
    assert busy.word() > before


def test_ctrl_c_ends_a_line_beside_a_busy_guest(bench, guest):
    guest(COUNTS, priority=5).go()
    console = bench.monitor.console("repl")
    console.send("\r\nexec('print(1 + 1 == 2)\\nwhile True: pass')\r")
    console.expect(r"^True", 60)  # a Ctrl-C that comes before it runs is the prompt's
    console.send("\x03")
    console.expect(r"KeyboardInterrupt", 60)
