"""$PCANEL_ENGINE, which `make test ENGINE=...` sets: an engine without VT-x ends the run at once."""

import os
import subprocess
import sys

import pytest
from pcanel.engines.host import nested_vmx
from pcanel.paths import ROOT


def collect(engine):
    words = [sys.executable, "-m", "pytest", "-q", "--collect-only", "tests/monitor/test_console.py"]
    environment = {**os.environ, "PCANEL_ENGINE": engine}
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(nested_vmx().usable, reason="this host offers nested VMX")
def test_qemu_without_vt_x():
    done = collect("qemu")
    assert done.returncode == 1
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(lines) == 1
    assert "ENGINE=qemu: no guest can run: " in lines[0]


def test_an_unknown_engine():
    done = collect("vax")
    assert done.returncode == 1
    assert "ENGINE=vax: there are auto, bochs, bochs27, qemu" in done.stdout + done.stderr


def test_bochs():
    assert collect("bochs").returncode == 0
