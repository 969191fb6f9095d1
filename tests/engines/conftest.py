"""Engines: suite.py and bench.py of other directories are imported by the tests beside this file."""

import sys
from pathlib import Path

for directory in ("guests/monitor", "monitor"):
    sys.path.insert(0, str(Path(__file__).parents[1] / directory))
