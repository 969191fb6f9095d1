"""The monitor's prompt as a program uses it: mpremote's transport over a UNIX socket.

Never soft-resets: the guests and everything at the prompt stay as they are.
"""

import ast
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import serial
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport

from pcanel.errors import PcanelError
from pcanel.serial_urls.protocol_unix import PROTOCOL

_LEAVE_TIMEOUT = 3  # seconds
_PERIOD = 0.25  # seconds of silence after which to look whether the monitor still lives
_END = b"\x04"  # of what a script prints, and of its traceback
_RAW = b"\x01"  # Ctrl-A
_DETACH = b"\x1d"  # Ctrl-]: vm.console() gives the prompt back; the prompt itself ignores it


class RemoteError(PcanelError):
    """Code that ran on the monitor raised, sys.exit(status) included; `output` is what it printed, `traceback` the
    rest."""

    def __init__(self, output: str, traceback: str):
        super().__init__(traceback.strip())
        self.output = output
        self.traceback = traceback


serial.protocol_handler_packages.append("pcanel.serial_urls")


def execute(
    path: Path | str,
    code: str,
    timeout: float = 60,
    on_output: Callable[[bytes], None] | None = None,
    failure: Callable[[], str | None] = lambda: None,
) -> str:
    """Runs `code` by the raw REPL at the socket `path`, or at a serial line, and returns what it printed.

    path: a Path is a socket's, a str is what pyserial takes.

    `on_output` gets the output as it comes. Raises RemoteError if the code raises,
    PcanelError if the prompt does not answer within `timeout` seconds or `failure` says why it never will.
    """
    with Session(path, timeout) as session:
        return session.execute(code, timeout, on_output, failure)


def evaluate(path: Path | str, expression: str, timeout: float = 60):
    """The value of a Python expression on the monitor, for values that print as literals."""
    return ast.literal_eval(execute(path, f"print(repr({expression}))", timeout).strip())


class Session:
    """The raw REPL for several pieces of code: entered once, left by close(). Arguments and errors as of execute()."""

    def __init__(self, path: Path | str, timeout: float = 60):
        try:
            url = f"{PROTOCOL}://{path}" if isinstance(path, Path) else path
            self._transport = SerialTransport(url, timeout=timeout)
        except (TransportError, OSError) as error:
            raise PcanelError(f"{path}: {error}") from error
        self._transport.is_pty = True  # reads block; mpremote would look every 10 ms otherwise
        self._inside = self._used = False
        try:
            with _told():
                self._transport.serial.write(_DETACH)
                self._transport.enter_raw_repl(soft_reset=False, timeout_overall=timeout)
        except BaseException:
            self._transport.serial.close()
            raise
        self._inside = True

    def execute(self, code: str, timeout: float = 60, on_output=None, failure=lambda: None) -> str:
        """Runs code and returns what it printed. Where that ends by PcanelError the raw REPL has been left."""
        transport = self._transport
        try:
            with _told():
                transport.serial.timeout = timeout
                if self._used:
                    transport.serial.write(_RAW)  # it says its > again, which mpremote waits for
                self._used = True
                transport.exec_raw_no_follow(code)
                transport.serial.timeout = _PERIOD
                printed = _read_part(transport, timeout, _Output(on_output), failure)
                raised = _read_part(transport, timeout, None, failure)
                status = _read_status(transport, timeout, failure)
        except _Gone:
            self._inside = False
            raise
        except PcanelError:
            with _told():
                transport.serial.write(b"\x03")  # guests stand still while code runs at the prompt
                transport.read_until(1, b"\x04>", timeout=_LEAVE_TIMEOUT, timeout_overall=_LEAVE_TIMEOUT)
                self._leave()
            raise
        if raised or status:
            raise RemoteError(printed, raised or status)
        return printed

    def _leave(self) -> None:
        """Back to the friendly prompt."""
        self._inside = False
        self._transport.exit_raw_repl()
        self._transport.read_until(1, b">>> ", timeout=_LEAVE_TIMEOUT, timeout_overall=_LEAVE_TIMEOUT)

    def close(self) -> None:
        try:
            if self._inside:
                with _told():
                    self._leave()
        finally:
            self._transport.serial.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception) -> None:
        self.close()


@contextmanager
def _told() -> Iterator[None]:
    """Turns mpremote's exceptions into PcanelError."""
    try:
        yield
    except (TransportError, OSError, IndexError, struct.error) as error:
        raise PcanelError(f"the prompt did not answer: {error}") from error


class _Gone(PcanelError):
    """The monitor will not answer any more."""


class _Output:
    def __init__(self, on_output):
        self._on_output = on_output

    def __call__(self, data: bytes) -> None:
        if self._on_output and data:
            self._on_output(data.replace(b"\r", b""))


def _read_status(transport: SerialTransport, timeout: float, failure) -> str:
    """Reads up to the raw REPL's `>`: nothing, or how the script has ended (port/softreset.c) if not by itself."""
    said = ""
    while True:
        said += _read_part(transport, timeout, None, failure, b">")
        if not said or said.endswith("\n"):
            return said
        said += ">"


def _read_part(transport: SerialTransport, timeout: float, consumer, failure, end: bytes = _END) -> str:
    """Reads up to the next end mark of the raw REPL."""
    data = bytearray()
    deadline = time.monotonic() + timeout
    while True:
        chunk = transport.serial.read(1)
        if chunk == end:
            return data.decode(errors="replace").replace("\r\n", "\n")
        if chunk:
            data += chunk
            if consumer:
                consumer(chunk)
        else:
            why = failure()
            if why:
                raise _Gone(f"the code has not ended: {why}")
        if time.monotonic() > deadline:
            raise PcanelError(f"the code has not ended within {timeout:g} s; so far it printed {bytes(data)!r}")
