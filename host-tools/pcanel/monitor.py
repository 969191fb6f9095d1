"""A running monitor: the engine, its consoles, and the prompt.

with Monitor(engine="bochs", guests=["guests/linux.toml"]) as monitor:
    monitor.console("linux").expect("linux:~# ", timeout=300)
    print(monitor.exec("print(vms)"))
"""

import contextlib
import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from pcanel import post, repl
from pcanel.console import Console
from pcanel.endpoint import Endpoint
from pcanel.engines.base import Engine, Machine
from pcanel.engines.choose import choose
from pcanel.errors import InputError, PcanelError
from pcanel.guest import trial
from pcanel.guest.file import Guest
from pcanel.guest.set import assign_lines, forwards, load_all
from pcanel.hostdisks import distinct
from pcanel.hub import Hub
from pcanel.modules import BootModule, check_names, policy
from pcanel.paths import ELF
from pcanel.post import Post
from pcanel.ram import served
from pcanel.ram.map import Ram
from pcanel.runs import RunDirectory
from pcanel.vmm_import import importable

with importable():
    from vmm.network.checks import HOST

REPL = "repl"
LINES = ("com2", "com3")
GDB = "gdb"  # COM4
_DETACH = b"$D#44"  # a packet for the monitor's gdb stub: a serial line does not tell when gdb has ended
DEFAULT_MEMORY = 1024  # MiB
_MEMORY_MIN = 64
_MEMORY_MAX = 512 << 10  # what the monitor maps (port/memory.c)
BOOT_TIMEOUT = 300  # seconds; seconds are usual, a busy machine takes longer
_PROMPT = rb"^>>> "
_PANIC = rb"^PANIC: .*"
_BROKEN = re.compile(r"^policy file .*:(?: interrupted .*|\nTraceback .*\n(?:  .*\n)*.*)", re.MULTILINE)


