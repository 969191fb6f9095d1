"""Bochs: VT-x emulated in full, on any machine.

The program is the fast one of `make bochs` where it is there, else Debian's (bochs_programs.py).
One with the debugger built in is started with a script that says "continue". The serial
ports connect to us (`socket-client`), so no port number has to be guessed.
"""

import struct
from pathlib import Path

from pcanel.engines.base import Engine, Machine
from pcanel.engines.bochs_programs import DEBIAN, DEBUGGER, FAST, firmware, first
from pcanel.errors import InputError
from pcanel.image import make_iso
from pcanel.ram.bochs import find
from pcanel.ram.map import Map

_MEMORY_MAX = 2048  # MiB that Bochs takes without paging to a file
_IPS = 100_000_000

_CONFIG = """\
config_interface: textconfig
{program}romimage: file={bios}
vgaromimage: file={vga_bios}
memory: guest={memory}, host={memory}
cpu: model={cpu}, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs={ignore_bad_msrs}
clock: sync={sync}
{cd}boot: {boot}
log: {log}
cmosimage: file=cmos, rtc_init=time0
panic: action=fatal
info: action=report, cpu0=ignore
"""

_FORWARDS_MOST = 5  # of Bochs's user-mode network
_CARD = "e1000: enabled=1, mac=52:54:00:12:34:56, ethmod=slirp{more}\n"  # the host's own address; guests have theirs

# Where disks are: the CD from which the monitor boots is ata0-master.
_MEDIUM = "boot.iso"
_CD = f'ata0-master: type=cdrom, path="{_MEDIUM}", status=inserted\n'
_IMAGE = "disk{}.img"
_CHANNELS = """\
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata2: enabled={more}, ioaddr1=0x1e8, ioaddr2=0x3e0, irq=11
ata3: enabled={most}, ioaddr1=0x168, ioaddr2=0x360, irq=9
"""
_PLACES = ("ata1-master", "ata1-slave", "ata0-slave", "ata2-master", "ata2-slave", "ata3-master", "ata3-slave")
_LEVEL = 11  # column of a log line, behind the ticks: i, e or p
_CMOS_SIZE = 128
_BOOT = {"disk": 2, "cdrom": 3}  # the BIOS's numbers of the devices to boot from


