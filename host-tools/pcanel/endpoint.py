"""One console's places to connect to: the engine's serial line on one side, clients on the other.

The engine connects to a loopback socket of ours, so no port can be taken by
somebody else. Clients come to a second loopback socket or to a PTY, both of
which `mpremote connect` takes.
"""

import os
import select
import socket
import tty
from selectors import EVENT_READ

from pcanel.console import Console
from pcanel.stream import Stream

_CLIENT_LIMIT = 4 << 20  # bytes that a client may be behind


class Endpoint:
    """Passes bytes between the engine, the console object and the clients.

    An exclusive console serves one client at a time, the next one when that has
    left: two raw REPL sessions must not be mixed. Onlookers (the terminal of `pcanel
    run`) see everything but what happens while a client holds an exclusive console.
    Runs in the hub's thread.
    """

    def __init__(self, selector, console: Console, exclusive: bool):
        self.console = console
        self._selector = selector
        self._exclusive = exclusive
        self._engine: Stream | None = None
        self._early = bytearray()  # typed before the engine had connected
        self._clients: list[Stream] = []
        self._onlookers: list[Stream] = []
        self._engine_listener = self._listen(self._engine_connects)
        self._client_listener = self._listen(self._client_connects)
        self._pty, slave = os.openpty()
        self.pty = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)
        self._pty_stream: Stream | None = None
        self.engine_port: int = self._engine_listener.getsockname()[1]
        self.client_port: int = self._client_listener.getsockname()[1]

    def transmit(self, data: bytes) -> None:
        if self._engine is None:
            self._early += data
        else:
            self._engine.write(data)

    def look_on(self, line: socket.socket) -> None:
        """Joins an onlooker by its end of a socket pair."""
        self._onlookers.append(
            Stream(self._selector, line, self.transmit, self._onlooker_leaves, _CLIENT_LIMIT)
        )

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
            if listener.fileno() in self._selector.get_map():
                self._selector.unregister(listener)
            listener.close()
        os.close(self._pty)
        self.console.close()

    def _listen(self, accept) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        self._selector.register(listener, EVENT_READ, accept)
        return listener

    def _engine_connects(self, _events: int) -> None:
        line, _ = self._engine_listener.accept()
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.unregister(self._engine_listener)
        self._engine = Stream(self._selector, line, self._from_engine, self._engine_leaves)
        self._engine.write(bytes(self._early))

    def _engine_leaves(self, stream: Stream) -> None:
        stream.file.close()
        self.console.end("the engine has closed the line")

    def _from_engine(self, data: bytes) -> None:
        self.console.feed(data)
        shown = [] if self._exclusive and self._clients else self._onlookers
        for stream in self._clients + shown:
            stream.write(data)

    def _client_connects(self, _events: int) -> None:
        line, _ = self._client_listener.accept()
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._add(line)

    def _add(self, file) -> Stream:
        stream = Stream(self._selector, file, self.transmit, self._client_leaves, _CLIENT_LIMIT)
        self._clients.append(stream)
        if self._exclusive and self._client_listener.fileno() in self._selector.get_map():
            self._selector.unregister(self._client_listener)
        return stream

    def _onlooker_leaves(self, stream: Stream) -> None:
        self._onlookers.remove(stream)
        stream.file.close()

    def _client_leaves(self, stream: Stream) -> None:
        self._clients.remove(stream)
        if stream is self._pty_stream:
            self._pty_stream = None
        else:
            stream.file.close()
        if self._exclusive:
            self._selector.register(self._client_listener, EVENT_READ, self._client_connects)


def _is_open(master: int) -> bool:
    """Whether anybody has the PTY's other side open."""
    poll = select.poll()
    poll.register(master, select.POLLIN)
    return not any(events & select.POLLHUP for _, events in poll.poll(0))
