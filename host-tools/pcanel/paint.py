"""The prompt in colour: the prompt itself, errors and lines about guests, in what a terminal shows.

Only bytes that select colours are added, and none is held back for longer than flush() allows. $NO_COLOR, or a terminal
that is "dumb", leaves it as it is. Source: ECMA-48, "SGR".
"""

import os
import re

_RESET = b"\x1b[m"
_PROMPT = b"\x1b[1;32m"
_TRACE = b"\x1b[31m"
_ERROR = b"\x1b[1;31m"
_GUEST = b"\x1b[36m"

_TRACEBACK = b"Traceback (most recent call last):"
_PLAIN = {b">>> ": _PROMPT, b"... ": _PROMPT, b"=== ": _PROMPT, _TRACEBACK: _TRACE}
_NAME = re.compile(rb"\[[\w.-]{1,64}\] ")
_NAME_BEGUN = re.compile(rb"\[[\w.-]{0,64}\]?$")
_MISTAKE = re.compile(rb"[A-Z][A-Za-z]{0,32}Error: ")  # told without a traceback
_MISTAKE_BEGUN = re.compile(rb"[A-Z][A-Za-z]{0,37}:?$")
_CSI = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
_CSI_BEGUN = re.compile(rb"\x1b(\[[0-?]*[ -/]*)?$")


def wanted() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb")


class Painter:
    """feed() returns what is to be shown for the bytes that came; flush() what it still waited with."""

    def __init__(self):
        self._begun = b""  # of a line, as long as it may still become one that has a colour
        self._at_start = True
        self._colour = b""
        self._in_traceback = False

    @property
    def waits(self) -> bool:
        """Whether something is held back."""
        return bool(self._begun)

    def feed(self, data: bytes) -> bytes:
        shown = bytearray()
        for byte in data:
            c = bytes([byte])
            if c in b"\r\n":
                shown += self._end_of_line() + c
            elif not self._at_start:
                shown += c
            else:
                self._begun += c
                shown += self._look()
        return bytes(shown)

    def flush(self) -> bytes:
        """Nothing has come for a while: what there is of the line is shown as it is."""
        begun, self._begun = self._begun, b""
        self._at_start = self._at_start and not begun
        return begun

    def _end_of_line(self) -> bytes:
        rest, self._begun = self._begun, b""
        colour, self._colour = self._colour, b""
        self._at_start = True
        return rest + (_RESET if colour else b"")

    def _look(self) -> bytes:
        """The line's beginning has one more byte: what can be shown of it."""
        begun = self._begun
        if begun[:1] == b"\x1b":
            if _CSI.fullmatch(begun):
                self._begun = b""
                return begun
            return b"" if _CSI_BEGUN.match(begun) else self._show(b"")
        if self._in_traceback and begun not in _PLAIN:
            self._in_traceback = begun[:1] == b" "
            return self._show(_TRACE if self._in_traceback else _ERROR)
        if begun in _PLAIN:
            colour = _PLAIN[begun]
            self._in_traceback = begun == _TRACEBACK
            if colour == _PROMPT:  # what is typed behind it has none
                self._begun, self._at_start = b"", False
                return colour + begun + _RESET
            return self._show(colour)
        if _NAME.fullmatch(begun):
            return self._show(_GUEST)
        if _MISTAKE.fullmatch(begun):
            return self._show(_ERROR)
        if _NAME_BEGUN.match(begun) or _MISTAKE_BEGUN.match(begun) or any(word.startswith(begun) for word in _PLAIN):
            return b""
        return self._show(b"")

    def _show(self, colour: bytes) -> bytes:
        begun, self._begun = self._begun, b""
        self._colour = colour
        self._at_start = False
        return colour + begun
