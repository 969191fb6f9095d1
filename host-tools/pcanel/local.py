"""UNIX sockets that only their owner can reach: the ends of consoles that `pcanel` connects to.

A socket's path may be longer than the 108 bytes that the kernel takes, so it is reached through its directory.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid (linux/socket.h)
_TCP = Path("/proc/net/tcp")


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, with mode 0600 before a client can connect to it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            listener.bind(name)
        path.chmod(0o600)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def connect(path: Path) -> socket.socket:
    """A connection to the socket at `path`. Raises OSError."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            line.connect(name)
    except OSError:
        line.close()
        raise
    return line


def accept(listener: socket.socket, uid_of: Callable[[socket.socket], int | None]) -> socket.socket | None:
    """The next connection; None where that is another user's, or has closed again."""
    try:
        line, _ = listener.accept()
    except OSError:
        return None
    try:
        ours = is_ours(uid_of(line))
    except OSError:
        ours = False
    if ours:
        return line
    line.close()
    return None


def is_ours(uid: int | None) -> bool:
    """Whether a peer may use what is ours: this user, or root."""
    return uid in (os.geteuid(), 0)


def peer_uid(line: socket.socket) -> int:
    """The user at the other end of a UNIX socket."""
    return _PEER.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1]


def tcp_peer_uid(line: socket.socket) -> int | None:
    """The user whose process has the other end of a loopback TCP connection; None if no process has it.

    The kernel lists each end as `sl local remote st queues tr retrnsmt uid ...` (proc(5), /proc/net/tcp).
    """
    ours, theirs = _address(line.getsockname()), _address(line.getpeername())
    for entry in _TCP.read_text().splitlines()[1:]:
        words = entry.split()
        if words[1:3] == [theirs, ours]:
            return int(words[7])
    return None


def _address(name: tuple[str, int]) -> str:
    """As the kernel's table has it: the address as a word of this machine's byte order, and the port."""
    (word,) = struct.unpack("=I", socket.inet_aton(name[0]))
    return f"{word:08X}:{name[1]:04X}"


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
