"""The monitor under QEMU with KVM and nested VMX, all of it in Bochs (the engine `nested`).

Reports the ticks of each test that names its monitor, and on failure the last lines of
its consoles.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "guests/monitor"))
sys.path.insert(0, str(Path(__file__).parents[1] / "linux"))

_NOW = "__import__('cpu').rdtsc()"


@pytest.fixture
def ticks(request, record_property):
    """ticks(monitor): count from here to the test's end by that monitor's TSC."""
    counted = []

    def count(monitor):
        request.node.nested = monitor
        counted.append((monitor, monitor.eval(_NOW)))
        return monitor

    yield count
    for monitor, start in counted:
        if monitor.failure() is None:
            record_property("ticks", monitor.eval(_NOW) - start)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    monitor = getattr(item, "nested", None)
    if report.failed and monitor:
        report.sections.append(("consoles", monitor.tails()))
    return report


def pytest_terminal_summary(terminalreporter):
    lines = {
        report.nodeid: value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "ticks"
    }
    if lines:
        terminalreporter.section("ticks under nested VMX, in millions")
    for test, value in lines.items():
        terminalreporter.line(f"{value / 1e6:10.1f}  {test}")
