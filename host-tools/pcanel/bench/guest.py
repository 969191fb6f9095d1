"""The bench's guest (guests/exitbench): its options, and the lines that it prints."""

import re
from dataclasses import dataclass
from pathlib import Path

from pcanel.console import Console
from pcanel.errors import InputError, PcanelError
from pcanel.paths import BUILD, ROOT

POLICIES = ROOT / "guests/exitbench/policies.py"
NAME = "exitbench"
_IMAGE = BUILD / "guests/exitbench/exitbench.elf"
DONE = r"^exitbench: done\n"
FAILED = r"^failed: .*\n"
ROUNDS = 2000

_ROW = re.compile(r"^row (\w+) median (\d+) min (\d+) max (\d+) rounds \d+$", re.MULTILINE)
_SKIP = re.compile(r"^skip (\w+) (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """What the guest measured in one row: ticks."""

    median: int
    min: int
    max: int


def image() -> Path:
    """The guest's file. InputError where it has not been built."""
    if not _IMAGE.is_file():
        raise InputError(f"{_IMAGE}: no such file (make guests builds it)")
    return _IMAGE


def cmdline(rows: list[str] | None = None, rounds: int = ROUNDS, **options) -> str:
    """The guest's command line: the rows to run (all where None), and further KEY=VALUE."""
    words = [f"rounds={rounds}", *(f"{key}={value}" for key, value in options.items())]
    if rows is not None:
        words.append("rows=" + ",".join(rows))
    return " ".join(words)


def parse(text: str) -> dict[str, Row]:
    """The rows that a whole run has printed. Raises PcanelError where the guest failed."""
    failed = re.search(FAILED, text, re.MULTILINE)
    if failed:
        raise PcanelError(f"{NAME}: {failed[0].strip()}")
    return {name: Row(*map(int, numbers)) for name, *numbers in _ROW.findall(text)}


def skipped(text: str) -> dict[str, str]:
    """The rows that could not run, and why."""
    return dict(_SKIP.findall(text))


def wait(console: Console, timeout: float) -> str:
    """The guest's output on this console up to its end. Raises PcanelError."""
    return console.expect(rf"(?s).*?({DONE}|{FAILED})", timeout)[0].decode()