class Monitor:
    """Starts on entry (or by start()), ends on exit (or by stop()).

    engine     'auto', 'bochs' or 'qemu'; cpu: the engine's model; memory: MiB of the machine
    guests     paths of guest files; policies: paths of policy files
    modules    further boot modules
    cmdline    the monitor's command line, e.g. 'heap=16M'
    image      an ELF or an ISO instead of build/pcanel.elf; uefi: boot the ISO by UEFI
    paced      keep pace with the wall clock, for a person at the prompt
    reset_ends a reset of the machine from inside is a failure; else the monitor boots again
    """

    def __init__(
        self,
        engine: str = "auto",
        cpu: str | None = None,
        memory: int = DEFAULT_MEMORY,
        guests: Iterable[Path | str] = (),
        policies: Iterable[Path | str] = (),
        modules: Iterable[BootModule] = (),
        cmdline: str = "",
        image: Path | str = ELF,
        uefi: bool = False,
        paced: bool = False,
        reset_ends: bool = False,
    ):
        if not _MEMORY_MIN <= memory <= _MEMORY_MAX:
            raise InputError(f"--memory {memory}: must be from {_MEMORY_MIN} to {_MEMORY_MAX} MB")
        self.guests: list[Guest] = load_all([Path(path) for path in guests], memory, cmdline)
        self._lines = assign_lines(self.guests)
        for guest in self.guests:
            trial.check(guest)
        self._modules = [module for guest in self.guests for module in guest.boot_modules()]
        self._modules += [policy(Path(path)) for path in policies]
        self._modules += modules
        check_names(self._modules)
        self._machine = Machine(
            Path(), Path(image), memory, cpu, self._modules, cmdline, paced=paced, uefi=uefi, reset_ends=reset_ends
        )
        self._machine.network = any(net["switch"] == HOST for guest in self.guests for net in guest.config["nets"])
        self._machine.forwards = forwards(self.guests)
        self._machine.disks = distinct(disk for guest in self.guests for disk in guest.disks)
        self._machine.check()
        self.choice = choose(engine)
        self.names = [REPL, *(self._lines.get(line) or line for line in LINES)]  # of consoles; COM4 is gdb's
        self.engine: Engine | None = None
        self.consoles: dict[str, Console] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._hub: Hub | None = None
        self._post: Post | None = None
        self.run: RunDirectory | None = None
        self.booted = False
        self._told: list[str] = []  # troubles with logs

    def __enter__(self) -> "Monitor":
        self.start()
        return self

    def __exit__(self, *_exception) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the engine; its consoles are there when this returns, the prompt is not yet."""
        self._machine.check_ports()
        self.engine = self.choice.engine(self._machine)
        self.run = RunDirectory()
        self._machine.directory = self.run.path
        self._hub = Hub()
        self._hub.engine_gone = self.engine.gone
        try:
            for name in self.names:
                endpoint = self._hub.open(name, self.run.path / f"{name}.log", exclusive=name == REPL)
                self._endpoints[name] = endpoint
                self.consoles[name] = endpoint.console
            self._endpoints[GDB] = self._hub.open(GDB, self.run.path / f"{GDB}.log", True, _DETACH)
            self._post = Post(self.ram, self._type)
            self._hub.offer(self.run.path / post.NAME, self._post.serve)
            self._hub.offer(self.run.path / served.NAME, lambda line: served.answer(line, self.engine.open_memory))
            self._machine.connect(self._endpoints.values(), self.engine.takes_descriptors)
            self._hub.start()
            self.engine.start()
            self._publish()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the engine and the consoles; logs stay in the run's directory."""
        if self._post:
            self._post.stop()
        if self.engine:
            self.engine.stop()
        if self._hub:
            self._hub.stop()
        if self.run:
            self.run.close()

    def console(self, name: str) -> Console:
        if name not in self.consoles:
            raise InputError(f"no console {name!r}; there are: {', '.join(self.consoles)}")
        return self.consoles[name]

    def wait_booted(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Waits until the prompt shows for the first time. Raises PcanelError."""
        if not self.booted:
            self.console(REPL).wait(_PROMPT, timeout)
            self.booted = True
            self._post.start()
            self._publish()

    def look_for_prompt(self) -> bool:
        """Whether the prompt has shown; does not wait for it."""
        if not self.booted:
            with contextlib.suppress(PcanelError):
                self.wait_booted(0)
        return self.booted

    def look_on(self, name: str) -> socket.socket:
        """A socket that shows a console from now on and types on it, for a terminal."""
        self.console(name)
        return self._hub.look_on(self._endpoints[name])

    def exec(self, code: str, timeout: float = 60, on_output: Callable[[bytes], None] | None = None) -> str:
        """Runs code at the prompt and returns what it printed. Raises repl.RemoteError."""
        self.wait_booted()
        return repl.execute(self._endpoints[REPL].path, code, timeout, on_output, self.failure)

    def eval(self, expression: str, timeout: float = 60):
        """The value of an expression at the prompt, for values that print as literals."""
        self.wait_booted()
        return repl.evaluate(self._endpoints[REPL].path, expression, timeout)

    def ram(self) -> Ram:
        """The machine's memory, past the prompt; the caller closes it. EngineError where the engine shows none."""
        return Ram(*self.engine.open_memory())

    def _type(self, data: bytes) -> None:
        """On COM1, whatever client the prompt has now."""
        self.consoles[REPL].send(data)

    def url(self, name: str) -> str:
        """The argument of `mpremote connect` for this console: the path of a PTY."""
        self.console(name)
        return self._endpoints[name].pty

    def refusal(self, name: str) -> str | None:
        """The monitor's line about a guest that it did not start, once the prompt is there; else None."""
        line = rb"^guest " + re.escape(name).encode() + rb"(?: does not start)?: .*"
        with contextlib.suppress(PcanelError):
            return self.console(REPL).wait(line, 0)[0].decode(errors="replace") if self.look_for_prompt() else None
        return None

    def broken_policies(self) -> list[str]:
        """The monitor's messages about policy files that failed: a traceback each."""
        return [match[0] for match in _BROKEN.finditer(self.console(REPL).text())]

    def failure(self) -> str | None:
        """Why the monitor no longer works, or None: the engine has ended, or COM1 shows last words."""
        with contextlib.suppress(PcanelError):
            return self.console(REPL).wait(_PANIC, 0)[0].decode(errors="replace")
        return self._hub.failure or self.engine.ended()

    def news(self) -> list[str]:
        """A line about each thing that has happened since the last call and does not end the run."""
        troubles = [console.trouble for console in self.consoles.values() if console.trouble]
        fresh = [trouble for trouble in troubles if trouble not in self._told]
        self._told += fresh
        return [*self.engine.news(), *fresh]

    def tails(self) -> str:
        """The last lines of each console and of the engine."""
        tails = [console.tail() for console in self.consoles.values()]
        return "\n".join([*tails, self.engine.log_tail()] if self.engine else tails)

    def _publish(self) -> None:
        self.run.publish(
            engine=self.engine.name,
            cpu=self.engine.cpu,
            reason=self.choice.reason,
            memory=self._machine.memory,
            guests=[str(guest.path) for guest in self.guests],
            booted=self.booted,
            consoles={
                name: {"socket": str(endpoint.path), "pty": endpoint.pty, "log": str(endpoint.console.log)}
                for name, endpoint in self._endpoints.items()
                if name != GDB
            },
            gdb=str(self._endpoints[GDB].path),
        )
