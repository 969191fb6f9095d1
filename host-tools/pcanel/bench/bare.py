"""Bochs with a medium of ours, or a disk, and no monitor: what the peers of the bench run in.

with Bare(lambda iso: burn(iso, ...)) as machine:
    machine.console.expect("done", 60)
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pcanel.console import Console
from pcanel.engines.base import Machine
from pcanel.engines.bochs import Bochs
from pcanel.hostdisks import Disk
from pcanel.hub import Hub
from pcanel.runs import RunDirectory

_MEMORY = 256  # MiB


class Bare:
    """Starts on entry, ends on exit.

    make_medium(path) writes the ISO. cpu: Bochs's model; memory: MiB; engine: Bochs, or a class of it
    with a debugger script of its own; disks: those of the machine. `console` is COM1.
    """

    def __init__(
        self,
        make_medium: Callable[[Path], None],
        cpu: str | None = None,
        memory: int = _MEMORY,
        engine: type[Bochs] = Bochs,
        disks: Sequence[Disk] = (),
    ):
        self._make_medium = make_medium
        self._cpu = cpu
        self._memory = memory
        self._engine = engine
        self._disks = list(disks)
        self.run: RunDirectory | None = None
        self.engine: Bochs | None = None
        self._hub: Hub | None = None
        self.console: Console | None = None

    def __enter__(self) -> "Bare":
        self.run = RunDirectory()
        iso = self.run.path / "bare.iso"
        self._make_medium(iso)
        self._hub = Hub()
        end = self._hub.open("com1", self.run.path / "com1.log")
        self.console = end.console
        self.engine = self._engine(Machine(self.run.path, iso, self._memory, self._cpu, ports=[end.listen()]))
        self.engine.machine.disks = self._disks  # an ISO of the monitor's has none, and Machine.check() knows no other
        self._hub.start()
        try:
            self.engine.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception) -> None:
        self.engine.stop()
        self._hub.stop()
        (self.run.path / "bare.iso").unlink(missing_ok=True)
        self.run.close()
