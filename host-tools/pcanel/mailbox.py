"""The host's side of the monitor's mailbox: requests, events and what the monitor asks of the owner of the run.

The layout is vmm/debug/mailbox.py's. It is found by its magic in the image, which no guest can write, so neither the
prompt nor the image's file is needed. Only the owner of the run uses it; others come to the owner (attach.py).
"""

import json
import struct
import time
from collections.abc import Callable

from pcanel.errors import EngineError, PcanelError
from pcanel.ram.map import Ram
from pcanel.repl import RemoteError

_MAGIC = b"Pcanel/Mailbox1\0"
_IMAGE, _IMAGE_SIZE = 1 << 20, 8 << 20  # where the image lies
_RUNG, _HOST, _REQUEST_SIZE, _REPLY_SIZE, _REPLIED, _ASK, _ASK_SIZE, _HEAD, _TAIL = 0, 3, 4, 5, 6, 7, 8, 9, 10
_ASKED, _ANSWERED = 1, 2
_ASK_AT, _REQUEST_AT, _REPLY_AT, _RING_AT = 0x100, 0x4000, 0xC000, 0x18000
_ASK_ROOM, _REQUEST_ROOM, _RING = 0x3F00, 0x8000, 0x8000
_BELL = b"\0"
_PERIOD = 0.002  # seconds between two looks for a reply


class Mailbox:
    """Of a running machine. ring(data): types on COM1."""

    def __init__(self, ram: Ram, ring: Callable[[bytes], None]):
        """EngineError: the image has no mailbox, or has not begun."""
        image = ram.read(_IMAGE, _IMAGE_SIZE)
        at = image.find(_MAGIC)
        if at < 0:
            raise EngineError("this image has no mailbox")
        (self._at,) = struct.unpack_from("<Q", image, at + len(_MAGIC))
        self._ram = ram
        self._ring = ring

    def _get(self, word: int) -> int:
        return int.from_bytes(self._ram.read(self._at + 4 * word, 4), "little")

    def _put(self, word: int, value: int) -> None:
        self._ram.write(self._at + 4 * word, struct.pack("<I", value & 0xFFFFFFFF))

    def announce(self) -> None:
        """Announces a client to the monitor; a machine that was reset has forgotten it."""
        if not self._get(_HOST):
            self._put(_HOST, 1)

    def request(self, code: str, timeout: float) -> str:
        """The repr of an expression's value, or "" for statements. Raises RemoteError with what the monitor says."""
        data = code.encode()
        if len(data) > _REQUEST_ROOM:
            raise PcanelError(f"a request of {len(data)} bytes is longer than {_REQUEST_ROOM}")
        self._ram.write(self._at + _REQUEST_AT, data)
        self._put(_REQUEST_SIZE, len(data))
        number = self._get(_RUNG) + 1 & 0xFFFFFFFF
        self._put(_RUNG, number)
        self._ring(_BELL)
        deadline = time.monotonic() + timeout
        while self._get(_REPLIED) != number:
            if time.monotonic() > deadline:
                raise PcanelError(f"the monitor has not answered within {timeout:g} s: a line runs at its prompt")
            time.sleep(_PERIOD)
        said = self._ram.read(self._at + _REPLY_AT, self._get(_REPLY_SIZE)).decode(errors="replace")
        if said[:1] == "!":
            raise RemoteError("", said[1:])
        return said[1:]

    def events(self) -> list[dict]:
        """The monitor's messages since the last call."""
        head, tail = self._get(_HEAD), self._get(_TAIL)
        size = head - tail & 0xFFFFFFFF
        if not 0 < size <= _RING:
            return []
        at = tail % _RING
        first = min(size, _RING - at)
        data = self._ram.read(self._at + _RING_AT + at, first)
        if size > first:
            data += self._ram.read(self._at + _RING_AT, size - first)
        self._put(_TAIL, head)
        return [json.loads(line) for line in data.splitlines()]

    def asked(self) -> dict | None:
        """The monitor's current request to the host, or None."""
        if self._get(_ASK) != _ASKED:
            return None
        return json.loads(self._ram.read(self._at + _ASK_AT, self._get(_ASK_SIZE)))

    def answer(self, text: str) -> None:
        """The reply to that: "=" and a line for the user, or "!" and why it failed."""
        data = text.encode()[:_ASK_ROOM]
        self._ram.write(self._at + _ASK_AT, data)
        self._put(_ASK_SIZE, len(data))
        self._put(_ASK, _ANSWERED)
