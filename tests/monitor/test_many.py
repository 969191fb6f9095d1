"""As many guests as there can be: all run beside a prompt that answers, one more is refused, and all comes back.

A guest takes some 20 million ticks to make and 116 KiB of the heap, which is what ends the guests where
the machine's memory does not.
"""

import time

import metronome
import pytest
import vtx
from bench import REAL, Bench
from pcanel.assemble import assemble
from pcanel.monitor import Monitor
from test_leak import HEAP, LOOK

WORD = 0x500
HALT = assemble("again: hlt; jmp again", 16, REAL)
SPIN = assemble(f"again: inc dword ptr [{WORD:#x}]; jmp again", 16, REAL)
BATCH = 20
TABLES = 160 << 10  # bytes: tables of the monitor's stay as large as they were
MANY = 40
LATE = 1000  # ticks; with a look at each of them first it was 2,300 beside 50, 11,650 beside 100
ANSWER = 60  # seconds
FULL = "MemoryError: guest one_more: %d guests fill the monitor's heap; the option heap= makes it larger"

WORDS = f"""
import gc, cpu
def make(name, code={SPIN!r}):
    config = {{"name": name, "memory": 1 << 20, "protocol": "flat", "kernel": "k", "address": {REAL}, "console": "none",
              "links": [{{"uart": "com2", "to": "nobody:com2"}}] if name == "one_more" else []}}
    return monitor.create(config, {{"k": code}})
def more(count, *code):
    for _ in range(count):
        make("m%d" % len(vms), *code).start()
def words():
    return [vm.memory.read_u32({WORD:#x}) for vm in vms.values()]
def used():
    for _ in range(3):
        gc.collect()
    return gc.mem_alloc()
"""


@pytest.fixture
def boot():
    monitors = []

    def boot(options, memory):
        monitors.append(Monitor(engine=vtx.engine(), memory=memory, cmdline=options))
        monitors[-1].start()
        monitors[-1].wait_booted()
        bench = Bench(monitors[-1])
        bench.exec(WORDS)
        return bench

    yield boot
    for monitor in monitors:
        monitor.stop()


def fill(bench):
    """Guests up to the limit, in lines of some, so that those that are there run in between."""
    while True:
        try:
            bench.exec(f"more({BATCH})", 600)
        except Exception as error:
            return str(error).splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "memory", "least"),
    [
        ("heap=6M", 256, 37),
        pytest.param("", 1024, 110, marks=pytest.mark.long),
        pytest.param("heap=42M", 1024, 300, marks=pytest.mark.long),
    ],
    ids=["small_heap", "default_heap", "larger_heap"],
)
def test_as_many_guests_as_there_can_be(boot, options, memory, least):
    bench = boot(options, memory)
    bench.exec("make('first').destroy()")  # what is made once, is made
    before, heap = bench.eval(LOOK), bench.eval("used()")
    fill(bench)
    count = bench.eval("len(vms)")
    print(f"{count} guests; heap (used, free): {bench.eval('(used(), gc.mem_free())')}")
    assert count >= least

    full, filled = bench.eval(LOOK), bench.eval("used()")
    for _ in range(3):
        assert bench.refused("make('one_more')") == FULL % count
    assert bench.eval(LOOK) == full
    assert bench.eval("used()") - filled < HEAP

    counted = bench.eval("words()")
    begin = time.monotonic()
    assert bench.eval("6 * 7") == 42
    assert time.monotonic() - begin < ANSWER
    bench.exec(f"time.sleep_ms({40 * count})", 600)  # four slices each
    assert all(now > then for now, then in zip(bench.eval("words()"), counted, strict=True))
    assert bench.eval("[vm.name for vm in vms.values() if vm.state != 'running']") == []

    for name in ("m3", "m7"):  # the place of one that goes is another's
        bench.exec(f"vms[{name!r}].destroy()")
        bench.exec(f"make({name!r}).start()")
    assert bench.refused("make('one_more')") == FULL % count
    bench.exec("for vm in list(vms.values()): vm.destroy()\ndel vm", 600)
    assert bench.eval(LOOK) == before
    print(f"{bench.eval('used()') - heap} bytes of heap more than before")
    assert bench.eval("used()") - heap < TABLES
    bench.exec("make('last').start()")
    assert bench.eval("wait(vms['last'], lambda: words()[0])")


def test_a_guest_above_many_others_is_not_late(boot):
    """Who goes before it is known without a look at those that do not."""
    bench = boot("", 256)
    bench.exec(f"more({MANY}, {HALT!r})", 600)
    ticks = metronome.start(bench.guest, priority=20)
    late = metronome.latest(ticks, 300)
    print(f"{MANY} others: {late} ticks late at most")
    assert ticks.word(metronome.COUNT) > 100
    assert late <= LATE
    assert bench.eval("[vm.state for vm in vms.values()].count('halted')") >= MANY
