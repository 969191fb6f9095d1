"""Where things are: the package is installed editable, so the tree is around it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
ELF = BUILD / "pcanel.elf"
ISO = BUILD / "pcanel.iso"


def runs_directory() -> Path:
    """The directory that holds one directory for each run; $PCANEL_RUNS moves it."""
    return Path(os.environ.get("PCANEL_RUNS") or BUILD / "run")
