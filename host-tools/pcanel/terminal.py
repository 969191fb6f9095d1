"""A terminal on the consoles: raw mode, Ctrl-] for the menu.

The menu's keys switch from console to console, so that one terminal is enough for
the prompt and every guest. The prompt gets the size of the terminal, so that it marks pastes, fills lines and shows
pages (port/prompt.c), is shown in colour (paint.py), and its lines go to the history (history.py).
"""

import contextlib
import os
import select
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpremote.console import Console as Tty

from pcanel import history, paint
from pcanel.disassembly import Disassembly
from pcanel.replay import harmless

_MENU_KEY = 0x1D  # Ctrl-]
_PERIOD = 0.5  # seconds between two calls of `watch`
_PAUSE = 0.05  # seconds without output after which a line is shown as far as it is
_BOOT = b"\nPcanel/Py on "  # the monitor starts, and knows no terminal
_USUAL = (80, 24)  # columns and rows that a guest believes in
_REPLAY = 2048  # bytes of a console's log that are shown when it comes to the front


@dataclass(frozen=True)
class Line:
    """A console as the terminal needs it."""

    name: str
    connect: Callable[[], socket.socket]
    log: Path
    is_prompt: bool = False


class Left(Exception):
    """The person has asked to leave, or the line has ended; the text says which."""


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


class Terminal:
    """Shows one of `lines` at a time.

    leave   what the menu says of leaving
    watch   called again and again: returns a reason to end, or None
    news    called as often: returns lines to show
    """

    def __init__(
        self,
        lines: list[Line],
        leave: str,
        watch: Callable[[], str | None],
        news: Callable[[], list[str]] = lambda: [],
    ):
        self._lines = lines
        self._leave = leave
        self._watch = watch
        self._news = news
        self._tty = Tty()
        self._line: Line | None = None
        self._socket: socket.socket | None = None
        self._listing = Disassembly()
        self._painter = paint.Painter() if paint.wanted() else None
        self._typed = history.Typed()
        self._told: tuple[int, int] | None = None  # the size that the prompt has been told

    def run(self, first: str) -> str:
        """Until the user leaves or `watch` returns a reason; returns that reason ('' if left)."""
        self._show(next(line for line in self._lines if line.name == first), replay=False)
        self._tty.enter()
        try:
            while True:
                self._turn()
        except Left as reason:
            return str(reason)
        finally:
            self._untell()
            self._tty.exit()
            self._socket.close()
            history.save(self._typed.lines)
            print()

    def _turn(self) -> None:
        waits = self._listing.waits or self._painter and self._painter.waits
        ready = select.select([self._tty.infd, self._socket], [], [], _PAUSE if waits else _PERIOD)[0]
        if self._socket in ready:
            data = self._socket.recv(65536)
            if not data:
                raise Left(self._watch() or f"the console {self._line.name} has ended")
            self._output(data)
        elif waits:
            self._flush()
        self._tell()
        if self._tty.infd in ready:
            self._type(os.read(self._tty.infd, 4096))
        for line in self._news():
            self._say(line)
        if not ready:
            reason = self._watch()
            if reason:
                raise Left(reason)

    def _output(self, data: bytes) -> None:
        if self._line.is_prompt:
            if _BOOT in data:
                self._told = None
            self._typed.feed(data)
            data = self._listing.feed(data)
            data = self._painter.feed(data) if self._painter else data
        self._write(data)

    def _flush(self) -> None:
        """Nothing has come for a while: what was held back of a line is shown."""
        data = self._listing.flush()
        self._write(self._painter.feed(data) + self._painter.flush() if self._painter else data)

    def _tell(self) -> None:
        """The prompt learns the terminal's size while it waits: a program at the raw REPL would take it for its own."""
        size = shutil.get_terminal_size(_USUAL)
        if self._line.is_prompt and self._told != size and self._typed.waits:
            self._told = size
            self._socket.sendall(b"\x1b[8;%d;%dt" % (size.lines, size.columns))

    def _untell(self) -> None:
        if self._line and self._line.is_prompt and self._told and self._typed.waits:
            with contextlib.suppress(OSError):
                self._socket.sendall(b"\x1b[8;0;0t")
        if self._told:
            self._write(b"\x1b[?2004l")
        self._told = None

    def _type(self, data: bytes) -> None:
        if not data:
            raise Left("")
        before, key, after = data.partition(bytes([_MENU_KEY]))
        self._socket.sendall(before)
        if key:
            self._menu(after[:1] or os.read(self._tty.infd, 1))
            if after[1:]:
                self._type(after[1:])

    def _menu(self, key: bytes) -> None:
        number = key[0] - ord("0") if key else -1
        if key in (b"q", b""):
            raise Left("")
        if key[0] == _MENU_KEY:
            self._socket.sendall(key)
        elif 0 <= number < len(self._lines):
            self._show(self._lines[number])
        else:
            keys = [f"{number} {line.name}" for number, line in enumerate(self._lines)]
            self._say(f"Ctrl-] and then: {', '.join(keys)}, q {self._leave}, Ctrl-] the key itself")

    def _show(self, line: Line, replay: bool = True) -> None:
        if line is self._line:
            return
        if self._socket:
            self._untell()
            self._socket.close()
        if replay:
            size = shutil.get_terminal_size(_USUAL)
            hint = f"; stty rows {size.lines} cols {size.columns} tells it the size of this terminal"
            self._say(f"console {line.name}{'' if line.is_prompt or size == _USUAL else hint}")
            self._write(_last_lines(line.log))
        self._listing.flush()
        self._line = line
        self._socket = line.connect()

    def _say(self, text: str) -> None:
        self._write(f"\r\n[{text}]\r\n".encode())

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tty.outfile.write(view) :]


def _last_lines(log: Path) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _REPLAY, 0))
        data = file.read()
    return harmless(data if size <= _REPLAY else data.partition(b"\n")[2])
