"""For all tests: what they share lies beside this file."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import vtx  # noqa: E402  (needs the path above)


def pytest_configure():
    """An engine that cannot run guests ends the whole run at once, before anything waits for it."""
    reason = vtx.unusable()
    if reason:
        pytest.exit(reason, returncode=1)
