"""For all tests: what they share lies beside this file."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import vtx

# Files that take minutes, the longest first (docs/testing.md, "Time"): begun last, they would run beside idle CPUs.
LONG = (
    "port/test_micropython_suite.py",
    "pair/test_pair.py",
    "linux/test_linux_others.py",
    "linux/test_debian.py",
    "linux/test_linux_cloud.py",
    "linux/test_linux_disk.py",
    "nested/test_nested.py",
    "cli/test_cli_run.py",
    "guests/monitor/test_guests_cpu_models.py",
    "monitor/test_many.py",
    "guests/monitor/test_real_mode.py",
    "bench/test_bench.py",
    "guests/native/test_rtos.py",
    "monitor/test_hardening.py",
    "monitor/test_accounting.py",
    "monitor/test_hostile.py",
    "monitor/test_device_memory.py",
)


def pytest_configure():
    """An engine that cannot run guests ends the whole run at once, before anything waits for it."""
    reason = vtx.unusable()
    if reason:
        pytest.exit(reason, returncode=1)


def pytest_collection_modifyitems(items):
    """The long files go first. Within a file the order stays."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))
