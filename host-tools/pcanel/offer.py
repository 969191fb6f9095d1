"""A socket in a run's directory at which clients of this user get something: each is served in a thread of its own."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from selectors import EVENT_READ

from pcanel import local


class Offer:
    """Listens at `path`; serve(line) answers a client and closes the line. Runs in the hub's thread but for serve()."""

    def __init__(self, selector, path: Path, serve: Callable[[socket.socket], None]):
        self._path = path
        self._serve = serve
        self._selector = selector
        self._listener = local.listen(path)
        self._listener.setblocking(False)
        selector.register(self._listener, EVENT_READ, self._client_connects)

    def _client_connects(self, _events: int) -> None:
        line = local.accept(self._listener, local.peer_uid)
        if line is not None:
            line.setblocking(True)
            threading.Thread(target=self._serve, args=(line,), name=self._path.name, daemon=True).start()

    def close(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
