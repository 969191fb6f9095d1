"""The thread that moves bytes between the engine's serial lines and their readers and writers."""

import contextlib
import os
import selectors
import socket
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from pcanel.console import Console
from pcanel.endpoint import Endpoint
from pcanel.offer import Offer

_PTY_PERIOD = 0.25  # seconds between two checks whether a PTY was opened


class Hub:
    """Owns the endpoints of one run. All I/O happens in its one thread."""

    def __init__(self):
        self._selector = selectors.DefaultSelector()
        self._endpoints: list[Endpoint] = []
        self._offers: list[Offer] = []
        self._jobs: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        self._stopping = False
        self._ended = False
        self.failure: str | None = None  # what ended the thread before its time
        self.engine_gone: Callable[[], bool] = lambda: False  # whether the engine's process has ended
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)

    def open(self, name: str, log: Path, exclusive: bool = False, goodbye: bytes = b"") -> Endpoint:
        """Makes a console and its endpoint, whose socket lies beside the log. Only before start().

        goodbye: what the engine is sent when a client has left.
        """
        console = Console(name, log)
        endpoint = Endpoint(self._selector, console, log.with_name(f"{name}.sock"), exclusive, goodbye)
        console.connect(lambda data: self._call(lambda: endpoint.transmit(data)))
        self._endpoints.append(endpoint)
        return endpoint

    def offer(self, path: Path, serve: Callable[[socket.socket], None]) -> None:
        """Each client of the socket at `path` is served by serve(its line), in a thread of its own. Only before
        start()."""
        self._offers.append(Offer(self._selector, path, serve))

    def look_on(self, endpoint: Endpoint) -> socket.socket:
        """A socket that shows the console of `endpoint` and types on it."""
        ours, theirs = socket.socketpair()
        self._call(lambda: endpoint.look_on(theirs))
        return ours

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.ident is None:
            self._stopping = True  # it was never started: nothing is served, all is closed
            self._thread.start()
        self._call(self._stop)
        self._thread.join()

    def _call(self, job: Callable[[], None]) -> None:
        with self._lock:
            if not self._ended:
                self._jobs.append(job)
                os.write(self._wake_write, b"\0")

    def _woken(self, _events: int) -> None:
        os.read(self._wake_read, 4096)
        with self._lock:
            jobs, self._jobs = self._jobs, []
        for job in jobs:
            job()

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        reason = "the run has ended"
        try:
            self._serve()
        except Exception as error:  # nothing else would report it
            traceback.print_exc()
            reason = self.failure = f"the consoles have failed: {type(error).__name__}: {error}"
        for endpoint in self._endpoints:
            endpoint.console.end(reason)
            with contextlib.suppress(OSError):
                endpoint.close()
        for offer in self._offers:
            offer.close()
        self._selector.close()
        with self._lock:
            self._ended = True
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _serve(self) -> None:
        gone = False
        while not self._stopping:
            for key, events in self._selector.select(_PTY_PERIOD):
                current = self._selector.get_map().get(key.fd)
                if current and current.data == key.data:  # not closed by an earlier one
                    key.data(events)
            for endpoint in self._endpoints:
                endpoint.look_at_pty()
                if gone:  # for a whole round, in which lines that it had connected have been accepted
                    endpoint.engine_gone()
            gone = gone or self.engine_gone()