class Bochs(Engine):
    """Bochs as a subprocess, booted from an ISO."""

    name = "bochs"
    default_cpu = "corei7_skylake_x"
    programs = (FAST, DEBIAN)  # the first that is there is taken
    most_disks = len(_PLACES)
    _more_memory = 0  # MiB beyond what the monitor's machine has
    boot = "cdrom"  # or the first "disk", which is in the CD's place then
    more_lines = ""  # of bochsrc

    def __init__(self, machine: Machine):
        self._bochs = first(self.programs)
        self.program = self._bochs.path
        self.cpus = self._bochs.cpus
        super().__init__(machine)
        if machine.uefi:
            raise InputError("bochs has no UEFI firmware here; --uefi needs --engine qemu")
        if self.memory > _MEMORY_MAX:
            raise InputError(f"--memory {machine.memory}: bochs takes at most {_MEMORY_MAX - self._more_memory} MB")

    @property
    def words(self) -> str:
        return self._bochs.words

    @property
    def memory(self) -> int:
        """MiB that Bochs gives its machine."""
        return self.machine.memory + self._more_memory

    @property
    def lacks_msrs(self) -> bool:
        """Unknown MSRs read 0 instead of #GP as on a CPU: an ISO may hold a system that expects more than Bochs has."""
        return self.machine.is_iso

    def lines(self) -> list[int | Path]:
        """The far ends of COM1, COM2, ...: a loopback port to connect to, or a file that takes the output."""
        return list(self.machine.ports)

    def make_medium(self, iso: Path) -> None:
        """Writes what is booted."""
        machine = self.machine
        make_iso(machine.image, machine.modules, iso, machine.cmdline, lean=True)

    def prepare(self) -> None:
        machine = self.machine
        if machine.is_iso:
            self._link(_MEDIUM, machine.image.resolve())
        else:
            self.make_medium(machine.directory / _MEDIUM)
        bios, vga_bios = firmware()
        config = _CONFIG.format(
            program=self._bochs.config,
            bios=bios,
            vga_bios=vga_bios,
            memory=self.memory,
            cpu=self.cpu,
            ips=_IPS,
            ignore_bad_msrs=int(self.lacks_msrs),
            sync="slowdown" if machine.paced else "none",
            cd=_CD if self.boot == "cdrom" else "",
            boot=self.boot,
            log="bochs.log",
        )
        for number, line in enumerate(self.lines(), 1):
            mode = f"mode=file, dev={line}" if isinstance(line, Path) else f"mode=socket-client, dev=127.0.0.1:{line}"
            config += f"com{number}: enabled=1, {mode}\n"
        config += self._disks() + self.more_lines
        if machine.network:
            config += _CARD.format(more=self._forwards())
        (machine.directory / "bochsrc").write_text(config)
        (machine.directory / "cmos").write_bytes(_cmos(self.memory, _BOOT[self.boot]))
        if self._bochs.debugger:
            (machine.directory / "debugger").write_text(self.debugger_script())

    def _forwards(self) -> str:
        """Further words of the card's line: the user-mode network's own file."""
        rules = self.machine.rules()
        if len(rules) > _FORWARDS_MOST:
            raise InputError(
                f"forward: Bochs forwards {_FORWARDS_MOST} ports at most, not {len(rules)}; QEMU has no limit"
            )
        if not rules:
            return ""
        lines = ["# slirp config", *(f"hostfwd = {rule}" for rule in rules)]
        (self.machine.directory / "slirp").write_text("\n".join(lines) + "\n")
        return ", script=slirp"

    def _disks(self) -> str:
        """Their lines of bochsrc. One that is not written to keeps its image as it is by a log of Bochs's."""
        disks = self.machine.disks
        if not disks:
            return ""
        lines = _CHANNELS.format(more=int(len(disks) > 3), most=int(len(disks) > 5))
        places = _PLACES if self.boot == "cdrom" else ("ata0-master", *_PLACES)
        for number, (disk, place) in enumerate(zip(disks, places, strict=False)):
            name = _IMAGE.format(number)
            self._link(name, disk.path)
            mode = "flat" if disk.writable else f"volatile, journal=disk{number}.redolog"
            lines += f'{place}: type=disk, path="{name}", mode={mode}, cylinders=0, heads=0, spt=0'
            lines += f', translation=none, model="{disk.model}"\n'
        return lines

    def _link(self, name: str, path: Path) -> None:
        """A name in our directory for a file anywhere: bochsrc has no way to write each path (Bochs puts a variable of
        the environment in the place of $NAME), and the lock file that Bochs makes beside an image is then here."""
        (self.machine.directory / name).symlink_to(path)

    def environment(self) -> dict[str, str]:
        return self._bochs.environment(self.machine.directory)

    def debugger_script(self) -> str:
        """The debugger's commands, where there is one."""
        return "c\n"

    def arguments(self) -> list[str]:
        return ["-q", "-f", "bochsrc", *self._bochs.debugger]

    def memory_map(self, descriptor: int) -> Map:
        return find(self.pid, descriptor, self.memory << 20)

    def log_lines(self) -> list[str]:
        """Errors and panics of Bochs's log; its standard output has nothing but greetings."""
        log = self.machine.directory / "bochs.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        lines = [line for line in text.splitlines() if line[_LEVEL : _LEVEL + 1] in ("e", "p")]
        return lines if text else super().log_lines()

    def explain(self, code: int) -> str:
        panics = [line[_LEVEL + 1 :] for line in self.log_lines() if line[_LEVEL : _LEVEL + 1] == "p"]
        return super().explain(code) + (f": {panics[-1]}" if panics else "")

    def stop(self) -> None:
        super().stop()
        for name in (_MEDIUM, *map(_IMAGE.format, range(len(self.machine.disks)))):
            for path in (name, f"{name}.lock"):
                (self.machine.directory / path).unlink(missing_ok=True)


class Bochs27(Bochs):
    """Debian's Bochs 2.7, whatever else is there."""

    name = "bochs27"
    programs = (DEBIAN,)


class BochsDebugger(Bochs):
    """A Bochs whose debugger takes a script: subclasses give it."""

    programs = (DEBUGGER, DEBIAN)


def _cmos(memory: int, first: int) -> bytes:
    """The CMOS registers that the BIOS reads, for `memory` MiB and to boot from the device of number `first`.

    Bochs would set them itself, but not the bit that has the BIOS boot without waiting
    three seconds for F12 (0x3f).
    """
    cmos = bytearray(_CMOS_SIZE)
    cmos[0x0D] = 0x80  # the battery is good
    cmos[0x14] = 0x06  # equipment: mouse, coprocessor
    struct.pack_into("<H", cmos, 0x15, 640)  # KiB below 1 MiB
    above_1m = min((memory - 1) << 10, 0xFC00)  # KiB
    struct.pack_into("<H", cmos, 0x17, above_1m)
    struct.pack_into("<H", cmos, 0x30, above_1m)
    struct.pack_into("<H", cmos, 0x34, (memory - 16) << 4)  # above 16 MiB, in 64 KiB
    cmos[0x3D] = first
    cmos[0x3F] = 0x01
    return bytes(cmos)
