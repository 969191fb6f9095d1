"""A screen served by VNC on the loopback address: libvncserver speaks the protocol (host-tools/vnc/server.c).

Only this user's processes and root's may connect.
"""

import ctypes
import socket
from collections.abc import Callable
from typing import Self

import numpy

from pcanel import local
from pcanel.errors import EngineError, InputError
from pcanel.paths import BUILD

_LIBRARY = BUILD / "vnc.so"
_ADDRESS = "127.0.0.1"
_KEY = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint)
_POINTER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_int, ctypes.c_int)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(_LIBRARY))
    except OSError as error:
        raise EngineError(f"{error}; `make elf` builds it") from error
    library.vnc_screen.restype = library.vnc_pixels.restype = ctypes.c_void_p
    library.vnc_screen.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_int, _KEY, _POINTER)
    library.vnc_serve.argtypes = (ctypes.c_void_p, ctypes.c_long)
    library.vnc_resize.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    library.vnc_changed.argtypes = (ctypes.c_void_p, *[ctypes.c_int] * 4)
    library.vnc_client.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.vnc_pixels.argtypes = library.vnc_close.argtypes = (ctypes.c_void_p,)
    return library


class Server:
    """key(down, keysym); pointer(buttons, x, y): as server.c has them. port 0: a free one; `port` is which."""

    def __init__(self, name: str, port: int, key: Callable[[int, int], None], pointer: Callable[[int, int, int], None]):
        self._library = _library()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((_ADDRESS, port))
        except (OSError, OverflowError) as error:
            self._listener.close()
            raise InputError(f"--port {port}: {getattr(error, 'strerror', None) or error}") from error
        self._listener.listen()
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self.clients = 0
        self._kept = name.encode(), _KEY(key), _POINTER(pointer)  # as long as the library uses them
        self._shown = numpy.zeros((1, 1, 3), numpy.uint8)
        self._screen = self._library.vnc_screen(self._kept[0], 1, 1, *self._kept[1:])
        if not self._screen:
            raise EngineError("no memory for a screen")
        self._pixels = self._view(1, 1)

    def _view(self, width: int, height: int) -> numpy.ndarray:
        address = self._library.vnc_pixels(self._screen)
        pixels = (ctypes.c_uint8 * (4 * width * height)).from_address(address)
        return numpy.frombuffer(pixels, numpy.uint8).reshape(height, width, 4)

    def show(self, picture: numpy.ndarray) -> None:
        """height x width x 3. Clients get the rectangle that has changed."""
        height, width = picture.shape[:2]
        if picture.shape != self._shown.shape:
            if not self._library.vnc_resize(self._screen, width, height):
                raise EngineError("no memory for a screen")
            self._pixels = self._view(width, height)
            area = 0, 0, width, height
        else:
            changed = (picture != self._shown).any(axis=2)
            rows, columns = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
            if not len(rows):
                return
            area = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        self._shown = picture
        self._pixels[:, :, :3] = picture
        self._library.vnc_changed(self._screen, *area)

    def serve(self, seconds: float, comes: Callable[[], None]) -> None:
        """Talk to clients for about so long. comes(): called before a new one sees the screen's size."""
        if not self.clients:
            self._listener.settimeout(seconds)
        line = local.accept(self._listener, local.tcp_peer_uid)
        self._listener.setblocking(False)
        if line is not None:
            comes()
            self._library.vnc_client(self._screen, line.detach())
        self.clients = self._library.vnc_serve(self._screen, int(seconds * 1e6))

    def close(self) -> None:
        self._library.vnc_close(self._screen)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception) -> None:
        self.close()
