"""Memory by the prompt's line, where there is no way past it: a PC, or a monitor inside a machine inside Bochs.

Pieces travel compressed (DEFLATE, as base64; vmm/debug/line.py). The line does 11,520 characters a second.
"""

import base64
import zlib
from collections.abc import Callable

from pcanel.errors import EngineError

_PIECE = 0x8000  # bytes at once
_CODE = "__import__('vmm.debug.line', None, None, ['send']).send(%d, %d)"


class LineMemory:
    """read(hpa, size) through execute(code), which runs a line at the monitor's prompt."""

    def __init__(self, execute: Callable[[str], str]):
        self._execute = execute

    def read(self, hpa: int, size: int) -> bytes:
        parts = []
        for at in range(0, size, _PIECE):
            parts.append(self._piece(hpa + at, min(_PIECE, size - at)))
        return b"".join(parts)

    def _piece(self, hpa: int, size: int) -> bytes:
        said = self._execute(_CODE % (hpa, size)).strip()
        if not said:
            return bytes(size)
        try:
            data = zlib.decompress(base64.b64decode(said, validate=True), -15)
        except (ValueError, zlib.error) as error:
            raise EngineError(f"what the monitor sent is no piece of its memory: {error}") from error
        if len(data) != size:
            raise EngineError(f"the monitor sent {len(data)} bytes of its memory instead of {size}")
        return data
