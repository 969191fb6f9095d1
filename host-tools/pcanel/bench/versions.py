"""What a bench ran with."""

import datetime
import re
import subprocess
from pathlib import Path

from pcanel.engines.bochs import Bochs
from pcanel.engines.bochs_programs import first
from pcanel.paths import BUILD, ROOT

_MPCONFIG = BUILD / "micropython/py/mpconfig.h"


def collect(engine: str, cpu: str) -> dict[str, str]:
    """Engine, CPU model and versions, for the `meta` of bench.json."""
    return {
        "engine": engine,
        "cpu": cpu,
        "bochs": first(Bochs.programs).version(),
        "micropython": _micropython(),
        "gcc": _said(["gcc", "-dumpfullversion"], r"(\S+)"),
        "linux": _kernel(),
        "commit": _said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], r"(\S+)"),
        "date": datetime.date.today().isoformat(),
    }


def _said(command: list[str], pattern: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else "unknown"


def _micropython() -> str:
    text = _MPCONFIG.read_text() if _MPCONFIG.is_file() else ""
    parts = [re.search(rf"MICROPY_VERSION_{part} (\d+)", text) for part in ("MAJOR", "MINOR", "MICRO")]
    return ".".join(part[1] for part in parts) if all(parts) else "unknown"


def _kernel() -> str:
    names = sorted(path.name for path in Path(BUILD / "guests/cloud/boot").glob("vmlinuz-*"))
    return names[-1].removeprefix("vmlinuz-") if names else "unknown"
