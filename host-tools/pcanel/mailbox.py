"""The host's side of the monitor's mailbox: requests, events and what the monitor asks of the owner of the run.

The layout is vmm/debug/mailbox_layout.py's. It is found by its magic in the image, which no guest can write, so neither
the prompt nor the image's file is needed. Only the owner of the run uses it; others come to the owner (attach.py).
"""

import json
import struct
import time
from collections.abc import Callable

from pcanel.errors import EngineError, PcanelError
from pcanel.ram.map import Ram
from pcanel.repl import RemoteError
from pcanel.vmm_import import importable

with importable():
    from vmm.debug.mailbox_layout import (
        ANSWERED,
        ASK,
        ASK_AT,
        ASK_ROOM,
        ASK_SIZE,
        ASKED,
        HEAD,
        HOST,
        REPLIED,
        REPLY_AT,
        REPLY_SIZE,
        REQUEST_AT,
        REQUEST_ROOM,
        REQUEST_SIZE,
        RING,
        RING_AT,
        RUNG,
        TAIL,
    )

_MAGIC = b"Pcanel/Mailbox1\0"
_IMAGE, _IMAGE_SIZE = 1 << 20, 8 << 20  # where the image lies
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
        if not self._get(HOST):
            self._put(HOST, 1)

    def request(self, code: str, timeout: float) -> str:
        """The repr of an expression's value, or "" for statements. Raises RemoteError with what the monitor says."""
        data = code.encode()
        if len(data) > REQUEST_ROOM:
            raise PcanelError(f"a request of {len(data)} bytes is longer than {REQUEST_ROOM}")
        self._ram.write(self._at + REQUEST_AT, data)
        self._put(REQUEST_SIZE, len(data))
        number = self._get(RUNG) + 1 & 0xFFFFFFFF
        self._put(RUNG, number)
        self._ring(_BELL)
        deadline = time.monotonic() + timeout
        while self._get(REPLIED) != number:
            if time.monotonic() > deadline:
                raise PcanelError(f"the monitor has not answered within {timeout:g} s: a line runs at its prompt")
            time.sleep(_PERIOD)
        said = self._ram.read(self._at + REPLY_AT, self._get(REPLY_SIZE)).decode(errors="replace")
        if said[:1] == "!":
            raise RemoteError("", said[1:])
        return said[1:]

    def events(self) -> list[dict]:
        """The monitor's messages since the last call."""
        head, tail = self._get(HEAD), self._get(TAIL)
        size = head - tail & 0xFFFFFFFF
        if not 0 < size <= RING:
            return []
        at = tail % RING
        first = min(size, RING - at)
        data = self._ram.read(self._at + RING_AT + at, first)
        if size > first:
            data += self._ram.read(self._at + RING_AT, size - first)
        self._put(TAIL, head)
        return [json.loads(line) for line in data.splitlines()]

    def asked(self) -> dict | None:
        """The monitor's current request to the host, or None."""
        if self._get(ASK) != ASKED:
            return None
        return json.loads(self._ram.read(self._at + ASK_AT, self._get(ASK_SIZE)))

    def answer(self, text: str) -> None:
        """The reply to that: "=" and a line for the user, or "!" and why it failed."""
        data = text.encode()[:ASK_ROOM]
        self._ram.write(self._at + ASK_AT, data)
        self._put(ASK_SIZE, len(data))
        self._put(ASK, ANSWERED)
