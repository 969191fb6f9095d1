"""How long Debian's cloud kernel takes from its entry to its first process: natively, under the monitor, under KVM.

The first process (guests/exitbench/first.c) says what the TSC is. The kernel's entry is known by the guest's own TSC
under the two monitors, and by a breakpoint of Bochs's debugger natively. Initramfs, command line and memory are the
same each time.
"""

import ast
import re
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pcanel.bench import kvm
from pcanel.bench.bare import Bare
from pcanel.bench.monitored import UNMITIGATED
from pcanel.engines.bochs import BochsDebugger
from pcanel.engines.choose import choose
from pcanel.errors import InputError, PcanelError
from pcanel.guest.initramfs import Archive
from pcanel.image import make_linux_iso
from pcanel.monitor import Monitor
from pcanel.paths import BUILD

_VMLINUX = BUILD / "guests/cloud.vmlinux"
_BZIMAGE = BUILD / "guests/cloud.bzImage"
_FIRST = BUILD / "guests/exitbench/first"
_CMDLINE = "console=ttyS0 quiet tsc_early_khz=100000 tsc=reliable nokaslr"
_MEMORY = 256  # MiB
_ENTRY = 0x1000000  # of both, vmlinux and the unpacking code that GRUB starts
_TIMEOUT = 600  # seconds
_SLEEP = 60  # seconds of the monitor's time, which flies once the guest is off
_INIT = re.compile(r"first: init at tsc (\d+)")
_STOP = re.compile(r"^Next at t=(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Boot:
    """Ticks from entry to first process; the exits meanwhile by reason, and what they took where that is known."""

    ticks: int
    exits: dict[str, int] = field(default_factory=dict)
    exit_ticks: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All exits. KVM counts them by itself; by reason it counts only a few."""
        return self.exits.get("exits", sum(self.exits.values()))

    @property
    def monitor(self) -> int:
        """The ticks of all exits, as far as they are known."""
        return sum(self.exit_ticks.values())


class _Stopping(BochsDebugger):
    """Bochs that notes when the kernel's entry is reached: twice, for GRUB puts the unpacking code there too."""

    def debugger_script(self) -> str:
        return f"pb {_ENTRY:#x}\nc\nc\nd 1\nc\n"


def initrd() -> bytes:
    """An initramfs with the first process and its console."""
    if not _FIRST.is_file():
        raise InputError(f"{_FIRST}: no such file (make guests builds it)")
    archive = Archive()
    archive.add("dev", stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("init", stat.S_IFREG | 0o755, _FIRST.read_bytes())
    return archive.finish()


def native(cpu: str | None = None) -> Boot:
    """On the engine itself, from the bzImage; counted from where the unpacked kernel begins."""

    def medium(iso: Path) -> None:
        make_linux_iso(_BZIMAGE, [initrd()], iso, _CMDLINE)

    with Bare(medium, cpu, _MEMORY, engine=_Stopping) as machine:
        came = _came(machine.console.expect(_INIT.pattern + r"\s", _TIMEOUT)[0].decode())
        stops = _STOP.findall(machine.engine.log.read_text(errors="replace"))
    if len(stops) != 3:  # at the start, then twice at the breakpoint
        raise PcanelError(f"the kernel's entry was reached {len(stops) - 1} times, not twice")
    return Boot(came - int(stops[-1]))


def monitored(cpu: str | None = None, cpus: int = 1) -> Boot:
    """Under the monitor, from the vmlinux, with so many processors."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        (Path(name) / "initrd").write_bytes(initrd())
        file = Path(name) / "linux.toml"
        file.write_text(
            f'name = "linux"\nmemory = "{_MEMORY}M"\nprotocol = "linux"\nkernel = "{_VMLINUX}"\n'
            f'initrd = "initrd"\ncmdline = "{_CMDLINE}"\nautostart = false\ncpus = {cpus}\n'
        )
        monitor = Monitor(cpu=cpu, guests=[file], cmdline=UNMITIGATED)
        monitor.choice = choose("bochs")
        with monitor:
            printed = monitor.exec(
                "import time\nvm = vms['linux']\nvm.start()\nprint(vm.clock.now() + vm.clock.skew)\n"
                f"time.sleep({_SLEEP})\nprint(vm.exit_counts())",
                _TIMEOUT,
            )
            came = _came(monitor.console("linux").text())
    lines = printed.strip().split("\n")  # between the first and the last, what the monitor says of the guest
    counts = ast.literal_eval(lines[-1])
    exits = {name: count for name, (count, _) in counts.items()}
    return Boot(came - int(lines[0]), exits, {name: ticks for name, (_, ticks) in counts.items()})


def under_kvm(cpu: str | None = None, cpus: int = 1) -> Boot:
    """Under KVM, from the vmlinux, with so many processors: a thread each, all on Bochs's one CPU."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        archive = Path(name) / "initrd"
        archive.write_bytes(initrd())
        machine = Path(name) / "machine"
        kvm.machine_file(machine, _MEMORY, "linux", [_VMLINUX, archive], _CMDLINE, cpus)
        text = kvm.run(machine, cpu, timeout=_TIMEOUT)
    counts = kvm.statistics(text)
    return Boot(_came(text) - counts.pop("entered_at"), {name: counts[name] for name in counts if "exits" in name})


def _came(text: str) -> int:
    match = _INIT.search(text)
    if not match:
        raise PcanelError(f"Linux did not come to its first process\n{text[-2000:]}")
    return int(match[1])
