"""Time over a minute of work, the real-time guest at its 1 kHz; test_pair.py has less of both."""

import pytest
import vtx
from both import guest_files
from clocks import ALLOWED, Clocks
from pcanel.monitor import Monitor
from rtos import Rtos
from shell import Shell


@pytest.mark.long
def test_both_clocks_agree_with_the_engines_for_a_minute(tmp_path):
    with Monitor(engine=vtx.engine(), guests=guest_files(tmp_path, {})) as monitor:
        clocks = Clocks(monitor, Rtos(monitor).wait(), Shell(monitor, "linux").wait(), tick_hz=1000)
        clocks.agree(60, 2 * ALLOWED)
