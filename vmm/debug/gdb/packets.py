"""Packets of gdb's remote protocol: `$data#checksum`, with acknowledgements or without.

Input is not trusted: a packet longer than SIZE, with a wrong checksum or with words that are no numbers is counted and
dropped. Source: GDB manual, "Overview" of the remote protocol, "Binary Data".
"""

import binascii

import micropython
from micropython import const

SIZE = const(7680)  # bytes of a packet's data; the rings of the host's UART have 8192
HEX_BYTES = const(SIZE // 2 - 16)  # that a packet carries as hexadecimal digits
BREAK = b"\x03"  # what next() returns for Ctrl-C, which is no packet
ACK = b"+"
NAK = b"-"

_START = b"$"
_END = b"#"
_ESCAPE = b"}"
_FLIP = const(0x20)
_TAIL = const(3)  # '#' and two digits


class BadPacket(ValueError):
    """An invalid packet; the text says why."""


@micropython.viper
def checksum(data, size: int) -> int:
    """The sum of bytes, modulo 256."""
    d = ptr8(data)
    total = 0
    i = 0
    while i < size:
        total += d[i]
        i += 1
    return total & 0xFF


def frame(data):
    """Return bytes as a packet."""
    return _START + data + _END + _digits(data)


def _digits(data):
    return to_hex(bytes((checksum(data, len(data)),)))


def escape(data):
    """Binary data for a packet."""
    for byte in (b"}", b"#", b"$", b"*"):
        if byte in data:
            data = data.replace(byte, bytes((_ESCAPE[0], byte[0] ^ _FLIP)))
    return data


def unescape(data):
    """Binary data from a packet."""
    if _ESCAPE not in data:
        return data
    parts = data.split(_ESCAPE)
    out = [parts[0]]
    for part in parts[1:]:
        if not part:
            raise BadPacket("an escape without a byte")
        out.append(bytes((part[0] ^ _FLIP,)) + part[1:])
    return b"".join(out)


def to_hex(data):
    """Bytes as hexadecimal digits."""
    return binascii.hexlify(data)


def from_hex(text):
    """Hexadecimal digits as bytes. BadPacket."""
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise BadPacket("%d characters that are no hexadecimal digits" % len(text)) from None


def number(text):
    """A hexadecimal number of at most 64 bits. BadPacket."""
    if not 0 < len(text) <= 16:
        raise BadPacket("no number: %d characters" % len(text))
    value = 0
    for c in text:
        digit = b"0123456789abcdef".find(bytes((c | _FLIP,)))
        if digit < 0:
            raise BadPacket("no number")
        value = value << 4 | digit
    return value


def numbers(text, count=2, between=b","):
    """So many numbers. BadPacket."""
    words = text.split(between)
    if len(words) != count:
        raise BadPacket("%d words, not %d" % (len(words), count))
    return [number(word) for word in words]


class Reader:
    """Splits the input into packets. acks: whether checksums are verified (QStartNoAckMode ends that)."""

    def __init__(self):
        self._buffer = bytearray(SIZE + 64)
        self._view = memoryview(self._buffer)
        self._end = 0
        self.acks = True

    def room(self):
        """Where the next bytes go, a memoryview; take(count) them."""
        if self._end == len(self._buffer):
            self._end = 0
            raise BadPacket("a packet of more than %d bytes" % SIZE)
        return self._view[self._end :]

    def take(self, count):
        """Take over `count` bytes that have been put into room()."""
        self._end += count

    def _drop(self, count):
        """Remove the first bytes."""
        left = self._end - count
        if left:
            self._buffer[:left] = bytes(self._view[count : self._end])
        self._end = left

    def next(self):
        """The next item of the input: a packet's data, ACK, NAK or BREAK; None where none is complete.

        BadPacket: it is dropped; with acknowledgements the caller sends NAK.
        """
        while self._end:
            first = bytes(self._view[:1])
            if first != _START:
                self._drop(1)
                if first in (ACK, NAK, BREAK):
                    return first
                continue  # the rest of an invalid packet
            end = self._buffer.find(_END, 0, self._end)
            if end < 0 or end + _TAIL > self._end:
                again = self._buffer.find(_START, 1, self._end)
                if again > 0 and (end < 0 or again < end):
                    self._drop(again)  # a packet that was not ended
                    continue
                return None
            start = self._buffer.rfind(_START, 0, end) + 1
            data = bytes(self._view[start:end])
            said = bytes(self._view[end + 1 : end + _TAIL])
            self._drop(end + _TAIL)
            if self.acks and said.lower() != _digits(data):
                raise BadPacket("a packet with a wrong checksum")
            return data
        return None
