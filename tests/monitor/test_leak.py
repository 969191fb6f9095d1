"""Guests made, run and destroyed at the prompt: memory and heap are back where they were.

A guest takes some 90 million ticks, so that the thousand of `make test-long` take ten minutes.
"""

import pytest
from bench import REAL
from pcanel.assemble import assemble

BATCH = 20
# Memory, VPIDs, links, windows, schedule: all that a guest has of the monitor.
LOOK = (
    "(monitor.pages.available, len(monitor.pages.free), len(monitor.vms), len(monitor._vpids),"
    " len(monitor.uarts._free), len(monitor.scheduler.machines), len(monitor.links.cables),"
    " len(monitor.windows.by_name))"
)
HEAP = 4096  # bytes that the heap may differ by: what the prompt itself keeps of a line

CYCLE = (
    """
def cycle(code, count):
    for i in range(count):
        linked = [{"uart": "com2", "to": "nobody:com2"}]
        window = [{"name": "w", "size": 0x1000, "gsi": 5}]
        vm = monitor.create({"name": "leak", "memory": 1 << 20, "protocol": "flat", "kernel": "k", "address": %d,
                             "console": "none", "links": linked, "shared": window}, {"k": code})
        vm.start()
        while vm.state == "running":
            time.sleep_ms(1)
        if vm.state != "halted" or vm.memory.read_u16(0x500) != 0x55AA:
            raise RuntimeError(repr(vm))
        vm.destroy()
def used():
    for _ in range(3):
        gc.collect()
    return gc.mem_alloc()
"""
    % REAL
)

REFUSED = (
    """
for i in range(%d):
    config = {"name": "no", "memory": 8 << 20, "protocol": "flat", "kernel": "k", "address": 0,
              "console": "none", "shared": [{"name": "w", "size": 1 << 29}]}
    try:
        monitor.create(config, {"k": b"1"})
    except MemoryError:
        continue
    raise RuntimeError("it was made")
"""
    % BATCH
)


@pytest.mark.parametrize("guests", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_guests_leave_nothing_behind(bench, guests):
    code = assemble("mov word ptr [0x500], 0x55AA; hlt", 16, REAL)
    bench.exec(CYCLE)
    bench.exec(f"cycle({code!r}, 3)", 120)  # what is made once, is made
    before = bench.eval(LOOK)
    heap = bench.eval("used()")
    for _ in range(guests // BATCH):
        bench.exec(f"cycle({code!r}, {BATCH})", 300)
    assert bench.eval(LOOK) == before
    after = bench.eval("used()")
    assert after - heap < HEAP, f"{after - heap} bytes of the heap are gone"


def test_a_guest_that_cannot_be_made_leaves_nothing_behind(bench):
    bench.exec(CYCLE)
    before, heap = bench.eval(LOOK), bench.eval("used()")
    bench.exec(REFUSED, 300)
    assert bench.eval(LOOK) == before
    assert bench.eval("used()") - heap < HEAP


def test_the_cpu_forgets_a_guest_that_cannot_be_made(bench, guest):
    """Its frame and its VMCS are somebody else's memory by the time that another vCPU is loaded."""
    other = guest("again: jmp again", shared=[{"name": "w", "size": 0x1000}])
    other.go()
    config = {"name": "no", "memory": 1 << 20, "protocol": "flat", "kernel": "k", "address": 0, "console": "none"}
    config["shared"] = [{"name": "w", "size": 0x2000}]  # refused when its vCPU is there
    printed = bench.exec(
        f"""
import uctypes
try:
    monitor.create({config!r}, {{"k": b"1"}})
except ValueError as error:
    print(error)
taken = [monitor.pages.take(4096) for _ in range(320)]
time.sleep_ms(50)
print([hpa for hpa in taken if uctypes.bytearray_at(hpa, 4096) != bytes(4096)])
for hpa in taken:
    monitor.pages.give(hpa)
"""
    )
    assert printed == "guest no: shared: w: 0x2000 bytes, but its other side has 0x1000\n[]\n"
