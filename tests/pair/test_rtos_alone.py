"""The real-time guest by itself under the monitor, from its own file: its tests of itself, its load, its two ends."""

import re

import pytest
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from pcanel.repl import RemoteError
from rtos import LIMIT, Rtos


class Alone:
    def __init__(self, monitor):
        self.monitor = monitor
        self.rtos = Rtos(monitor).wait()

    def vm(self, attribute):
        return self.monitor.eval(f"vms['rtos'].{attribute}")


@pytest.fixture(scope="module")
def alone():
    with Monitor(engine=vtx.engine(), guests=[ROOT / "guests/rtos.toml"]) as monitor:
        yield Alone(monitor)


def test_its_kernel_passes_its_own_tests(alone):
    report = alone.rtos.run("test")
    assert re.search(r"^SUMMARY: \d+ tests, 0 failures, 0 skipped$", report, re.M), report


_STUDENTS = """
from vmm.insight.layout import Layout
from vmm.insight.system import System, Task
CONTROL = Layout("ptr sp @ 8; u32 state; u8 priority @ 0x11; char name[12] @ 0x14; u8 rest[592];", word=4)
class Students(System):
    word = 4
    columns = ("PRI",)
    def tasks(self):
        for control in self.array(CONTROL, "tasks", 24):
            if control.state:
                yield Task(control.gva_, control.name, str(control.state), (control.priority,))
    def saved(self, task):
        sp = self.struct(CONTROL, task.key).sp
        return self.number(sp + 16), sp + 20
"""


def test_its_tasks_are_seen_from_outside(alone):
    """As its own command `i` lists them; names in stacks are those of its ELF file."""
    own = {}
    for line in alone.rtos.run("i").splitlines()[1:]:
        name, *words = line.split()
        if len(words) == 6:
            own[name] = words
    seen = {row[0]: row for row in alone.monitor.eval("list(vms['rtos'].tasks())")}
    assert set(seen) == {*own, "idle"} and len(own) > 3
    for name, (priority, base, state, stack, switches, _) in own.items():
        assert seen[name][2:4] == (int(priority), int(base)), seen[name]
        assert seen[name][4] >= int(stack) - 64 and seen[name][5] >= int(switches), seen[name]
        assert seen[name][1] == state or "running" in (seen[name][1], state) or "ready" in (seen[name][1], state)
    assert [row[1] for row in seen.values()].count("running") == 1
    for _ in range(5):  # it stands still meanwhile, though no line at the prompt keeps it from running
        assert not re.search(r"\d{6} ticks", alone.vm("tasks().__repr__()"))
    assert re.match(r"^NAME +STATE +PRI +BASE +STACK +SWITCHES +WAITS\n", alone.vm("tasks().__repr__()"))

    stack = alone.vm("system.stack('tFilter').__repr__()")
    print(stack)
    assert stack.startswith("task tFilter of rtos (pend), by a scan of the stack\n#0  0x")
    assert "wait_" in stack and "queue_receive" in stack and "filter" in stack
    with pytest.raises(RemoteError, match="KeyError: no task tNone; there are "):
        alone.vm("system.stack('tNone')")


def test_a_view_of_ones_own(alone):
    alone.monitor.exec(_STUDENTS + "vms['rtos'].system = Students")
    wanted = {("tSensor", "2", 4), ("tFilter", "3", 12)}
    for _ in range(20):  # either may run just now
        rows = set(alone.monitor.eval("list(vms['rtos'].tasks())"))
        if wanted <= rows:
            break
    assert wanted <= rows
    assert "queue_receive" in alone.vm("system.stack('tFilter').__repr__()")
    with pytest.raises(RemoteError, match="ValueError: vm.system = 5: a class"):
        alone.monitor.exec("vms['rtos'].system = 5")
    alone.monitor.exec("vms['rtos'].system = None")


def test_its_load_takes_what_is_idle(alone):
    assert use(alone, "idle") > 80
    alone.rtos.run("load 1")
    assert use(alone, "tLoad") > 80
    alone.rtos.run("load 0")
    assert use(alone, "idle") > 80


def use(alone, name):
    """Per cent of the CPU over a second."""
    return float(re.search(rf"^{name} +(\d+\.\d) %$", alone.rtos.run("spy 1"), re.M)[1])


def test_reboot_boots_it_anew(alone):
    starts = alone.vm("starts")
    alone.rtos.start("reboot")
    alone.rtos.wait()
    assert alone.vm("starts") == starts + 1
    assert alone.vm("state") in ("running", "halted")


def test_poweroff_switches_it_off(alone):
    alone.rtos.start("poweroff")
    alone.monitor.console("repl").expect(r"\[rtos\] powered off by the guest", LIMIT)
    assert alone.vm("state") == "off"
