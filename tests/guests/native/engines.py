"""Boots one image on an engine with no monitor, and talks to it on COM1.

Bochs boots a Multiboot image from a GRUB ISO and a flat image as a hard disk; QEMU takes both directly.
`run_bochs` and `run_qemu` return what the guest printed until it powered off; `talk_bochs` and `talk_qemu`
give a `Console` to a running guest.
"""

import contextlib
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

from pcanel.engines import bochs_programs

BOCHS_MODELS = ("corei7_skylake_x", "corei5_arrandale_m520")
BOCHS_HZ = 100_000_000  # instructions a second, and ticks of the TSC

_BOCHSRC = """\
{program}romimage: file={bios}
vgaromimage: file={vga_bios}
memory: guest=64, host=64
cpu: count={cpus}, model={cpu}, ips={hz}, reset_on_triple_fault=0, ignore_bad_msrs=0
clock: sync=none
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
{disk}
com1: enabled=1, {serial}
log: {log}
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""


class Ended(Exception):
    """An engine that stopped without the guest's own power off; the message is the console's tail."""


def is_flat(image):
    return image.suffix == ".bin"


def disk_image(image, directory):
    """A raw disk whose first sectors are the flat image, padded to whole cylinders of 16 heads, 63 sectors."""
    disk = directory / "disk.img"
    cylinder = 16 * 63 * 512
    data = image.read_bytes()
    disk.write_bytes(data.ljust(-(-len(data) // cylinder) * cylinder, b"\0"))
    return disk


def grub_iso(image, directory, cmdline=""):
    """A GRUB rescue ISO that boots the Multiboot image at once."""
    tree = directory / "iso"
    (tree / "boot/grub").mkdir(parents=True)
    shutil.copy(image, tree / "boot/guest.elf")
    (tree / "boot/grub/grub.cfg").write_text(f"multiboot /boot/guest.elf {cmdline}\nboot\n")
    iso = directory / "guest.iso"
    subprocess.run(
        ["grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "--locales=", "--fonts=", "-o", iso, tree],
        check=True,
        capture_output=True,
    )
    return iso


def _run(command, console, timeout_s):
    """Runs the engine until it ends by itself."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise Ended(f"no power off within {timeout_s} s\n" + _tail(console)) from error
    output = _text(console)
    if not output:
        raise Ended(f"{command[0]} ended with {ended.returncode}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return output


def _text(console):
    return console.read_text(errors="replace").replace("\r", "") if console.exists() else ""


def _tail(console):
    return _text(console)[-2000:]


class Console:
    """A guest's serial port: what it sends is collected in `output`."""

    def __init__(self, connection):
        self.output = ""
        self._connection = connection
        self._seen = 0  # of the output, by expect()

    def send(self, text):
        """Types the text and Enter."""
        self._connection.sendall(text.encode() + b"\r")

    def expect(self, pattern, timeout_s=30):
        """Waits for the pattern behind what was expected before, and returns its match."""
        end = time.monotonic() + timeout_s
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.output, self._seen)
            if match:
                self._seen = match.end()
                return match
            if not self._receive(end - time.monotonic()):
                raise Ended(f"no {pattern!r} within {timeout_s} s\n" + self.output[-2000:])

    def run(self, command, timeout_s=30):
        """Types a shell command and returns its output, up to the next prompt."""
        start = self._seen
        self.send(command)
        self.expect(r"^-> $", timeout_s)
        return self.output[start : self._seen]

    def expect_end(self, timeout_s=30):
        """Waits until the engine closes the port."""
        end = time.monotonic() + timeout_s
        while self._receive(end - time.monotonic()):
            pass
        if time.monotonic() >= end:
            raise Ended(f"no power off within {timeout_s} s\n" + self.output[-2000:])

    def _receive(self, timeout_s):
        if timeout_s <= 0:
            return False
        self._connection.settimeout(timeout_s)
        try:
            data = self._connection.recv(4096)
        except (TimeoutError, ConnectionResetError):
            return False
        self.output += data.decode("ascii", "replace").replace("\r", "")
        return bool(data)


@contextlib.contextmanager
def _talk(start):
    """`start(port)` gives the command that connects to our port; it is killed at the end."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:
        command = start(server.getsockname()[1])
        server.settimeout(20)
        engine = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(engine.wait)
        stack.callback(engine.kill)
        connection, _ = server.accept()
        with connection:
            yield Console(connection)


def _bochs(image, cpu, cmdline, serial, directory, cpus=1):
    """Writes Bochs's files and returns its command. Several CPUs: only Debian's has them."""
    if is_flat(image):
        path = disk_image(image, directory)
        cylinders = path.stat().st_size // (16 * 63 * 512)
        disk = f"ata0-master: type=disk, path={path}, mode=flat, cylinders={cylinders}, heads=16, spt=63\n"
        disk += "boot: disk"
    else:
        iso = grub_iso(image, directory, cmdline)
        disk = f"ata0-master: type=cdrom, path={iso}, status=inserted\nboot: cdrom"
    single = (bochs_programs.FAST,) if cpus == 1 else ()
    program = bochs_programs.first((*single, bochs_programs.DEBIAN))
    bios, vga_bios = bochs_programs.firmware()
    values = {"program": program.config, "bios": bios, "vga_bios": vga_bios, "cpu": cpu, "hz": BOCHS_HZ}
    values["cpus"] = cpus
    bochsrc = directory / "bochsrc"
    bochsrc.write_text(_BOCHSRC.format(**values, disk=disk, serial=serial, log=directory / "log"))
    (directory / "debugger").write_text("c\n")
    variables = [f"{name}={value}" for name, value in program.environment(directory).items()]
    return ["env", "-C", directory, *variables, program.path, "-q", "-f", bochsrc, *program.debugger]


def _qemu(image, cmdline, serial, directory, cpus=1, counted=False):
    """QEMU without KVM (TCG), every feature that it has. counted: its time is that of its instructions, so that CPUs,
    which are threads otherwise, come by turns and wait for each other no longer on a busy machine."""
    command = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", "64", "-display", "none"]
    command += ["-nodefaults", "-serial", serial, "-smp", str(cpus)]
    if counted:
        command += ["-icount", "shift=2"]
    if is_flat(image):
        return [*command, "-drive", f"file={disk_image(image, directory)},format=raw"]
    return [*command, "-kernel", image, "-append", cmdline]


def run_bochs(image, cpu, timeout_s=120, cpus=1, cmdline=""):
    with _directory() as directory:
        console = directory / "console"
        return _run(_bochs(image, cpu, cmdline, f"mode=file, dev={console}", directory, cpus), console, timeout_s)


def run_qemu(image, timeout_s=60, cpus=1, cmdline="", counted=False):
    with _directory() as directory:
        console = directory / "console"
        command = _qemu(image, cmdline, f"file:{console}", directory, cpus, counted)
        return _run([*command, "-no-reboot"], console, timeout_s)


@contextlib.contextmanager
def talk_bochs(image, cpu=BOCHS_MODELS[0], cmdline=""):
    with (
        _directory() as directory,
        _talk(
            lambda port: _bochs(image, cpu, cmdline, f"mode=socket-client, dev=127.0.0.1:{port}", directory)
        ) as console,
    ):
        yield console


@contextlib.contextmanager
def talk_qemu(image, cmdline=""):
    with (
        _directory() as directory,
        _talk(lambda port: _qemu(image, cmdline, f"tcp:127.0.0.1:{port}", directory)) as console,
    ):
        yield console


@contextlib.contextmanager
def _directory():
    with tempfile.TemporaryDirectory(prefix="native-") as name:
        yield pathlib.Path(name)
