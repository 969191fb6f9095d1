"""One gdb process that a test types into, and reads until it has carried out the line."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time

from pcanel.commands.gdb import command_line, environment

TIMEOUT = 30  # seconds of a command
_QUIT_TIMEOUT = 10
_MARK = "@@done"


class Gdb:
    """words: gdb's command line, as `pcanel gdb` has it."""

    def __init__(self, words: list[str]):
        words = [*words, "-nx", "-ex", "set height 0", "-ex", "set width 0"]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(), bufsize=0
        )
        self._text = b""
        self.first = self("")

    def __call__(self, *commands: str, timeout: float = TIMEOUT) -> str:
        """What gdb says to these lines."""
        return "".join([self._one(command, timeout) for command in commands])

    def _one(self, command: str, timeout: float) -> str:
        self.type(command)
        return self.wait(timeout)

    def type(self, command: str) -> None:
        """A line; wait() waits for its end."""
        self._process.stdin.write(f"{command}\necho {_MARK}\\n\n".encode())

    def wait(self, timeout: float = TIMEOUT) -> str:
        mark = f"{_MARK}\n".encode()
        return self._until(mark, timeout).replace("(gdb) ", "")

    def _until(self, mark: bytes, timeout: float) -> str:
        end = time.monotonic() + timeout
        while mark not in self._text:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, end - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not data:
                raise AssertionError(f"gdb said no more than: {self._text.decode(errors='replace')}")
            self._text += data
        text, _, self._text = self._text.partition(mark)
        return text.decode(errors="replace")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """It ends without a word."""
        self._process.kill()
        self._process.wait()

    def quit(self) -> None:
        """It ends as by `quit`."""
        try:
            self._process.communicate(b"quit\n", _QUIT_TIMEOUT)
        finally:
            self.kill()


def attached(monitor, number: int, symbols=None) -> Gdb:
    """gdb on a guest of a Monitor, by its number."""
    return Gdb(command_line(str(monitor.run.path / "gdb.sock"), number, symbols, 0, []))
