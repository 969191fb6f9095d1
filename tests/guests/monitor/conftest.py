"""The small guests under the monitor: suite.py is imported by the tests beside it.

$PCANEL_ELF names another image than the build's.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from pcanel.paths import ROOT

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def images():
    subprocess.run(["make", "-s", "-C", ROOT / "guests/tests"], check=True)
