"""How long Debian takes from its own disk: from its boot loader's first instruction to a shell of root.

A copy of `make debian`'s disk logs root in by itself, and guests/exitbench/first.c says there what the TSC is. Natively
the boot loader's start is known by a breakpoint of Bochs's debugger, in a guest by the last character that its firmware
says before. QEMU's figure is of one measurement (QEMU 7.2 with KVM in the same Bochs, virtio-blk on the outer system's
disk, from the VM's start, on a disk of an earlier `make debian`).
"""

import re
import shutil
import tempfile
from pathlib import Path

from pcanel.bench.bare import Bare
from pcanel.bench.linux import FIRST, SAID
from pcanel.bench.monitored import UNMITIGATED
from pcanel.disks.bootable import FIRST as FIRST_SECTOR
from pcanel.disks.bootable import SECTOR
from pcanel.engines.bochs import BochsDebugger
from pcanel.engines.choose import choose
from pcanel.errors import InputError, PcanelError
from pcanel.image import burn
from pcanel.monitor import Monitor
from pcanel.paths import BUILD
from pcanel.programs import run

_IMAGE = BUILD / "images/debian.img"
_MEMORY = 512  # MiB
_TIMEOUT = 3600  # seconds
_BOOT_SECTOR = 0x7C00
_DISK = 2  # the number of the BIOS's device to boot from, and where CMOS has it
_BOOT_ORDER = 0x3D
_LINES = """\
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=disk, path="{path}", mode=flat, cylinders=0, heads=0, spt=0, translation=auto
"""
_AUTOLOGIN = "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200 - $TERM\n"
_STOP = re.compile(r"^Next at t=(\d+)$", re.MULTILINE)
_RUN = """
import time
vm = vms['debian']
began = []
@vm.on(IO, port=0x402, write=True)
def firmware(vcpu):
    began[:] = [vm.clock.now() + vm.clock.skew]
vm.start()
for _ in range(3000):
    time.sleep_ms(100)
    if vm.state == 'off':
        break
print(began[0])
"""
KVM_ONCE = 7_467_800_000


class _FromDisk(BochsDebugger):
    """Bochs that boots from a disk, and notes when its boot sector is entered."""

    disk: Path

    def prepare(self) -> None:
        super().prepare()
        cmos = self.machine.directory / "cmos"
        content = bytearray(cmos.read_bytes())
        content[_BOOT_ORDER] = _DISK
        cmos.write_bytes(content)

    def _disks(self) -> str:
        return _LINES.format(path=self.disk)

    def debugger_script(self) -> str:
        return f"pb {_BOOT_SECTOR:#x}\nc\nd 1\nc\n"


def native(cpu: str | None = None) -> int:
    """On the engine itself."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        _FromDisk.disk = _copy(Path(name))
        with Bare(lambda iso: burn(iso, "", {}, "halt"), cpu, _MEMORY, engine=_FromDisk) as machine:
            came = int(machine.console.expect(SAID.pattern + r"\s", _TIMEOUT)[1])
            stops = _STOP.findall(machine.engine.log.read_text(errors="replace"))
    if len(stops) != 2:  # at the start and at the breakpoint
        raise PcanelError(f"the disk's boot sector was entered {len(stops) - 1} times, not once")
    return came - int(stops[-1])


def monitored(cpu: str | None = None) -> int:
    """As a guest with SeaBIOS, whose disk is the machine's."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        image = _copy(Path(name))
        file = image.with_name("debian.toml")
        file.write_text(
            f'memory = "{_MEMORY}M"\nprotocol = "bios"\nautostart = false\n'
            f'[[disk]]\nimage = "{image.name}"\nmode = "rw"\n'
        )
        monitor = Monitor(cpu=cpu, guests=[file], cmdline=UNMITIGATED, memory=_MEMORY + 288)
        monitor.choice = choose("bochs")
        with monitor:
            printed = monitor.exec(_RUN, _TIMEOUT)
            said = SAID.search(monitor.console("debian").text())
    if not said:
        raise PcanelError(f"Debian did not come to its shell\n{printed}")
    return int(said[1]) - int(printed.split()[-1])


def _copy(directory: Path) -> Path:
    """The disk, with root logged in and the program run."""
    for path, how in ((_IMAGE, "make debian"), (FIRST, "make guests")):
        if not path.is_file():
            raise InputError(f"{path}: no such file ({how} builds it)")
    image = directory / "debian.img"
    shutil.copyfile(_IMAGE, image)
    folder = "/etc/systemd/system/serial-getty@ttyS0.service.d"
    (directory / "autologin.conf").write_text(_AUTOLOGIN)
    (directory / "profile").write_text("exec /root/first\n")
    commands = directory / "commands"
    commands.write_text(
        f"mkdir {folder}\nwrite {directory}/autologin.conf {folder}/autologin.conf\n"
        f"write {directory}/profile /root/.bash_profile\nwrite {FIRST} /root/first\n"
        "set_inode_field /root/first mode 0100755\n"
    )
    what = f"{image}: debugfs failed"
    run(["debugfs", "-w", "-f", str(commands), f"{image}?offset={FIRST_SECTOR * SECTOR}"], what)
    return image
