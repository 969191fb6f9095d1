"""How long Debian takes from its boot loader's first instruction to its login prompt: natively and under the monitor.

Both begin where the BIOS jumps to the disk's first sector, and end where the last character of the prompt is written to
the 16550. The disk is a copy of that of `make debian`, on the machine's ATA; no network. It gets the TSC's
frequency: natively it would believe CPUID, which speaks of 3.5 GHz, and each delay of a driver took 35 times its time.
Natively the BIOS says in Bochs's log that it jumps, 55 instructions before it does, and the log has each access to the
serial port.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pcanel.bench.bare import Bare
from pcanel.bench.linux import Boot
from pcanel.bench.monitored import UNMITIGATED
from pcanel.engines.bochs import Bochs
from pcanel.engines.choose import choose
from pcanel.errors import InputError, PcanelError
from pcanel.hostdisks import Disk
from pcanel.monitor import Monitor
from pcanel.paths import BUILD

IMAGE = BUILD / "images/debian.img"
_MEMORY = 512  # MiB
_MACHINE = 800  # MiB, of the monitor's
_TIMEOUT = 1800  # seconds
_PROMPT = b"debian login: "
_TSC = "tsc_early_khz=100000 tsc=reliable"
_GRUB = re.compile(rb'if \[ "\$grub_platform" = efi \]; then\n.*?else\n(.*?)fi\n(.*?\n}\n)', re.DOTALL)
_BOOT_SECTOR = 0x7C00
_DATA = 0x3F8  # of COM1
KVM_ONCE = {"debian_boot": 5_086_000_000}  # ticks, QEMU 7.2 with KVM in the same Bochs, virtio-blk on the ATA disk
_JUMP = re.compile(rf"^(\d+)i\[BIOS  \] Booting from 0000:{_BOOT_SECTOR:04x}$", re.MULTILINE)
_WRITE = re.compile(rf"^(\d+)d\[SER   \] com1 register write to  address: {_DATA:#06x} = 0x(..)$", re.MULTILINE)

# The prompt's characters are looked for one by one: the first is in it once. What that takes is not counted.
_POLICIES = """
vm = vms["debian"]
marks = []
said = [0]


@vm.on(EXECUTE, gpa={sector}, once=True)
def begins(vcpu):
    marks.append((vm.clock.rdtsc(), 0, vm.exit_counts()))


@vm.on(IO, port={data}, write=True, size=1)
def says(vcpu):
    character = vcpu.rax & 0xFF
    said[0] = said[0] + 1 if character == {prompt}[said[0]] else int(character == {prompt}[0])
    if said[0] == {length}:
        marks.append((vm.clock.rdtsc(), says.ticks, vm.exit_counts()))
        says.detach()


vm.start()
"""


class _FromDisk(Bochs):
    """Boots the disk, and notes in its log what goes to the serial lines."""

    boot = "disk"
    more_lines = "debug: action=ignore, serial=report\n"


@contextlib.contextmanager
def _disk() -> Iterator[Path]:
    """The copy. GRUB's configuration is of the same length: what it says of UEFI is left out."""
    if not IMAGE.is_file():
        raise InputError(f"{IMAGE}: no such file (make debian makes it)")
    content = bytearray(IMAGE.read_bytes())
    found = _GRUB.search(content)
    if not found:
        raise PcanelError(f"{IMAGE}: has no grub.cfg as `make debian` writes it")
    config = (found[1] + found[2]).replace(b" quiet ", f" quiet {_TSC} ".encode())
    content[found.start() : found.end()] = config.ljust(len(found[0]), b"\n")
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="bench-") as name:
        copy = Path(name) / IMAGE.name
        copy.write_bytes(content)
        yield copy


def native(cpu: str | None = None) -> Boot:
    """On the engine itself."""
    with _disk() as image:
        disks = [Disk(image, writable=False)]
        with Bare(Path.touch, cpu, _MEMORY, engine=_FromDisk, disks=disks) as machine:
            machine.console.expect(_PROMPT, _TIMEOUT)
            log = (machine.run.path / "bochs.log").read_text(errors="replace")
    return Boot(ticks(log))


def ticks(log: str) -> int:
    """From the boot sector's start to the write of the prompt's last character, by Bochs's log."""
    jumps = _JUMP.findall(log)
    if len(jumps) != 1:
        raise PcanelError(f"the BIOS has started the boot sector {len(jumps)} times, not once")
    writes = _WRITE.findall(log)
    place = bytes(int(value, 16) for _, value in writes).find(_PROMPT)
    if place < 0:
        raise PcanelError("Bochs's log does not have the prompt")
    return int(writes[place + len(_PROMPT) - 1][0]) - int(jumps[0])


def monitored(cpu: str | None = None) -> Boot:
    """Under the monitor, its mitigations off."""
    with _disk() as image:
        file = image.with_name("debian.toml")
        file.write_text(
            f'memory = "{_MEMORY}M"\nprotocol = "bios"\nautostart = false\n'
            f'[[disk]]\nimage = "{image.name}"\nmode = "scratch"\n'
        )
        monitor = Monitor(cpu=cpu, memory=_MACHINE, guests=[file], cmdline=UNMITIGATED)
        monitor.choice = choose("bochs")
        with monitor:
            monitor.exec(_POLICIES.format(sector=_BOOT_SECTOR, data=_DATA, prompt=_PROMPT, length=len(_PROMPT)))
            monitor.console("debian").expect(_PROMPT, _TIMEOUT)
            begin, end = monitor.eval("marks")
    exits, exit_ticks = (
        {reason: figures[i] - begin[2].get(reason, (0, 0))[i] for reason, figures in end[2].items()} for i in (0, 1)
    )
    return Boot(end[0] - begin[0] - end[1], _counted(exits), _counted(exit_ticks))


def _counted(figures: dict[str, int]) -> dict[str, int]:
    return {reason: figure for reason, figure in figures.items() if figure}
