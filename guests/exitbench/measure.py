# What the bench measures at the monitor's prompt; executed there. Each function prints one line: name and figures.
import gc
import time

import cpu

TURN_MS = 1000  # how long guests run for a figure
COLLECTIONS = 20
MADE = []


def report(name, figures):
    print(name, *figures)


def heap():
    """Bytes in use after a collection."""
    gc.collect()
    report("heap_in_use", (gc.mem_alloc(),))


def make(monitor, count, code):
    """Create so many small guests; the ticks of each, and what a guest takes of heap and of other memory."""
    ticks = []
    gc.collect()
    heap_before, pages_before = gc.mem_alloc(), monitor.pages.available
    for _ in range(count):
        config = {
            "name": "small%d" % len(MADE), "memory": 1 << 20, "protocol": "flat", "kernel": "code",
            "address": 0x7C00, "mode": "real", "console": "none",
        }  # fmt: skip
        start = cpu.rdtsc()
        vm = monitor.create(config, {"code": code})
        ticks.append(cpu.rdtsc() - start)
        MADE.append(vm)
    gc.collect()
    report("guest_create", ticks)
    report("guest_heap", ((gc.mem_alloc() - heap_before) // count,))
    report("guest_memory", ((pages_before - monitor.pages.available) // count - (1 << 20),))


def collect(name):
    """The pauses of the garbage collector, in ticks."""
    ticks = []
    for _ in range(COLLECTIONS):
        start = cpu.rdtsc()
        gc.collect()
        ticks.append(cpu.rdtsc() - start)
    report(name, ticks)


def share(name):
    """Let all started guests run; the monitor's ticks in a second of them."""
    start, before = cpu.rdtsc(), sum(vm.vcpu.guest_ticks for vm in MADE)
    time.sleep_ms(TURN_MS)
    elapsed = cpu.rdtsc() - start
    used = sum(vm.vcpu.guest_ticks for vm in MADE) - before
    report(name, ((elapsed - used) * cpu.tsc_hz // elapsed,))


def gaps():
    """When the guests did not run: (host's TSC before, behind) for each gap that they have noted."""
    for number, vm in enumerate(MADE):
        offset = vm.clock.from_host + vm.clock.skew
        for i in range(min(vm.memory.read_u32(0x7F00), 256)):
            at = 0x8000 + 16 * i
            report("gap", (number, vm.memory.read_u64(at) - offset, vm.memory.read_u64(at + 8) - offset))
