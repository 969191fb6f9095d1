"""The bench's guests under KVM: Debian's kernel in Bochs (pcanel.outer), and in it kvmrun (host-tools/kvmrun)."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pcanel.bench import conditions, guest
from pcanel.errors import PcanelError
from pcanel.outer import Outer
from pcanel.paths import BUILD

KVMRUN = BUILD / "kvmrun/kvmrun"
_TIMEOUT = 300  # seconds
_MEMORY = 32  # MiB of the bench's guest
_PM_TIMER = 0x608  # the monitor's ACPI tables are in the guest's memory, kvmrun has the timer
_USER = {
    row: f"{row}_user" for row in ("rdmsr", "wrmsr", "int3", "hidden_nop", "hidden_push")
}  # that user space answers
_STATISTIC = re.compile(r"^kvm: (\w+) (\d+)$", re.MULTILINE)

# What the guest prints is kept until it has ended, so that the outer system's own console costs it nothing.
_SCRIPT = """
/kvmrun /machine > /printed
status=$?
if [ -e /user ]; then
    /kvmrun -u /user >> /printed || status=$?
fi
if [ -e /second ]; then
    /kvmrun /second >> /printed || status=$?
fi
cat /printed
exit $status
"""


def machine_file(target: Path, memory: int, protocol: str, files: list[Path], cmdline: str, cpus: int = 1) -> None:
    """Writes what kvmrun takes: MiB of memory, protocol, kernel and perhaps initrd, command line."""
    words = [str(target), str(memory), str(cpus), protocol, *map(str, files), cmdline]
    done = subprocess.run(
        [sys.executable, "-m", "pcanel.bench.machine_file", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PcanelError(f"{files[0]}: no machine for KVM could be made of it\n{done.stderr}")


def run(
    machine: Path,
    cpu: str | None = None,
    memory: int = 1024,
    timeout: float = _TIMEOUT,
    user: Path | None = None,
    second: Path | None = None,
) -> str:
    """Runs a machine until it switches itself off; what it and kvmrun printed. Raises PcanelError.

    user: another machine behind it, whose MSRs and breakpoints are answered in user space; second: one more.
    """
    files: dict[str, bytes | Path] = {"/kvmrun": KVMRUN, "/machine": machine}
    if user:
        files["/user"] = user
    if second:
        files["/second"] = second
    with Outer(files, _SCRIPT, memory=memory, cpu=cpu) as outer:
        result = outer.result(timeout)
    text = "\n".join(result.lines) + "\n"
    if result.status:
        raise PcanelError(f"kvmrun ended with status {result.status}\n{text}")
    return text


def statistics(text: str) -> dict[str, int]:
    """KVM's counts, from what run() has returned."""
    return {name: int(count) for name, count in _STATISTIC.findall(text)}


def rows(cpu: str | None = None, rounds: int = guest.ROUNDS, names: list[str] | None = None) -> dict[str, guest.Row]:
    """All rows of the bench's guest, or those of these names, and the variants that have a peer."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        machine, user, second = (Path(name) / part for part in ("machine", "user", "second"))
        for target, wanted, cpus in (
            (machine, names, 1),
            (user, list(_USER), 1),
            (second, list(conditions.SECOND_ROWS), 2),
        ):
            more = {"breakpoints": 1} if target is user else {}
            options = guest.cmdline(wanted, rounds, pm_timer=_PM_TIMER, cpus=cpus, **more)
            machine_file(target, _MEMORY, "multiboot", [guest.image()], options, cpus)
        text = run(machine, cpu, user=user, second=second)
    parts = re.split(guest.DONE, text, flags=re.MULTILINE)
    if len(parts) != 4:  # what follows the third is kvmrun's
        raise PcanelError(f"under KVM the guest did not come to its end\n{text}")
    found = guest.parse(parts[0])
    found.update((_USER[row], figures) for row, figures in guest.parse(parts[1]).items())
    found.update(guest.parse(parts[2]))
    return conditions.of_any_monitor(found) | conditions.peers(found)
