"""The command `pcanel` as a subprocess, with a directory of runs for each test."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from person import Person

ROOT = Path(__file__).resolve().parents[2]
PCANEL = Path(sys.executable).with_name("pcanel")


class Command:
    """Calls `pcanel`; every call has a limit."""

    def __init__(self, runs: Path):
        self.environment = {**os.environ, "PCANEL_RUNS": str(runs), "XDG_STATE_HOME": str(runs.parent / "state")}

    def __call__(self, *arguments, timeout: float = 120, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            [PCANEL, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            **options,
        )

    def start(self, *arguments, **options) -> subprocess.Popen:
        """A `pcanel` that goes on while the test does."""
        return subprocess.Popen(
            [PCANEL, *map(str, arguments)],
            env=self.environment,
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def pcanel(runs: Path) -> Command:
    return Command(runs)


@pytest.fixture
def person(pcanel):
    """person(*arguments): a Person at a terminal with a `pcanel` of its own, until the test's end."""
    people = []

    def sit_down(*arguments):
        people.append(Person(partial(pcanel.start, *arguments)))
        return people[-1]

    yield sit_down
    for each in reversed(people):
        each.close()
