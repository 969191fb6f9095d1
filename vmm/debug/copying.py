"""Files between the monitor's file system and the host, through memory and not the prompt's line: `pcanel cp`.

The owner of the run reads and writes this machine's memory (vmm/debug/mailbox.py). Guests stand still meanwhile.
"""

import uctypes
from micropython import const

from vmm.debug import mailbox

_PIECE = const(0x40000)  # bytes at once


def fetch(source, path):
    """Copy the host's file `source` to `path` and return its size. ValueError with the host's reason."""
    piece = bytearray(_PIECE)
    size = _ask("read", source, 0, piece, _PIECE)  # first: a file that cannot be read leaves `path` as it is
    with open(path, "wb") as file:
        at = 0
        while True:
            file.write(memoryview(piece)[:size])
            at += size
            if size < _PIECE:
                return at
            size = _ask("read", source, at, piece, _PIECE)


def send(path, target):
    """Copy `path` to the host's file `target` and return its size. The file on the host is whole when this returns."""
    piece = bytearray(_PIECE)
    with open(path, "rb") as file:
        at = 0
        while True:
            size = file.readinto(piece)
            _ask("write", target, at, piece, size)
            at += size
            if size < _PIECE:
                return at


def _ask(what, file, at, piece, size):
    return int(mailbox.ask({"do": what, "file": file, "at": at, "hpa": uctypes.addressof(piece), "size": size}))
