"""QEMU's machine protocol, driven from ordinary code: `qemu.qmp` in a thread of its own."""

import asyncio
import contextlib
import socket
import threading
from collections import deque

from qemu.qmp import QMPClient, QMPError

from pcanel.errors import EngineError

_TIMEOUT = 20  # seconds for a command; a memory image of a big machine takes some


class Qmp:
    """A QMP session over a connected socket. Events are kept in the order they came."""

    def __init__(self, line: socket.socket):
        self._client = QMPClient("pcanel")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._events: deque[dict] = deque(maxlen=256)
        self._line = line
        self._taking = None

    def connect(self) -> None:
        """Waits for QEMU's greeting and starts to take events."""
        self._await(self._client.connect(self._line))
        self._taking = asyncio.run_coroutine_threadsafe(self._take_events(), self._loop)

    def command(self, name: str, **arguments):
        """Runs one command and returns what it answers. Raises EngineError."""
        return self._await(self._client.execute(name, arguments or None))

    def events(self) -> list[dict]:
        """The events so far, each {'event', 'data', 'timestamp'}."""
        return list(self._events)

    def close(self) -> None:
        if self._taking:
            self._taking.cancel()
        with contextlib.suppress(EngineError):  # QEMU may have hung up first
            self._await(self._client.disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _take_events(self) -> None:
        async for event in self._client.events:
            self._events.append(dict(event))

    def _await(self, coroutine):
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, _TIMEOUT), self._loop)
        try:
            return future.result()
        except (QMPError, TimeoutError, EOFError, OSError) as error:
            raise EngineError(f"QEMU's monitor: {error or type(error).__name__}") from error
