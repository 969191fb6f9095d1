"""A running monitor from another process: its mailbox, by the owner of the run, unseen by a person at the prompt."""

import ast
import json
import socket
from pathlib import Path
from typing import Any

from pcanel import local, post
from pcanel.errors import EngineError
from pcanel.repl import RemoteError
from pcanel.runs import Run

_TIMEOUT = 60  # seconds for a request
_MORE = 10  # seconds that the owner may need beyond that


class Client:
    """Requests to one run. EngineError where it has no mailbox."""

    def __init__(self, run: Run):
        self._directory = run.path
        self._line = _connect(run.path)
        self._stream = self._line.makefile("rw")
        self.run("None")

    def run(self, code: str, timeout: float = _TIMEOUT) -> str:
        """The repr of an expression's value, "" for statements. RemoteError with the monitor's traceback."""
        self._line.settimeout(timeout + _MORE)
        try:
            self._stream.write(json.dumps({"code": code, "timeout": timeout}) + "\n")
            self._stream.flush()
            said = json.loads(self._stream.readline() or '{"error": "the run has ended"}')
        except (OSError, ValueError) as error:
            raise EngineError(f"the run does not answer: {error}") from error
        if "error" in said:
            raise RemoteError("", said["error"]) if said.get("remote") else EngineError(said["error"])
        return said["value"]

    def evaluate(self, expression: str, timeout: float = _TIMEOUT) -> Any:
        """The value of an expression, where its repr is a literal."""
        return ast.literal_eval(self.run(expression, timeout))

    def printed(self, code: str, timeout: float = _TIMEOUT) -> str:
        """The output of statements, as the prompt would show it."""
        return self.evaluate(f"__import__('vmm.debug.mailbox', None, None, ['printed']).printed({code!r})", timeout)

    def events(self, prefix: str) -> "Events":
        """The monitor's messages about policies whose keys begin with `prefix`, from now on."""
        return Events(self._directory, prefix)

    def close(self) -> None:
        self._stream.close()
        self._line.close()


class Events:
    """Iterates over events; when it is closed, or its process ends, the monitor takes those policies off."""

    def __init__(self, directory: Path, prefix: str):
        self._line = _connect(directory)
        self._line.sendall(json.dumps({"events": prefix}).encode() + b"\n")
        self._data = b""
        if not self.next(_TIMEOUT):  # from here on none is missed
            raise EngineError("the run does not answer")

    def next(self, timeout: float | None) -> dict | None:
        """The next event; None after `timeout` seconds. EngineError: the run has ended."""
        self._line.settimeout(timeout)
        while b"\n" not in self._data:
            try:
                more = self._line.recv(65536)
            except TimeoutError:
                return None
            except OSError as error:
                raise EngineError(f"the run does not answer: {error}") from error
            if not more:
                raise EngineError("the run has ended")
            self._data += more
        line, _, self._data = self._data.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        self._line.close()


def _connect(directory: Path) -> socket.socket:
    try:
        return local.connect(directory / post.NAME)
    except OSError as error:
        raise EngineError(f"the run has no mailbox: {error.strerror}") from error
