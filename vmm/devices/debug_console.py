"""The debug console of virtual machines, port 402h: firmware writes its log there, a character a write.

A read gives E9h, by which firmware detects the port. The last lines are kept.
"""

from micropython import const

_PRESENT = const(0xE9)
_LINES = const(160)
_WIDTH = const(160)  # characters; longer lines are wrapped


class DebugConsole:
    """lines: the last complete lines; text: these and the incomplete one."""

    def __init__(self):
        self.lines = []
        self._line = bytearray()

    @property
    def text(self):
        return "\n".join(self.lines + ([_printable(self._line)] if self._line else []))

    def read(self, offset, size):
        return _PRESENT

    def write(self, offset, size, value):
        if value == 10 or len(self._line) == _WIDTH:
            self.lines.append(_printable(self._line))
            del self.lines[:-_LINES]
            self._line = bytearray()
        if value not in (10, 13):
            self._line.append(value)

    def clear(self):
        self.lines = []
        self._line = bytearray()


def _printable(line):
    return "".join([chr(c) if 32 <= c < 127 else "." for c in line])
