"""A console of the monitor as a program sees it: send, expect, the last lines."""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pcanel.errors import ConsoleTimeout, EngineError

_GATHER = 0.02  # seconds between two looks: output comes byte by byte
_KEEP = 16 << 20  # bytes of output kept for expect(); the log has all of it


class Console:
    """What one serial line has shown so far, and a way to type on it.

    `expect` looks at output without carriage returns, from where the last match
    ended. The log file has every byte as it came.
    """

    def __init__(self, name: str, log: Path):
        self.name = name
        self.log = log
        self._log = log.open("wb", buffering=0)
        self.trouble: str | None = None  # why the log is not written any more
        self._text = bytearray()
        self._dropped = 0  # bytes of text no longer kept
        self._cursor = 0
        self._changed = threading.Condition()
        self._ended: str | None = None
        self._transmit: Callable[[bytes], None] | None = None

    def connect(self, transmit: Callable[[bytes], None]) -> None:
        self._transmit = transmit

    def feed(self, data: bytes) -> None:
        """Output has come. Where the log cannot take it, a full disk for instance, the console goes on without."""
        if self.trouble is None:
            self._write_log(data)
        with self._changed:
            self._text += data.replace(b"\r", b"")
            if len(self._text) > 2 * _KEEP:
                self._dropped += len(self._text) - _KEEP
                del self._text[:-_KEEP]
            self._changed.notify_all()

    def _write_log(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._log.write(view) :]
        except OSError as error:
            self.trouble = f"{self.log}: {error.strerror}; the run goes on without this log"

    def end(self, reason: str) -> None:
        """No more output will come; wakes up all waiters. The first reason counts."""
        with self._changed:
            self._ended = self._ended or reason
            self._changed.notify_all()

    def close(self) -> None:
        self._log.close()

    def send(self, data: bytes | str) -> None:
        """Types `data` on the console."""
        if self._transmit is None:
            raise EngineError(f"console {self.name}: the engine has not connected it")
        self._transmit(data.encode() if isinstance(data, str) else data)

    def expect(self, pattern: bytes | str | re.Pattern, timeout: float = 60) -> re.Match:
        """Waits until `pattern` (a regular expression over bytes) shows, and returns the match.

        The next call goes on behind the match. Raises ConsoleTimeout with the
        console's last lines after `timeout` seconds, EngineError if the engine ends.
        """
        match, self._cursor = self._wait(compile_pattern(pattern), timeout, self._cursor)
        return match

    def wait(self, pattern: bytes | str | re.Pattern, timeout: float = 60) -> re.Match:
        """As expect, but looks at all output since the start, and `expect` goes on where it was."""
        return self._wait(compile_pattern(pattern), timeout, 0)[0]

    def shows(self, pattern: bytes | str | re.Pattern) -> bool:
        """Whether `pattern` shows in the output since the start."""
        with self._changed:
            return compile_pattern(pattern).search(bytes(self._text)) is not None

    def _wait(self, regex: re.Pattern, timeout: float, position: int) -> tuple[re.Match, int]:
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                start = max(position - self._dropped, 0)
                match = regex.search(bytes(self._text[start:]))
                if match:
                    return match, self._dropped + start + match.end()
                if self._ended is not None:
                    raise EngineError(f"{self._ended}; console {self.name} never showed {readable(regex)}")
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            time.sleep(_GATHER)
        raise ConsoleTimeout(f"console {self.name} did not show {readable(regex)} within {timeout:g} s\n{self.tail()}")

    def text(self) -> str:
        """All output kept so far, without carriage returns."""
        with self._changed:
            return bytes(self._text).decode(errors="replace")

    def tail(self, lines: int = 15) -> str:
        """The last lines, under a heading that names the console and its log."""
        shown = [line for line in self.text().split("\n") if line.strip()][-lines:]
        body = "\n".join("  " + _printable(line) for line in shown) or "  (nothing)"
        return f"--- {self.name} ({self.log}) ---\n{body}"


def compile_pattern(pattern: bytes | str | re.Pattern) -> re.Pattern:
    """A regular expression over bytes in which ^ and $ are the ends of a line."""
    if isinstance(pattern, re.Pattern):
        return pattern
    return re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.MULTILINE)


def readable(regex: re.Pattern) -> str:
    return repr(regex.pattern.decode(errors="replace"))


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)
