"""The lines typed at the prompt, kept from run to run in $XDG_STATE_HOME/pcanel/history, ~/.local/state otherwise.

The monitor has the history of its own run (port/prompt.c); the file gives it that of earlier runs, as the boot module
"prompt:history". What is typed is read from what the terminal shows: the echo of MicroPython's readline.
"""

import os
import re
from pathlib import Path

MODULE = "prompt:history"
_KEPT = 500  # lines
_LONGEST = 1000  # characters
_PROMPT = ">>> "
_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([@-~])")


def path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "pcanel" / "history"


def load() -> bytes:
    """The file's lines; empty where it cannot be read."""
    try:
        return path().read_bytes()
    except OSError:
        return b""


def save(lines: list[str]) -> None:
    """Adds lines; a directory that may not be written costs the history, and nothing else."""
    lines = [line for line in lines if line.strip() and len(line) <= _LONGEST]
    if not lines:
        return
    kept = []
    for line in load().decode(errors="replace").splitlines() + lines:
        if not kept or kept[-1] != line:
            kept.append(line)
    try:
        path().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path().write_text("\n".join(kept[-_KEPT:]) + "\n")
    except OSError:
        return


class Typed:
    """Collects the lines at the prompt from what it shows. feed() with the output; `lines` has what was entered."""

    def __init__(self):
        self.lines: list[str] = []
        self._line: list[str] = []
        self._at = 0
        self._sequence = ""

    @property
    def waits(self) -> bool:
        """Whether the prompt stands there with nothing typed."""
        return "".join(self._line) == _PROMPT and not self._sequence

    def feed(self, data: bytes) -> None:
        for c in data.decode(errors="replace"):
            if self._sequence or c == "\x1b":
                self._escape(c)
            elif c == "\n":
                self._enter()
            elif c == "\r":
                self._at = 0
            elif c == "\b":
                self._at = max(self._at - 1, 0)
            elif c.isprintable() and self._at <= 4 * _LONGEST:
                self._line[self._at : self._at + 1] = [c]
                self._at += 1

    def _escape(self, c: str) -> None:
        self._sequence += c
        match = _SEQUENCE.fullmatch(self._sequence)
        if match:
            number = int(match[1]) if match[1].isdigit() else 1
            if match[2] == "D":
                self._at = max(self._at - number, 0)
            elif match[2] == "K":
                del self._line[self._at :]
        if match or len(self._sequence) > 16:
            self._sequence = ""

    def _enter(self) -> None:
        text = "".join(self._line)
        if text.startswith(_PROMPT):
            self.lines.append(text[len(_PROMPT) :])
        self._line, self._at = [], 0
