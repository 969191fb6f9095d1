"""A run of the outer system in Bochs: files and a script in, console lines and an exit status out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pcanel.console import Console
from pcanel.engines.base import Machine
from pcanel.engines.bochs import Bochs
from pcanel.errors import PcanelError
from pcanel.hub import Hub
from pcanel.outer import medium
from pcanel.runs import RunDirectory

READY = re.compile(rb"^outer: ready at (\d+\.\d+) s, (.*)\n", re.MULTILINE)
ENDED = re.compile(rb"^outer: ended at (\d+\.\d+) s with status (\d+)\n", re.MULTILINE)
BOOT_TIMEOUT = 300  # seconds; 20 are usual


@dataclass(frozen=True)
class Result:
    """How the script ended. `lines` is what it printed; `ticks` what it took, to a million or so."""

    status: int
    lines: list[str]
    ticks: int


class Outer:
    """Starts on entry (or by start()), ends on exit (or by stop()).

    files      what is put into the system: {path: bytes or a file of this machine}; a program
               of this machine brings its libraries
    script     what /bin/sh runs there, its standard input and output being COM1 (`console`)
    lines      how many of COM2 to COM4 (/dev/ttyS1 to 3) have a console too (`consoles[1]`, ...)
    memory     MiB; cpu: Bochs's model
    """

    def __init__(
        self,
        files: Mapping[str, bytes | Path],
        script: str,
        lines: int = 0,
        memory: int = 1024,
        cpu: str | None = None,
    ):
        self._files = files
        self._script = script
        self._lines = lines
        self._memory = memory
        self._cpu = cpu
        self._hub: Hub | None = None
        self._engine: Bochs | None = None
        self.run: RunDirectory | None = None
        self.consoles: list[Console] = []

    def __enter__(self) -> "Outer":
        self.start()
        return self

    def __exit__(self, *_exception) -> None:
        self.stop()

    @property
    def console(self) -> Console:
        return self.consoles[0]

    def start(self) -> None:
        """Starts Bochs; the system is not up yet when this returns."""
        self.run = RunDirectory()
        iso = self.run.path / "outer.iso"
        medium.make(iso, self._files, self._script)
        self._hub = Hub()
        ends = [self._hub.open(name, self.run.path / f"{name}.log") for name in self._names()]
        self.consoles = [end.console for end in ends]
        ports = [end.listen() for end in ends]
        self._engine = Bochs(Machine(self.run.path, iso, self._memory, self._cpu, ports=ports))
        self._hub.start()
        try:
            self._engine.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends Bochs; the logs stay in the run's directory."""
        if self._engine:
            self._engine.stop()
        if self._hub:
            self._hub.stop()
        if self.run:
            (self.run.path / "outer.iso").unlink(missing_ok=True)
            self.run.close()

    def wait_ready(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Waits until the script starts. Raises PcanelError."""
        self._wait(READY, timeout)

    def result(self, timeout: float) -> Result:
        """Waits until the script has ended, `timeout` seconds from its start at most. Raises PcanelError."""
        began = self._wait(READY, BOOT_TIMEOUT)
        ended = self._wait(ENDED, timeout)
        lines = ended.string[began.end() : ended.start()].decode(errors="replace").splitlines()
        seconds = float(ended[1]) - float(began[1])
        return Result(int(ended[2]), lines, round(seconds * 100_000_000))

    def tails(self) -> str:
        """The last lines of each console and of Bochs."""
        return "\n".join([*(console.tail() for console in self.consoles), self._engine.log_tail()])

    def _wait(self, pattern: re.Pattern, timeout: float) -> re.Match:
        try:
            return self.console.wait(pattern, timeout)
        except PcanelError as error:
            first = str(error).split("\n", 1)[0]
            raise PcanelError(f"{first}\n{self.tails()}") from error

    def _names(self) -> list[str]:
        return [f"com{number}" for number in range(1, self._lines + 2)]
