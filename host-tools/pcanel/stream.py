"""A non-blocking file descriptor that a hub reads from and writes to."""

import os
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE

_CHUNK = 65536


class Stream:
    """Hands what it reads to `on_data`, queues what cannot be written at once.

    `limit` bounds that queue in bytes: a reader that stays behind it is cut off,
    so that a client that stopped reading cannot hold up a console. Used from the hub's
    thread only.
    """

    def __init__(
        self,
        selector,
        file,
        on_data: Callable[[bytes], None],
        on_close: Callable[["Stream"], None],
        limit: int | None = None,
    ):
        self.file = file
        self._selector = selector
        self._on_data = on_data
        self._on_close = on_close
        self._limit = limit
        self._pending = bytearray()
        self._fd = file if isinstance(file, int) else file.fileno()
        os.set_blocking(self._fd, False)
        selector.register(self._fd, EVENT_READ, self.ready)

    def ready(self, events: int) -> None:
        if events & EVENT_READ:
            self._read()
        if events & EVENT_WRITE and self._fd >= 0:
            self._flush()

    def write(self, data: bytes) -> None:
        if self._fd < 0:
            return
        self._pending += data
        self._flush()
        if self._limit is not None and len(self._pending) > self._limit:
            self.close()

    def close(self) -> None:
        if self._fd < 0:
            return
        self._selector.unregister(self._fd)
        self._fd = -1
        self._on_close(self)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # the peer is gone: a reset socket, or a PTY that is not open
            data = b""
        if data:
            self._on_data(data)
        else:
            self.close()

    def _flush(self) -> None:
        try:
            while self._pending:
                del self._pending[: os.write(self._fd, self._pending)]
        except BlockingIOError:
            self._selector.modify(self._fd, EVENT_READ | EVENT_WRITE, self.ready)
            return
        except OSError:
            self.close()
            return
        self._selector.modify(self._fd, EVENT_READ, self.ready)
