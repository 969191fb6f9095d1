"""QEMU: with KVM where the host offers nested VMX, else by TCG, which has no VT-x at all."""

import re
import socket
from pathlib import Path

from pcanel.engines.base import Engine, Machine
from pcanel.engines.host import nested_vmx
from pcanel.engines.qmp import Qmp
from pcanel.errors import EngineError, InputError
from pcanel.modules import lay_out
from pcanel.ram.map import Flat, Map

_RESET = "RESET"
# Events of QMP that end a run, as a person would say them; a reset only where machine.reset_ends says so.
_ENDINGS = {
    _RESET: "the machine was reset from inside",
    "GUEST_PANICKED": "the monitor has panicked",
    "SHUTDOWN": "the machine was switched off from inside",
    "STOP": "the machine was stopped; engine.log may say why",
}

_HOLES = (0x80000000, 0xC0000000, 0xE0000000)  # where memory below 4 GiB may end (QEMU, hw/i386/pc_piix.c, pc_q35.c)
_ABOVE = 1 << 32
_HVA = re.compile(r" is (0x[0-9a-f]+)")

_SAME_RESET = 1  # seconds; SeaBIOS resets once more on its way

_OVMF = (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_CODE.fd"))


class Qemu(Engine):
    """QEMU as a subprocess, watched and steered through QMP."""

    name = "qemu"
    takes_descriptors = True
    most_disks = 4
    program = "qemu-system-x86_64"

    def __init__(self, machine: Machine):
        self.kvm = nested_vmx().usable
        self.default_cpu = "host" if self.kvm else "max"
        super().__init__(machine)
        self._firmware = next((path for path in _OVMF if path.is_file()), None)
        if machine.uefi and self._firmware is None:
            raise EngineError("UEFI firmware is missing (Debian: apt-get install ovmf)")
        if machine.uefi and not machine.is_iso:
            raise InputError("--uefi boots an ISO only; name one by --image")
        self._ours, self._theirs = socket.socketpair()
        self.pass_fds = (self._theirs.fileno(),)
        self._qmp: Qmp | None = None
        self._module_paths: list[str] = []
        self._last_reset = -_SAME_RESET  # when, in QEMU's time

    @property
    def working_directory(self) -> Path:
        """Where the boot modules lie under their names."""
        return self.machine.directory / "boot"

    def prepare(self) -> None:
        self.working_directory.mkdir()
        self._module_paths = lay_out(self.machine.modules, self.working_directory)

    def arguments(self) -> list[str]:
        machine = self.machine
        words = ["-nodefaults", "-no-user-config", "-display", "none", "-vga", "std"]
        words += ["-machine", "q35" if machine.uefi else "pc", "-accel", "kvm" if self.kvm else "tcg"]
        words += ["-cpu", self.cpu, "-m", str(machine.memory)]
        words += ["-device", "pvpanic", "-action", "panic=pause"]  # a memory image can still be taken
        words += ["-chardev", f"socket,id=qmp,fd={self._theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
        for number, line in enumerate(machine.lines, 1):
            words += ["-chardev", f"socket,id=com{number},fd={line.fileno()}"]
            words += ["-device", f"isa-serial,chardev=com{number},index={number - 1}"]
        if machine.network:
            words += ["-nic", ",".join(["user,model=virtio-net-pci", *(f"hostfwd={rule}" for rule in machine.rules())])]
        for number, disk in enumerate(machine.disks):
            how = "" if disk.writable else ",snapshot=on"
            words += ["-drive", f"if=none,id=disk{number},format=raw,werror=report{how},file={_option(disk.path)}"]
            if machine.uefi:  # a Q35: AHCI
                place = f"bus=ide.{number // 2},unit={number % 2}"
                words += ["-device", f"ide-hd,drive=disk{number},{place},model={disk.model},serial={disk.model}"]
            else:
                words += ["-device", f"virtio-blk-pci,drive=disk{number},serial={disk.model}"]
        if machine.uefi:
            words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_option(self._firmware)}"]
        if machine.is_iso:
            words += ["-drive", f"if=none,id=cd,media=cdrom,readonly=on,file={_option(machine.image.resolve())}"]
            words += ["-device", "ide-cd,drive=cd"]
        else:
            words += ["-kernel", str(machine.image.resolve())]
            if machine.cmdline:
                words += ["-append", machine.cmdline]
            if self._module_paths:
                words += ["-initrd", ",".join(_option(path) for path in self._module_paths)]
        return words

    def start(self) -> None:
        super().start()
        self._theirs.close()
        self._qmp = Qmp(self._ours)
        try:
            self._qmp.connect()
        except EngineError as error:
            raise EngineError(f"QEMU did not start: {error}\n{self.log_tail()}") from error

    def ended(self) -> str | None:
        """As every engine's; besides, what the machine did to itself ends a run, whether QEMU ends or not."""
        return super().ended() or self._ending()

    def explain(self, code: int) -> str:
        ending = self._ending()
        return super().explain(code) + (f": {ending}" if ending else "")

    def _ending(self) -> str | None:
        """One line about the first event that ends a run. Events that we requested end none."""
        for event in self.events():
            if event["event"] == _RESET and not self.machine.reset_ends:
                continue
            if _is_from_inside(event):
                return _words(event)
        return None

    def news(self) -> list[str]:
        """Resets from inside, where the run goes on."""
        if self.machine.reset_ends:
            return []
        lines = []
        for event in self.events():
            if event["event"] == _RESET and _is_from_inside(event) and _when(event) > self._last_reset:
                if _when(event) - self._last_reset > _SAME_RESET:
                    lines.append(f"{_words(event)}; the monitor boots again")
                self._last_reset = _when(event)
        return lines

    def status(self) -> str:
        """'running', 'paused', 'guest-panicked', 'internal-error', ..."""
        return self._qmp.command("query-status")["status"]

    def events(self) -> list[dict]:
        """Events that QMP has reported: resets, shutdown, panics."""
        return self._qmp.events() if self._qmp else []

    def reset(self) -> None:
        self._qmp.command("system_reset")

    def power_down(self) -> None:
        self._qmp.command("system_powerdown")

    def nmi(self) -> None:
        """An NMI, as by a button of the machine."""
        self._qmp.command("inject-nmi")

    def machine_check(self, bank: int, status: int, mcg_status: int, address: int = 0, misc: int = 0) -> None:
        """Put this into a bank and IA32_MCG_STATUS, and raise #MC where the status says "uncorrected"."""
        self._say(f"mce 0 {bank} {status:#x} {mcg_status:#x} {address:#x} {misc:#x}")

    def screendump(self, path: Path) -> None:
        """The screen as a PPM file."""
        self._qmp.command("screendump", filename=str(path.resolve()))

    def save_memory(self, path: Path, hpa: int, size: int) -> None:
        """`size` bytes of the machine's memory from `hpa` on, as a raw file."""
        self._qmp.command("pmemsave", val=hpa, size=size, filename=str(path.resolve()))

    def memory_map(self, _descriptor: int) -> Map:
        """Memory below the hole for devices, and the rest from 4 GiB on, as QEMU says by gpa2hva."""
        size = self.machine.memory << 20
        below = size if size <= _HOLES[1] else self._below(size)
        ranges = [(0, below, self._address(0))]
        if size > below:
            ranges.append((_ABOVE, size - below, self._address(_ABOVE)))
        return Flat(tuple(ranges))

    def _below(self, size: int) -> int:
        """Bytes below 4 GiB of a machine with memory above it, which depends on the machine's type and version."""
        for hole in _HOLES:
            if size > hole and not _HVA.search(self._say(f"gpa2hva {hole:#x}")):
                return hole
        return size

    def _address(self, hpa: int) -> int:
        said = self._say(f"gpa2hva {hpa:#x}")  # "Host virtual address for 0x0 (pc.ram) is 0x7f..."
        match = _HVA.search(said)
        if not match:
            raise EngineError(f"QEMU does not tell where its memory is: {said.strip()}")
        return int(match[1], 16)

    def _say(self, line: str) -> str:
        """The answer of QEMU's human monitor."""
        return self._qmp.command("human-monitor-command", **{"command-line": line})

    def stop(self) -> None:
        if self._qmp:
            self._qmp.close()
        self._theirs.close()
        super().stop()


def _is_from_inside(event: dict) -> bool:
    return event["event"] in _ENDINGS and event.get("data", {}).get("guest", True)


def _when(event: dict) -> float:
    return event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6


def _words(event: dict) -> str:
    """One line about an event of _ENDINGS."""
    data = event.get("data", {})
    why = data.get("reason") or data.get("action") or event["event"]
    return f"QEMU: {_ENDINGS[event['event']]} ({why})"


def _option(value) -> str:
    """A value inside a comma-separated option of QEMU."""
    return str(value).replace(",", ",,")
