"""Linux and the real-time guest at once. The Linux shell is the one of tests/linux."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "linux"))
