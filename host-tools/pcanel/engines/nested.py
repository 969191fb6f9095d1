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
from pcanel.outer import archives, medium
from pcanel.outer.system import ENDED, READY
from pcanel.ram.map import Map

_LINES = 3  # serial ports that are left

# Bochs's disks are those of the outer system, which finds each by its model, cut to what SCSI has room for, within ten
# seconds; QEMU's take them by turns as disks of virtio and of an AHCI. A flush goes through to the image.
_DRIVERS = """\
for m in /modules/disks/*; do insmod $m || echo "outer: $m did not start"; done
disk() {
    for try in 0 1 2 3 4 5 6 7 8 9; do
        for d in /sys/block/sd*; do
            test "$(cat $d/device/model 2>/dev/null)" = "$1" && echo /dev/${d##*/} && return
        done
        sleep 1
    done
    echo "outer: there is no disk $1" >&2
}
"""
_MODEL = 16  # characters


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
        files = {f"/boot/{module.name}": module.content for module in machine.modules}
        if machine.disks:
            files |= archives.disk_drivers()
        medium.make(iso, {"/pcanel.elf": machine.image, **files}, self.script(), qemu=True)

    def script(self) -> str:
        """The script of the outer system: QEMU with the monitor."""
        machine = self.machine
        words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]
        words += ["-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", str(machine.memory)]
        for number, _port in enumerate(machine.ports[: self.own_lines], 1):
            words += ["-chardev", f"serial,id=com{number},path=/dev/ttyS{number}"]
            words += ["-device", f"isa-serial,chardev=com{number},index={number - 1}"]
        if machine.network:  # which leads no further than QEMU: the outer system has none
            words += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
        words += ["-kernel", "/pcanel.elf"]
        if machine.cmdline:
            words += ["-append", machine.cmdline]
        if machine.modules:
            words += ["-initrd", ",".join(module.name.replace(",", ",,") for module in machine.modules)]
        more = self._disk_words()
        return f"{_DRIVERS if more else ''}mkdir -p /boot && cd /boot && exec {shlex.join(words)}{more}\n"

    def _disk_words(self) -> str:
        """QEMU's disks, for the shell."""
        disks = self.machine.disks
        text = " -device ahci,id=ahci" if len(disks) > 1 else ""
        for number, disk in enumerate(disks):
            text += f" -drive if=none,id=disk{number},format=raw,werror=report,file=$(disk {disk.model[:_MODEL]})"
            if number % 2:
                text += f" -device ide-hd,drive=disk{number},bus=ahci.{number // 2}"
                text += f",model={disk.model},serial={disk.model}"
            else:
                text += f" -device virtio-blk-pci,drive=disk{number},serial={disk.model}"
        return text

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
        """Messages of the outer system and of QEMU, and Bochs's panics."""
        panics = [line for line in super().log_lines() if ">>PANIC<<" in line]
        return self._said().decode(errors="replace").splitlines() + panics

    def _said(self) -> bytes:
        return self._outer_log.read_bytes().replace(b"\r", b"") if self._outer_log.exists() else b""
