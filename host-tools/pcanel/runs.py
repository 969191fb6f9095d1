"""Runs on this machine: a directory each, with what others need to reach the consoles.

The owner of a run holds a lock on the file `lock` in its directory for as long as it
lives, so a run whose owner was killed is distinguished from a living one without asking
anybody. Directories of ended runs stay for their logs; the oldest go.
"""

import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from pcanel.errors import InputError, PcanelError
from pcanel.paths import runs_directory

_KEEP_ENDED = 16


class RunDirectory:
    """The owner's side: makes the directory, holds the lock, publishes the state."""

    def __init__(self, parent: Path | None = None):
        parent = parent or runs_directory()
        parent.mkdir(parents=True, exist_ok=True)
        _prune(parent)
        number = 1 + max((_number(path) for path in parent.iterdir()), default=0)
        while True:
            self.path = parent / f"{number:04d}"
            try:
                self.path.mkdir(mode=0o700)  # what a console shows is its owner's
                break
            except FileExistsError:
                number += 1
        self.id = self.path.name
        self._lock = (self.path / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def publish(self, **state) -> None:
        """Writes the state as JSON, in one step."""
        fresh = self.path / "run.json.new"
        try:
            fresh.write_text(json.dumps({"id": self.id, "pid": os.getpid(), **state}, indent=1))
            fresh.replace(self.path / "run.json")
        except OSError as error:
            raise PcanelError(f"{fresh}: {error.strerror}") from error

    def close(self) -> None:
        """Ends the run; the directory and its logs stay."""
        shutil.rmtree(self.path / "boot", ignore_errors=True)
        self._lock.close()


@dataclass(frozen=True)
class Run:
    """A running monitor that another process started."""

    path: Path
    state: dict

    @property
    def id(self) -> str:
        return self.state["id"]

    def console(self, name: str) -> dict:
        """{'socket', 'pty', 'log'} of a console. Raises InputError with the names there are."""
        consoles = self.state["consoles"]
        if name not in consoles:
            raise InputError(f"no console {name!r}; there are: {', '.join(consoles)}")
        return consoles[name]

    def wait_booted(self, timeout: float) -> None:
        """Waits until the monitor has shown its prompt."""
        deadline = time.monotonic() + timeout
        while not self.state.get("booted"):
            if time.monotonic() > deadline:
                raise PcanelError(f"run {self.id} has not shown its prompt within {timeout:g} s")
            time.sleep(0.1)
            if not _is_live(self.path):
                raise PcanelError(f"run {self.id} has ended before it showed its prompt")
            self.state.update(_load(self.path))


def live_runs(parent: Path | None = None) -> list[Run]:
    """All runs whose owner lives, oldest first."""
    parent = parent or runs_directory()
    paths = sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    return [Run(path, _load(path)) for path in paths if _is_live(path) and (path / "run.json").exists()]


def find(run_id: str | None = None) -> Run:
    """The run named, or the only one there is."""
    runs = live_runs()
    if run_id is not None:
        runs = [run for run in runs if run.id == run_id]
        if not runs:
            raise InputError(f"no monitor is running as {run_id!r} (pcanel status lists those that are)")
    if not runs:
        raise InputError("no monitor is running (pcanel run starts one)")
    if len(runs) > 1:
        ids = ", ".join(run.id for run in runs)
        raise InputError(f"several monitors are running ({ids}); choose one by --run ID")
    return runs[0]


def _is_live(path: Path) -> bool:
    """Whether a run of this user's goes on there; another user's may say anything, and is none of ours."""
    try:
        if path.stat().st_uid != os.geteuid():
            return False
        with (path / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _load(path: Path) -> dict:
    return json.loads((path / "run.json").read_text())


def _number(path: Path) -> int:
    return int(path.name) if path.name.isdigit() else 0


def _is_ours(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid() and (path / "lock").exists()
    except FileNotFoundError:  # another run has removed it just now
        return False


def _prune(parent: Path) -> None:
    ended = [path for path in sorted(parent.iterdir()) if _is_ours(path) and not _is_live(path)]
    for path in ended[:-_KEEP_ENDED]:
        shutil.rmtree(path, ignore_errors=True)
