"""Drivers for the host's devices: the only Python that accesses host hardware, besides console and timer.

The driver of a device with DMA reports by cpu.wrote(hpa, size) what the device has written, before it completes the
request (port/written.c).

A disk of the host (drive) has `sectors` of 512 bytes, `model`, `serial`, and takes a Request by submit().
"""

from array import array

from micropython import const

READ = const(0)
WRITE = const(1)
FLUSH = const(2)

ANSWER_S = const(20)  # time limit of a disk's command: then it fails, and the disk is reset

# Kinds of interrupt lines for cpu.line()
EDGE = const(1)
LEVEL = const(2)


class Request:
    """A guest's request to a disk.

    owner: the object for cancel() and finish(), with the guest as its `vm`. words: an array with three words for each
    buffer: hpa low, hpa high, bytes. sectors: of all buffers. done(ok) is called when the request has ended, perhaps
    within submit().
    """

    def __init__(self, owner, kind, sector, words, sectors, done):
        self.owner = owner
        self.vm = owner.vm
        self.kind = kind
        self.sector = sector
        self.words = words
        self.left = sectors  # for which no command has been sent yet
        self.done = done


def words_of(parts):
    """(words of a Request, sectors) of [(hpa, bytes), ...]."""
    words = array("I", [0] * (3 * len(parts)))
    at = total = 0
    for hpa, size in parts:
        words[at] = hpa & 0xFFFFFFFF
        words[at + 1] = hpa >> 32
        words[at + 2] = size
        at += 3
        total += size
    return words, total >> 9


def parts_of(words):
    """[(hpa, bytes), ...] of a Request's words."""
    return [(words[at] | words[at + 1] << 32, words[at + 2]) for at in range(0, len(words), 3)]
