"""The owner of a run answers at its mailbox: for other processes of this user, and for the monitor itself.

A client of the socket sends lines of JSON: {"code": text, "timeout": seconds} is answered by {"value": text} or
{"error": text}; {"events": prefix} is answered by {"listening": prefix}, and then by a line for each event whose key
begins so, until it leaves.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pcanel import vmcore
from pcanel.errors import PcanelError
from pcanel.mailbox import Mailbox
from pcanel.ram.guest import Facts, GuestMemory
from pcanel.ram.map import Ram
from pcanel.repl import RemoteError

NAME = "mailbox.sock"
_PERIOD = 0.02  # seconds between two looks into the mailbox
_SOON = 0.0005  # the same after a question of the monitor: a file is many
_LEAVE_TIMEOUT = 10  # seconds


class Post:
    """ram(): the machine's memory; ring(data): types on COM1. Nothing happens before start()."""

    def __init__(self, ram: Callable[[], Ram], ring: Callable[[bytes], None]):
        self._open = ram
        self._ring = ring
        self._lock = threading.Lock()  # of the mailbox
        self._ram: Ram | None = None
        self._box: Mailbox | None = None
        self._listeners: dict[str, socket.socket] = {}
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self.why = "the monitor has not shown its prompt"

    def start(self) -> None:
        """The prompt is there: from now on the monitor may ask."""
        try:
            self._ram = self._open()
            self._box = Mailbox(self._ram, self._ring)
            self._box.announce()  # before the first line at the prompt, which may ask
        except PcanelError as error:
            self.why = str(error)
            return
        self._thread = threading.Thread(target=self._watch, name="mailbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        if self._thread:
            self._thread.join()
        if self._ram:
            self._ram.close()

    def serve(self, line: socket.socket) -> None:
        """A client, until it leaves."""
        with line, line.makefile("rw") as stream, contextlib.suppress(OSError, ValueError):
            for text in stream:
                said = json.loads(text)
                if "events" in said:
                    self._listeners[said["events"]] = line
                    stream.write(json.dumps({"listening": said["events"]}) + "\n")
                    stream.flush()
                    with contextlib.suppress(OSError):
                        line.recv(1)  # until it leaves
                    self._left(said["events"])
                    return
                stream.write(json.dumps(self._request(said["code"], said["timeout"])) + "\n")
                stream.flush()

    def _request(self, code: str, timeout: float) -> dict:
        if self._box is None:
            return {"error": self.why}
        try:
            with self._lock:
                return {"value": self._box.request(code, timeout)}
        except RemoteError as error:
            return {"error": error.traceback.strip(), "remote": True}
        except PcanelError as error:
            return {"error": str(error)}

    def _left(self, prefix: str) -> None:
        self._listeners.pop(prefix, None)
        code = f"__import__('vmm.debug.hostpolicy', None, None, ['left']).left({prefix!r})"
        while not self._ending.is_set():
            said = self._request(code, _LEAVE_TIMEOUT)
            if "value" in said or said.get("remote"):
                return  # else a line runs at the prompt: its guest waits until that is over

    def _watch(self) -> None:
        """Serves the monitor's messages and requests. It ends with the engine."""
        with contextlib.suppress(PcanelError):
            busy = 0.0  # until then the next question is near
            while not self._ending.wait(_SOON if time.monotonic() < busy else _PERIOD):
                self._box.announce()
                asked = self._box.asked()
                if asked:
                    self._box.answer(self._do(asked))
                    busy = time.monotonic() + _PERIOD
                for event in self._box.events():
                    self._hand_out(event)

    def _hand_out(self, event: dict) -> None:
        for prefix, line in list(self._listeners.items()):
            if event["key"].startswith(prefix):
                with contextlib.suppress(OSError):
                    line.sendall(json.dumps(event).encode() + b"\n")

    def _do(self, asked: dict) -> str:
        try:
            if asked.get("do") == "dump":
                return "=" + self._dump(Path(asked["file"]), Facts(**asked["facts"]))
            if asked.get("do") in ("read", "write"):
                return f"={self._copy(**asked)}"
            if asked.get("do") == "screenshot":
                from pcanel.screen import file, source  # with numpy: only where it is used

                return "=" + file.write(Path(asked["file"]), source.Facts(**asked["facts"]), self._ram)
            return f"!the host does not know how to {asked.get('do')}"
        except OSError as error:
            return f"!{error.filename}: {error.strerror}" if error.filename else f"!{error.strerror}"
        except (PcanelError, ValueError, TypeError) as error:
            return f"!{error}"

    def _copy(self, do: str, file: str, at: int, hpa: int, size: int) -> int:
        """A piece of a file into the machine's memory or out of it; how many bytes."""
        if do == "read":
            with Path(file).open("rb") as source:
                source.seek(at)
                data = source.read(size)
            self._ram.write(hpa, data)
            return len(data)
        with Path(file).open("r+b" if at else "wb") as target:
            target.seek(at)
            return target.write(self._ram.read(hpa, size))

    def _dump(self, path: Path, facts: Facts) -> str:
        began = time.monotonic()
        written = vmcore.write(path, facts, GuestMemory(self._ram, facts.segments), lambda *_: None)
        return vmcore.summary(path, facts, written, time.monotonic() - began)
