"""Some rows of a guest of the monitor's when the monitor itself is a guest of KVM's, inside Bochs (docs/engines.md).

What an exit costs there is mostly how often it makes the CPU leave for KVM: the guest's exit itself, each VMREAD and
VMWRITE of a field that KVM's shadow VMCS does not hold, and the entry. KVM counts them.
"""

import shlex
import tempfile
from pathlib import Path

from pcanel.bench import guest
from pcanel.bench.guest import Row
from pcanel.bench.monitored import UNMITIGATED
from pcanel.engines.choose import Choice
from pcanel.engines.nested import Nested
from pcanel.monitor import Monitor

ROWS = ("cpuid", "rdmsr", "in_pic", "late_hlt")
_TIMEOUT = 600  # seconds
_COUNTER = "com3"  # QEMU leaves this line to the outer system
_FEW, _MANY = 200, 1200  # rounds of two passes; their difference has no start and no end in it
_COUNT = "/sys/kernel/debug/kvm/exits"


class _Counted(Nested):
    """The third line asks the outer system for KVM's exits: a line sent is answered by their number."""

    own_lines = 2

    def script(self) -> str:
        answer = f"while read -r _ <&3; do cat {_COUNT} >&3; done"
        device = "/dev/ttyS3"
        return (
            "mount -t debugfs debugfs /sys/kernel/debug\n"
            f"stty -F {device} raw -echo\n"
            f"sh -c {shlex.quote(answer)} 3<>{device} &\n{super().script()}"
        )


def rows(cpu: str | None = None) -> dict[str, Row]:
    """`nested_ROW`, ticks, and `nested_ROW_exits`, exits to KVM for each exit of the monitor's guest."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        file = Path(name) / f"{guest.NAME}.toml"
        file.write_text(
            f'memory = "32M"\nprotocol = "multiboot"\nkernel = "{guest.image()}"\nautostart = false\nconsole = "com2"\n'
        )
        monitor = Monitor(cpu=cpu, memory=256, guests=[file], cmdline=UNMITIGATED)
    monitor.choice = Choice(_Counted, "it counts KVM's exits")
    found = {}
    with monitor:
        monitor.wait_booted(_TIMEOUT)
        for row in ROWS:
            _, few = _pass(monitor, row, _FEW)
            figures, many = _pass(monitor, row, _MANY)
            each = round((many - few) / (_MANY - _FEW))
            found[f"nested_{row}"] = figures
            found[f"nested_{row}_exits"] = Row(each, each, each)
    return found


def _pass(monitor: Monitor, row: str, rounds: int) -> tuple[Row, int]:
    """The row's figures, and how often KVM was left and entered meanwhile."""
    before = _exits(monitor)
    monitor.exec(
        f"vm = vms[{guest.NAME!r}]\nvm.config['cmdline'] = {guest.cmdline([row], rounds)!r}\nvm.start()", _TIMEOUT
    )
    text = guest.wait(monitor.console(guest.NAME), _TIMEOUT)
    return guest.parse(text)[row], _exits(monitor) - before


def _exits(monitor: Monitor) -> int:
    console = monitor.console(_COUNTER)
    console.send("\n")
    return int(console.expect(r"(?s).*?(\d+)\n", _TIMEOUT)[1])
