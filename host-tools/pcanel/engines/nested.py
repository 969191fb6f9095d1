"""QEMU with KVM and nested VMX on any machine: inside the outer system, which runs in Bochs.

The monitor's COM1 to COM3 are QEMU's serial ports, which lead to the outer system's
/dev/ttyS1 to 3, Bochs's COM2 to COM4, so that the prompt and the consoles are
reached as on every engine. The outer system's own console is the file outer.log.
"""

import shlex
from pathlib import Path

from pcanel.engines.base import Engine, Machine
from pcanel.engines.bochs import Bochs
from pcanel.errors import InputError
from pcanel.modules import check_paths
from pcanel.outer import medium
from pcanel.outer.system import ENDED, READY
from pcanel.ram.map import Map

_LINES = 3  # serial ports that are left


class Nested(Bochs):
    """Bochs with Debian's kernel in it, and QEMU in that."""

    name = "nested"
    _more_memory = 512  # MiB, for the outer system
    lacks_msrs = True  # Debian's kernel expects more than Bochs has
    own_lines = _LINES  # of which so many are the monitor's

    def __init__(self, machine: Machine):
        super().__init__(machine)
        if machine.is_iso:
            raise InputError(f"{machine.image}: the engine nested boots an ELF, not an ISO")

    @property
    def _outer_log(self) -> Path:
        return self.machine.directory / "outer.log"

    def lines(self) -> list[int | Path]:
        return [self._outer_log, *self.machine.ports[:_LINES]]

    def make_medium(self, iso: Path) -> None:
        machine = self.machine
        check_paths(machine.modules)
        modules = {f"/boot/{module.name}": module.content for module in machine.modules}
        medium.make(iso, {"/pcanel.elf": machine.image, **modules}, self.script(), qemu=True)

    def script(self) -> str:
        """What the outer system runs: QEMU with the monitor."""
        machine = self.machine
        words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]
        words += ["-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", str(machine.memory)]
        for number, _port in enumerate(machine.ports[: self.own_lines], 1):
            words += ["-chardev", f"serial,id=com{number},path=/dev/ttyS{number}"]
            words += ["-device", f"isa-serial,chardev=com{number},index={number - 1}"]
        words += ["-kernel", "/pcanel.elf"]
        if machine.cmdline:
            words += ["-append", machine.cmdline]
        if machine.modules:
            words += ["-initrd", ",".join(module.name.replace(",", ",,") for module in machine.modules)]
        return f"mkdir -p /boot && cd /boot && exec {shlex.join(words)}\n"

    def outer_ticks(self) -> int | None:
        """The ticks from the outer kernel's start to QEMU's; None while it is not that far."""
        ready = READY.search(self._said())
        return round(float(ready[1]) * 100_000_000) if ready else None

    def memory_map(self, descriptor: int) -> Map:
        """QEMU's memory is scattered over that of the outer system."""
        return Engine.memory_map(self, descriptor)

    def explain(self, code: int) -> str:
        ended = ENDED.search(self._said())
        if ended:
            return f"QEMU in the outer system ended with status {int(ended[2])}"
        return super().explain(code)

    def log_lines(self) -> list[str]:
        """What the outer system and QEMU have said, and Bochs's panics."""
        panics = [line for line in super().log_lines() if ">>PANIC<<" in line]
        return self._said().decode(errors="replace").splitlines() + panics

    def _said(self) -> bytes:
        return self._outer_log.read_bytes().replace(b"\r", b"") if self._outer_log.exists() else b""
