"""Puts the repository root and the MicroPython shims (`shim/`) on sys.path."""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).resolve().parent
for path in (HERE.parents[1], HERE / "shim", HERE):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

from support import Memory  # noqa: E402  (needs the path above)


@pytest.fixture
def memory():
    """16 MiB of zeroed guest memory."""
    return Memory(16 << 20)


# The machine is shared: how long an example takes says nothing.
settings.register_profile("pcanel", deadline=None)
settings.load_profile("pcanel")
