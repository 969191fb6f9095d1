"""Debian's PREEMPT_RT kernel, unmodified, with cyclictest from rt-tests."""

import re

import inside
import pytest
import view
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from shell import Shell

LOOPS = 2000


@pytest.mark.long
def test_cyclictest_runs_to_its_summary():
    with Monitor(engine=vtx.engine(), guests=[ROOT / "guests/rt-linux.toml"]) as monitor:
        shell = Shell(monitor, "rt-linux").wait()
        assert "PREEMPT_RT" in shell.run("uname -v")
        assert shell.run("cat /sys/kernel/realtime") == "1\n"
        report = shell.run(f"cyclictest --quiet --priority=80 --interval=1000 --loops={LOOPS}", 600)
        row = re.search(r"^T: 0 .* C: +(\d+) Min: +(\d+) Act: +\d+ Avg: +(\d+) Max: +(\d+)", report, re.M)
        assert row, report
        cycles, least, mean, most = map(int, row.groups())
        assert cycles == LOOPS
        assert least <= mean <= most < 20000  # microseconds; a wake-up that is lost takes longer
        assert shell.troubles() == []
        inside.check(shell, "rt-linux")
        view.check_stacks(shell, "rt-linux")
        view.check_processes(shell, "rt-linux")
        view.check_sockets(shell, "rt-linux")
        print(report)
