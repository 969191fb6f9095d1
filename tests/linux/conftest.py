"""Linux guests: shell.py is imported by the tests beside it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from login import log_in


@pytest.fixture(scope="module")
def console(monitor):
    """Of the Debian system from its own disk that the module's `monitor` runs: root has logged in."""
    console = monitor.console(monitor.names[1])
    log_in(console)
    return console
