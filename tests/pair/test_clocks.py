"""Time: Linux and the real-time guest, both at work, against the engine's own clock, the host's TSC."""

import re
import time

import pytest
import vtx
from both import guest_files
from pcanel.monitor import Monitor
from rtos import Rtos
from shell import Shell

TICK = 1193 / 1193182  # seconds: the divisor of the real-time guest's 1 kHz
ALLOWED = 0.001
CONSOLE = 0x3F8
LIMIT = 3600  # seconds; a busy one of the guests' takes Bochs twenty
WORK = (
    "while :; do dd if=/dev/zero of=/tmp/file bs=64k count=16 2> /dev/null; "
    "for i in 1 2 3 4 5; do /bin/true; done; dmesg > /tmp/messages; done"
)
# Each guest's clock is in a line that it prints: when the mark in it goes out, the engine's is looked at.
MARKS = {"linux": "^", "rtos": ","}
STAMPS = f"""
import cpu
stamps = {{}}
def watch(vm, mark):
    @vm.on('io', port={CONSOLE:#x}, write=True)
    def stamp(vcpu):
        if vcpu.rax & 0xFF == mark:
            stamps[vm.name] = cpu.rdtsc()
for name, mark in {MARKS!r}.items():
    watch(vms[name], ord(mark))
"""
# No fork in between.
READ = f"read first rest < /proc/uptime; echo $first{MARKS['linux']}; read last rest < /proc/uptime; echo $last"
UNCERTAIN = 0.1  # seconds
RESOLUTION = 0.01  # of /proc/uptime, seconds
PRINTING = 0.01  # from the look at the real-time guest's clock to the mark, seconds


class Clocks:
    """A clock is read as (at least, at most, the engine's at least, at most), in seconds."""

    def __init__(self, monitor):
        self.monitor = monitor
        self.hz = monitor.eval("__import__('cpu').tsc_hz")
        self.rtos = Rtos(monitor).wait()
        self.linux = Shell(monitor, "linux").wait()
        monitor.exec(STAMPS)

    def stamp(self, name):
        return self.monitor.eval(f"stamps[{name!r}]") / self.hz

    def of_linux(self):
        first, last = map(float, self.linux.run(READ, LIMIT).split(MARKS["linux"]))
        return first, last + RESOLUTION, self.stamp("linux"), self.stamp("linux")

    def of_rtos(self):
        ticks = int(re.search(r"^(\d+) ticks,", self.rtos.run("tick"), re.M)[1])
        return ticks * TICK, (ticks + 1) * TICK, self.stamp("rtos") - PRINTING, self.stamp("rtos")

    def lost(self):
        """Ticks that the real-time guest has missed; None while it still measures."""
        line = re.search(r"(-?\d+) lost(; measuring)?", self.rtos.run("stats"))
        return None if line[2] else int(line[1])


@pytest.fixture(scope="module")
def clocks(tmp_path_factory):
    with Monitor(engine=vtx.engine(), guests=guest_files(tmp_path_factory.mktemp("clocks"), {})) as monitor:
        yield Clocks(monitor)


def disagreement(name, begin, end):
    """By what part of the time that passed a clock is off at least, whatever happened while it was read."""
    least, most = end[0] - begin[1], end[1] - begin[0]
    engine_least, engine_most = end[2] - begin[3], end[3] - begin[2]
    print(f"{name}: {least:.3f} to {most:.3f} s, engine {engine_least:.3f} to {engine_most:.3f} s")
    assert most - least + engine_most - engine_least < UNCERTAIN, "not read exactly enough to say anything"
    return max(least - engine_most, engine_least - most, 0) / engine_least


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.long)])
def test_both_clocks_agree_with_the_engines(clocks, seconds):
    deadline = time.monotonic() + LIMIT
    while clocks.lost() is None:
        assert time.monotonic() < deadline, "the real-time guest still measures"
        clocks.rtos.run("sleep 1")
    clocks.linux.run(f"sh -c '{WORK}' & work=$!")
    begin = clocks.of_linux(), clocks.of_rtos()
    busy = clocks.monitor.eval("vms['linux'].vcpu.guest_ticks")
    clocks.rtos.run(f"sleep {seconds}", LIMIT)
    busy = (clocks.monitor.eval("vms['linux'].vcpu.guest_ticks") - busy) / clocks.hz
    end = clocks.of_linux(), clocks.of_rtos()
    clocks.linux.run("kill $work")
    assert busy > seconds / 2, "Linux was not busy"
    for name, at_begin, at_end in zip(("linux", "rtos"), begin, end, strict=True):
        assert disagreement(name, at_begin, at_end) <= ALLOWED
    assert clocks.lost() == 0
    assert clocks.linux.troubles() == []
