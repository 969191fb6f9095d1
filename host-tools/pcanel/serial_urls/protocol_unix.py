"""pyserial's line over a UNIX socket, for mpremote's transport."""

from pathlib import Path

from serial import SerialException
from serial.urlhandler import protocol_socket

from pcanel import local

PROTOCOL = "unix"


class Serial(protocol_socket.Serial):
    """As pyserial's `socket://`, to the path behind `unix://`."""

    logger = None  # pyserial has one per URL

    def open(self) -> None:
        path = Path(self.portstr.removeprefix(f"{PROTOCOL}://"))
        try:
            self._socket = local.connect(path)
        except OSError as error:
            raise SerialException(f"{path}: {error.strerror}") from error
        self._socket.setblocking(False)
        self.is_open = True

    def close(self) -> None:
        if self.is_open:
            self._socket.close()
            self.is_open = False
