"""The real-time guest by itself under the monitor, from its own file: its tests of itself, its load, its two ends."""

import re

import pytest
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
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
