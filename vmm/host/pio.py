"""What a command of ATA does at its ports, in viper: by bytecode each access takes 600 ticks, here 200.

A call moves one block at most: between two calls, guests of a higher priority may run.
"""

import micropython
from micropython import const

# Command block
DATA = const(0)
COUNT = const(2)
LOW = const(3)
MID = const(4)
HIGH = const(5)
DEVICE = const(6)
STATUS = const(7)
COMMAND = const(7)

# Status
BSY = const(0x80)
DF = const(0x20)
DRQ = const(0x08)
ERR = const(0x01)

NIEN = const(0x02)  # of the device control

# Words of a command's state
SECTORS = const(0)  # still to move
BLOCK = const(1)  # sectors that the disk has, or takes, at once
READS = const(2)
EVEN = const(3)  # all parts are whole dwords
PART = const(4)  # how far it has been moved: the part, and bytes of it
MOVED = const(5)
WORDS = const(6)

# run()
WAITS = const(0)  # for the disk, which interrupts
MORE = const(1)
DONE = const(2)
UNEVEN = const(3)  # a block is there that run() cannot move
FAILED = const(4)

_LOOKS = const(8)  # at the status, until an interrupt is waited for
_ROUNDS = const(8)  # of them, for a disk that is not busy and has nothing ready: then it is one that does not answer


@micropython.viper
def begin(state: ptr32, words: ptr32, count: int, block: int, reads: int):
    """A request's state. words: of its `count` buffers."""
    even = 1
    i = 0
    while i < count:
        if int(words[3 * i + 2]) & 3:
            even = 0
        i += 1
    state[BLOCK] = block
    state[READS] = reads
    state[EVEN] = even
    state[PART] = 0
    state[MOVED] = 0


@micropython.viper
def issue(io, ports: int, control: int, device: int, sector: int, count: int, command: int):
    """Send a command that interrupts as little as can be. count: -1 for one that has no sectors, and bits 16 up for
    the command with 48-bit addresses."""
    outb = io.outb
    inb = io.inb
    outb(control, NIEN)
    outb(ports + DEVICE, device)
    inb(control)
    inb(control)
    if count >= 0:
        if count >> 16:
            outb(ports + COUNT, count >> 8 & 0xFF)
            outb(ports + LOW, sector >> 24 & 0xFF)
            outb(ports + MID, sector >> 32 & 0xFF)
            outb(ports + HIGH, sector >> 40 & 0xFF)
        outb(ports + COUNT, count & 0xFF)
        outb(ports + LOW, sector & 0xFF)
        outb(ports + MID, sector >> 8 & 0xFF)
        outb(ports + HIGH, sector >> 16 & 0xFF)
    outb(ports + COMMAND, command)
    inb(control)
    inb(control)


@micropython.viper
def run(io, ports: int, control: int, state: ptr32, parts: ptr32) -> int:
    """Go on with a command, by a block at most. parts: three words each: hpa low, hpa high, bytes."""
    inb = io.inb
    outb = io.outb
    looks = rounds = 0
    while True:
        status = int(inb(ports + STATUS))
        if status & BSY == 0:
            if status & (ERR | DF):
                return FAILED
            if state[SECTORS] == 0:
                return DONE
            if status & DRQ:
                break
        looks += 1
        if looks == _LOOKS:
            outb(control, 0)
            rounds += 1
            if int(inb(control)) & BSY or rounds == _ROUNDS:
                return WAITS
            outb(control, NIEN)  # it has become ready while its interrupt was suppressed
            looks = 0
    if state[EVEN] == 0:
        return UNEVEN
    move = io.insl if state[READS] else io.outsl
    count = int(state[SECTORS])
    if count > int(state[BLOCK]):
        count = int(state[BLOCK])
    state[SECTORS] -= count
    left = count << 9
    at = int(state[PART]) * 3
    moved = int(state[MOVED])
    while left:
        size = int(parts[at + 2]) - moved
        if size > left:
            size = left
        move(ports + DATA, (int(parts[at]) | int(parts[at + 1]) << 32) + moved, size >> 2)
        left -= size
        moved += size
        if moved == int(parts[at + 2]):
            at += 3
            moved = 0
    state[PART] = at // 3
    state[MOVED] = moved
    if state[SECTORS] == 0:
        if state[READS]:
            return DONE
    return MORE
