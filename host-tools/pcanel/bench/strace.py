"""What tracing the system calls of `ls -lR /usr` costs: from below (vmm/recipes/strace.py) and by Debian's own strace.

One guest, Debian's cloud kernel, in which ls (busybox's) runs alone, under the recipe, and under strace. The tree is
that of a few Debian packages, its files empty. Ticks are those of the guest's TSC from the program's fork to its end;
what of the recipe comes later, when the log is read, is a row of its own.
"""

import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pcanel.bench.monitored import UNMITIGATED
from pcanel.engines.choose import choose
from pcanel.errors import InputError, PcanelError
from pcanel.guest.initramfs import Archive, add_programs, add_system, closure
from pcanel.monitor import Monitor
from pcanel.paths import BUILD, ROOT

PACKAGES = BUILD / "guests/strace"  # strace and what it needs, unpacked
_TICKS = BUILD / "guests/exitbench/ticks"
_VMLINUX = BUILD / "guests/cloud.vmlinux"
_STRACE = "usr/bin/strace"
_LS = "ls -lR /usr"
_PROMPT = rb"linux:~# "
_SAID = re.compile(r"ticks: (\d+), status 0")
_TIMEOUT = 600
_ROUNDS = 3
_OTHER = 1 << 20  # nobody's pid
_MOVE, _POINT = "CONTROL_REGISTER_ACCESS", "EXCEPTION_OR_NMI"


@dataclass(frozen=True)
class Figures:
    """Ticks of one run each; lines: calls that the recipe has seen; line: ticks to format one of them.

    cr3_pid, syscall_pid: where a policy's pid= is another process's, the ticks of all exits that it causes, each move
    to CR3, and of an exit by SYSCALL. No such move exits: the switches of tasks do (vmm/policies/bytask.py).
    """

    alone: int
    below: int
    strace: int
    lines: int
    line: int
    cr3_pid: int
    syscall_pid: int

    @property
    def below_to_alone(self) -> float:
        return round(self.below / self.alone, 2)

    @property
    def strace_to_alone(self) -> float:
        return round(self.strace / self.alone, 2)


def initrd() -> bytes:
    """Busybox, strace, the program that counts, and a tree below /usr."""
    if not _TICKS.is_file() or not PACKAGES.is_dir():
        raise InputError(f"{_TICKS}, {PACKAGES}: not there (make guests builds them)")
    archive = Archive()
    add_system(archive, ROOT / "guests/initramfs/init")
    archive.add("etc/passwd", stat.S_IFREG | 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
    archive.add("etc/hostname", stat.S_IFREG | 0o644, b"linux\n")
    archive.add("bin/ticks", stat.S_IFREG | 0o755, _TICKS.read_bytes())
    programs = closure(PACKAGES, [_STRACE])
    add_programs(archive, programs)
    for path in sorted((PACKAGES / "usr/share").rglob("*")) + sorted((PACKAGES / "usr/lib").rglob("gconv/*")):
        name = str(path.relative_to(PACKAGES))
        if path.is_dir():
            archive.add(name, stat.S_IFDIR | 0o755)
        elif name not in programs:
            archive.add(name, stat.S_IFREG | 0o644)
    return archive.finish()


def measure(cpu: str | None = None) -> Figures:
    """Each way _ROUNDS times, of which the last counts."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        (Path(name) / "initrd").write_bytes(initrd())
        file = Path(name) / "linux.toml"
        file.write_text(
            f'name = "linux"\nmemory = "256M"\nprotocol = "linux"\nkernel = "{_VMLINUX}"\n'
            'initrd = "initrd"\ncmdline = "console=ttyS0 quiet tsc=reliable"\n'
        )
        monitor = Monitor(cpu=cpu, guests=[file], cmdline=UNMITIGATED)
        monitor.choice = choose("bochs")
        with monitor:
            console = monitor.console("linux")
            console.expect(_PROMPT, _TIMEOUT)

            def run(command: str) -> int:
                ticks = 0
                for _ in range(_ROUNDS):
                    console.send(command + "\n")
                    text = console.expect(rb"(?s).*?" + _PROMPT, _TIMEOUT)[0].decode()
                    match = _SAID.search(text)
                    if not match:
                        raise PcanelError(f"{command}: {text}")
                    ticks = int(match[1])
                return ticks

            alone = run(f"ticks {_LS}")
            strace = run(f"ticks strace -f -o /dev/null {_LS}")
            monitor.exec("from recipes import strace\nimport cpu\nt = strace.trace(vms['linux'], comm='ls')")
            below = run(f"ticks {_LS}")
            lines, ticks = monitor.eval(
                "(lambda before, lines: (len(lines), cpu.rdtsc() - before))(cpu.rdtsc(), t.lines)", _TIMEOUT
            )
            monitor.exec("t.stop()")

            def seen(reasons: tuple[str, ...]) -> tuple[int, int]:
                counts = monitor.eval("vms['linux'].exit_counts()")
                each = [counts[reason] for reason in reasons if reason in counts]
                return sum(count for count, _ in each), sum(ticks for _, ticks in each)

            def exits(event: str, *reasons: str) -> tuple[int, int]:
                """How many exits by these reasons that run has under an empty policy, and their ticks."""
                monitor.exec(f"vm = vms['linux']\n@vm.on({event})\ndef other(vcpu): pass")
                count, ticks = seen(reasons)
                run(f"ticks {_LS}")
                later, more = seen(reasons)
                monitor.exec("other.detach()")
                return later - count, more - ticks

            moves, _ = exits("CR, number=3", _MOVE)
            _, switches = exits(f"CR, number=3, pid={_OTHER}", _MOVE, _POINT)
            calls, ticks_of_calls = exits(f"SYSCALL, pid={_OTHER}", _POINT)
            return Figures(alone, below, strace, lines, ticks // lines, switches // moves, ticks_of_calls // calls)
