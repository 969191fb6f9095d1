"""What every engine does: start as a subprocess, be watched, be stopped."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pcanel.endpoint import Endpoint
from pcanel.errors import EngineError, InputError
from pcanel.hostdisks import Disk, Locks
from pcanel.modules import BootModule
from pcanel.paths import lack_of
from pcanel.ram.map import Map, open_memory


@dataclass
class Machine:
    """The machine that an engine starts."""

    directory: Path  # the run's own; the engine's files go here
    image: Path  # the monitor's ELF, or an ISO that has it
    memory: int  # MiB
    cpu: str | None = None  # the engine's name of a CPU model; None: the engine's default
    modules: list[BootModule] = field(default_factory=list)
    cmdline: str = ""
    ports: list[int] = field(default_factory=list)  # loopback ports to connect COM1, COM2, ... to
    lines: list[socket.socket] = field(default_factory=list)  # or COM1, COM2, ... themselves; the engine closes them
    network: bool = False  # a card that leads to the host's network, by the engine's user-mode network
    forwards: list[tuple[str, int, str, int]] = field(default_factory=list)  # of pcanel.guest.set.forwards()
    disks: list[Disk] = field(default_factory=list)
    paced: bool = False  # keep pace with the clock on the wall, for a person
    uefi: bool = False
    reset_ends: bool = False  # a reset from inside ends the run; else the monitor boots again

    @property
    def is_iso(self) -> bool:
        return self.image.suffix == ".iso"

    def rules(self) -> list[str]:
        """The forwards as the user-mode network takes them: both engines have the same (libslirp)."""
        return [f"{kind}:127.0.0.1:{port}-{address}:{there}" for kind, port, address, there in self.forwards]

    def connect(self, endpoints: Iterable[Endpoint], by_descriptor: bool) -> None:
        """Gives COM1, COM2, ... their endpoints. Only before the hub starts."""
        for endpoint in endpoints:
            if by_descriptor:
                self.lines.append(endpoint.pair())
            else:
                self.ports.append(endpoint.listen())

    def check_ports(self) -> None:
        """The host's ports that are to be forwarded are free: an engine would go on without one."""
        for kind, port, _, _ in self.forwards:
            with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise InputError(f"forward: {kind} port {port} of the host: {error.strerror}") from None

    def check(self) -> None:
        lack = lack_of(self.image)
        if lack:
            raise InputError(f"{self.image}: {lack.replace('no such file', 'no such image (make all builds it)')}")
        if not self.is_iso and not _is_elf(self.image):
            raise InputError(f"{self.image}: is no ELF file; an ISO's name ends in .iso")
        if self.is_iso and self.disks:
            raise InputError(f"{self.image}: an ISO has its guests inside, no disk can be added")
        if self.is_iso and (self.modules or self.cmdline):
            raise InputError(f"{self.image}: an ISO has its boot modules inside, none can be added")


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


class Engine:
    """A machine as a subprocess. Subclasses give its arguments."""

    name = ""
    program = ""
    default_cpu = ""
    most_disks = 0  # of its machine, besides the one that is booted
    pass_fds: tuple[int, ...] = ()  # descriptors that the subprocess inherits, besides the machine's lines
    takes_descriptors = False  # for its serial lines; else it connects to loopback ports
    cpus: tuple[str, ...] | None = None  # the models there are; None: the engine itself checks

    def __init__(self, machine: Machine):
        machine.check()
        self.machine = machine
        self.cpu = machine.cpu or self.default_cpu
        if self.cpus is not None and self.cpu not in self.cpus:
            raise InputError(f"--cpu {self.cpu}: {self.name} has no such model; it has {', '.join(self.cpus)}")
        if len(machine.disks) > self.most_disks:
            raise InputError(f"{len(machine.disks)} images are disks of the machine; {self.name} has {self.most_disks}")
        self._process: subprocess.Popen | None = None
        self._locks = Locks()

    @property
    def words(self) -> str:
        """Which program this is, where there are several; else empty."""
        return ""

    @property
    def log(self) -> Path:
        return self.machine.directory / "engine.log"

    @property
    def working_directory(self) -> Path:
        return self.machine.directory

    def prepare(self) -> None:
        """Writes the files that the arguments name."""

    def environment(self) -> dict[str, str]:
        """Variables for the subprocess, beyond ours."""
        return {}

    def arguments(self) -> list[str]:
        """The arguments of the program."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts the engine. It dies with us, whatever kills us."""
        if shutil.which(self.program) is None:
            raise EngineError(f"{self.program} is missing (pcanel doctor says what installs it)")
        self._locks.take(self.machine.disks)
        self.prepare()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", self.program, *self.arguments()],
                cwd=self.working_directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(*self.pass_fds, *self._locks.descriptors, *(line.fileno() for line in self.machine.lines)),
                env={**os.environ, **self.environment()},
            )
        self._close_lines()

    @property
    def pid(self) -> int | None:
        """Of the engine's process, None while there is none."""
        return self._process.pid if self._process else None

    def gone(self) -> bool:
        """Whether its process has been started and has ended. From any thread."""
        process = self._process
        return process is not None and process.poll() is not None

    def memory_map(self, _descriptor: int) -> Map:
        """Where the machine's memory lies in the engine's process. descriptor: of its /proc/PID/mem. EngineError."""
        raise EngineError(f"the engine {self.name} does not show its memory")

    def open_memory(self) -> tuple[int, Map]:
        """(descriptor of the engine's /proc/PID/mem, which is the caller's; the Map). EngineError."""
        why = self.ended()
        if why:
            raise EngineError(why)
        descriptor = open_memory(self.pid)
        try:
            return descriptor, self.memory_map(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def ended(self) -> str | None:
        """Why the engine no longer runs, or None while it does."""
        if self._process is None:
            return "the engine was never started"
        code = self._process.poll()
        if code is None:
            return None
        return self.explain(code)

    def explain(self, code: int) -> str:
        """One line about an exit status."""
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        return f"{self.name} ended {how}"

    def news(self) -> list[str]:
        """A line about each thing that has happened to the machine since the last call and does not end the run."""
        return []

    def stop(self) -> None:
        """Ends the engine and waits for that."""
        self._close_lines()
        self._locks.release()
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _close_lines(self) -> None:
        """The subprocess alone holds its ends, so that we see when it closes them."""
        for line in self.machine.lines:
            line.close()
        self.machine.lines.clear()

    def log_lines(self) -> list[str]:
        """The engine's own messages."""
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    def log_tail(self, lines: int = 12) -> str:
        """The engine's last words, under a heading."""
        kept = [f"  {line}" for line in self.log_lines() if line.strip()][-lines:]
        return "\n".join([f"--- engine ({self.log}) ---", *(kept or ["  (nothing)"])])
