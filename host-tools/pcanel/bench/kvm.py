"""The bench's guests under KVM: Debian's kernel in Bochs (pcanel.outer), and in it kvmrun (host-tools/kvmrun)."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pcanel.bench import guest
from pcanel.errors import PcanelError
from pcanel.outer import Outer
from pcanel.paths import BUILD

KVMRUN = BUILD / "kvmrun/kvmrun"
_TIMEOUT = 300  # seconds
_MEMORY = 32  # MiB of the bench's guest
_PM_TIMER = 0x608  # the monitor's ACPI tables are in the guest's memory, kvmrun has the timer
_STATISTIC = re.compile(r"^kvm: (\w+) (\d+)$", re.MULTILINE)

# What the guest prints is kept until it has ended, so that the outer system's own console costs it nothing.
_SCRIPT = """
/kvmrun /machine > /printed
status=$?
cat /printed
exit $status
"""


def machine_file(target: Path, memory: int, protocol: str, files: list[Path], cmdline: str) -> None:
    """Writes what kvmrun takes: MiB of memory, protocol, kernel and perhaps initrd, command line."""
    words = [str(target), str(memory), protocol, *map(str, files), cmdline]
    done = subprocess.run(
        [sys.executable, "-m", "pcanel.bench.machine_file", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PcanelError(f"{files[0]}: no machine for KVM could be made of it\n{done.stderr}")


def run(machine: Path, cpu: str | None = None, memory: int = 1024, timeout: float = _TIMEOUT) -> str:
    """Runs a machine until it switches itself off; what it and kvmrun printed. Raises PcanelError."""
    files: Mapping[str, bytes | Path] = {"/kvmrun": KVMRUN, "/machine": machine}
    with Outer(files, _SCRIPT, memory=memory, cpu=cpu) as outer:
        result = outer.result(timeout)
    text = "\n".join(result.lines) + "\n"
    if result.status:
        raise PcanelError(f"kvmrun ended with status {result.status}\n{text}")
    return text


def statistics(text: str) -> dict[str, int]:
    """What KVM counted, of what run() has returned."""
    return {name: int(count) for name, count in _STATISTIC.findall(text)}


def rows(cpu: str | None = None, rounds: int = guest.ROUNDS) -> dict[str, guest.Row]:
    """All rows of the bench's guest."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        machine = Path(name) / "machine"
        machine_file(machine, _MEMORY, "multiboot", [guest.IMAGE], guest.cmdline(None, rounds, pm_timer=_PM_TIMER))
        text = run(machine, cpu)
    if not re.search(guest.DONE, text, re.MULTILINE):
        raise PcanelError(f"under KVM the guest did not come to its end\n{text}")
    return guest.parse(text)
