"""One console's places to connect to: the engine's serial line on one side, clients on the other.

Only this user (and root) gets to either side. The engine inherits one end of a socket pair, or connects to
a loopback port of ours where it can do no better; then the kernel says whose process it is. Clients come
to a UNIX socket in the run's directory or to a PTY, which `mpremote connect` takes; both have mode 0600.
"""

import os
import select
import socket
import tty
from collections.abc import Callable
from pathlib import Path
from selectors import EVENT_READ

from pcanel import local
from pcanel.console import Console
from pcanel.errors import EngineError
from pcanel.stream import Stream

_CLIENT_LIMIT = 4 << 20  # bytes that a client may be behind
_PTY_TRIES = 8


class Endpoint:
    """Passes bytes between the engine, the console object and the clients.

    An exclusive console serves one client at a time, the next one when that has
    left: two raw REPL sessions must not be mixed. Onlookers (the terminal of `pcanel
    run`) see everything but what happens while a client holds an exclusive console.
    Runs in the hub's thread, but for pair() and listen(), which are called before that starts.
    """

    def __init__(self, selector, console: Console, path: Path, exclusive: bool, goodbye: bytes = b""):
        """goodbye: what the engine is sent when a client has left."""
        self.console = console
        self.path = path
        self._selector = selector
        self._exclusive = exclusive
        self._goodbye = goodbye
        self._engine: Stream | None = None
        self._early = bytearray()  # typed before the engine had connected
        self._clients: list[Stream] = []
        self._onlookers: list[Stream] = []
        self._engine_listener: socket.socket | None = None
        self._client_listener = self._wait_at(local.listen(path), self._client_connects)
        self._pty, self.pty = _open_pty()
        self._pty_stream: Stream | None = None

    def pair(self) -> socket.socket:
        """The engine's end of a socket pair, for an engine that takes a descriptor; the caller closes it."""
        ours, theirs = socket.socketpair()
        self._engine = Stream(self._selector, ours, self._from_engine, self._engine_leaves)
        return theirs

    def listen(self) -> int:
        """The loopback port for an engine that takes no descriptor."""
        self._engine_listener = self._wait_at(socket.create_server(("127.0.0.1", 0)), self._engine_connects)
        return self._engine_listener.getsockname()[1]

    def transmit(self, data: bytes) -> None:
        if self._engine is None:
            self._early += data
        else:
            self._engine.write(data)

    def look_on(self, line: socket.socket) -> None:
        """Joins an onlooker by its end of a socket pair."""
        self._onlookers.append(Stream(self._selector, line, self.transmit, self._onlooker_leaves, _CLIENT_LIMIT))

    def look_at_pty(self) -> None:
        """Takes a client that has opened the PTY; called now and then."""
        if self._pty_stream is None and not (self._exclusive and self._clients) and _is_open(self._pty):
            self._pty_stream = self._add(self._pty)

    def close(self) -> None:
        for stream in self._clients + self._onlookers:
            stream.close()
        if self._engine:
            self._engine.close()
        for listener in (self._engine_listener, self._client_listener):
            if listener:
                self._leave(listener)
                listener.close()
        self.path.unlink(missing_ok=True)
        os.close(self._pty)
        self.console.close()

    def _wait_at(self, listener: socket.socket, accept: Callable[[int], None]) -> socket.socket:
        listener.setblocking(False)  # a client that has gone again is not waited for
        self._selector.register(listener, EVENT_READ, accept)
        return listener

    def _leave(self, listener: socket.socket) -> None:
        """Refuse connections, for ever or for now."""
        if listener.fileno() in self._selector.get_map():
            self._selector.unregister(listener)

    def _engine_connects(self, _events: int) -> None:
        """Any user can connect to a port; a process that is not ours is turned away, and the engine still gets in."""
        line = local.accept(self._engine_listener, local.tcp_peer_uid)
        if line is None:
            return
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._leave(self._engine_listener)
        self._engine_listener.close()
        self._engine_listener = None
        self._engine = Stream(self._selector, line, self._from_port, self._engine_leaves)
        self._engine.write(bytes(self._early))

    def engine_gone(self) -> None:
        """The engine has ended: a line that it never connected shows nothing any more."""
        if self._engine is None:
            self.console.end("the engine has ended before it had connected its lines")

    def _engine_leaves(self, stream: Stream) -> None:
        stream.file.close()
        self.console.end("the engine has closed the line")

    def _from_port(self, data: bytes) -> None:
        """Bochs sends each byte by itself and the next one when that is acknowledged, which takes 40 ms unless
        told otherwise, after each read."""
        self._engine.file.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._from_engine(data)

    def _from_engine(self, data: bytes) -> None:
        self.console.feed(data)
        shown = [] if self._exclusive and self._clients else self._onlookers
        for stream in self._clients + shown:
            stream.write(data)

    def _client_connects(self, _events: int) -> None:
        line = local.accept(self._client_listener, local.peer_uid)
        if line is not None:
            self._add(line)

    def _add(self, file) -> Stream:
        stream = Stream(self._selector, file, self.transmit, self._client_leaves, _CLIENT_LIMIT)
        self._clients.append(stream)
        if self._exclusive:
            self._leave(self._client_listener)
        return stream

    def _onlooker_leaves(self, stream: Stream) -> None:
        self._onlookers.remove(stream)
        stream.file.close()

    def _client_leaves(self, stream: Stream) -> None:
        self._clients.remove(stream)
        if self._goodbye:
            self.transmit(self._goodbye)
        if stream is self._pty_stream:
            self._pty_stream = None
        else:
            stream.file.close()
        if self._exclusive:
            self._selector.register(self._client_listener, EVENT_READ, self._client_connects)


def _open_pty() -> tuple[int, str]:
    """The master of a raw PTY that only its owner can open, and the path of its other side.

    The kernel gives a new PTY the mode of the mount, often 0620. Whoever had opened it before it was 0600 would
    still have it open, and then it is not used.
    """
    for _ in range(_PTY_TRIES):
        master, slave = os.openpty()
        os.fchmod(slave, 0o600)
        tty.setraw(slave)
        path = os.ttyname(slave)
        os.close(slave)
        if not _is_open(master):
            return master, path
        os.close(master)
    raise EngineError("another user opens each new PTY of ours")


def _is_open(master: int) -> bool:
    """Whether the PTY's other side is open."""
    poll = select.poll()
    poll.register(master, select.POLLIN)
    return not any(events & select.POLLHUP for _, events in poll.poll(0))
