"""The port accesses of ATA commands, in viper: in bytecode each takes 600 ticks, here 100.

Guests of higher priority may run before each block.
"""

import cpu
import micropython
from micropython import const

from vmm.devices.virtio.queue import BUFFER
from vmm.disks import SECTOR, UNDER_WAY
from vmm.host import FLUSH, READ

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
BLOCK = const(1)  # sectors of a block
READS = const(2)
EVEN = const(3)  # all parts are whole dwords
PART = const(4)  # current part of the request
MOVED = const(5)  # bytes of the current part that have been moved
INSIDE = const(6)  # LOOPS or MOVES in the middle of a step, which another guest may have preempted
TAKEN = const(7)  # requests of the channel
WORDS = const(8)

# INSIDE
LOOPS = const(1)
MOVES = const(2)  # the registers are in use

# Words of a drive
PORTS = const(0)
CONTROL = const(1)
SELECT = const(2)  # device register: LBA, and master or slave
MULTIPLE = const(3)  # sectors of a block
READING = const(4)  # the commands for addresses of 28 bits
WRITING = const(5)
FLUSHING = const(6)
SIZE = const(7)  # sectors that those commands reach, low and high
DRIVE_WORDS = const(9)

# run()
WAITS = const(0)  # the disk will interrupt
MORE = const(1)  # only of ready()
DONE = const(2)
UNEVEN = const(3)  # the block has parts that run() cannot move
FAILED = const(4)

AT_ONCE = const(256)  # sectors of one command

_FEW = const(8)  # buffers
_LOOKS = const(16)  # reads of the status before an interrupt is waited for
_ROUNDS = const(4)  # of them for a disk that is neither busy nor ready: then it does not answer


@micropython.viper
def begin(state: ptr32, words: ptr32, count: int, block: int, reads: int):
    """Initialize the state of a request. words: of its `count` buffers."""
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
    """Send a command, with interrupts of the disk disabled. count: sectors, 1 << 16 set for a command with 48-bit
    addresses; -1 for a command without sectors."""
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
def ready(inb, outb, ports: int, control: int, left: int) -> int:
    """The state of the disk. MORE: ready for a block; DONE; FAILED; WAITS. left: sectors still to be moved."""
    looks = rounds = 0
    while True:
        status = int(inb(ports + STATUS))
        if status & BSY == 0:
            if status & (ERR | DF):
                return FAILED
            if left == 0:
                return DONE
            if status & DRQ:
                return MORE
        looks += 1
        if looks == _LOOKS:
            outb(control, 0)
            rounds += 1
            if int(inb(control)) & BSY or rounds == _ROUNDS:
                return WAITS
            outb(control, NIEN)  # it has become ready while its interrupt was suppressed
            looks = 0


@micropython.viper
def run(io, ports: int, control: int, state: ptr32, parts: ptr32) -> int:
    """Go on with a command until DONE, WAITS, UNEVEN or FAILED. parts: three words each: hpa low, hpa high, bytes."""
    inb = io.inb
    outb = io.outb
    left = int(state[SECTORS])
    answer = int(ready(inb, outb, ports, control, left))
    if answer != MORE:
        return answer
    if state[EVEN] == 0:
        return UNEVEN
    move = io.insl if state[READS] else io.outsl
    at = int(state[PART]) * BUFFER
    moved = int(state[MOVED])
    while answer == MORE:
        cpu.look()
        count = int(state[BLOCK])
        if count > left:
            count = left
        left -= count
        count <<= 9
        while count:
            size = int(parts[at + 2]) - moved
            if size > count:
                size = count
            move(ports + DATA, (int(parts[at]) | int(parts[at + 1]) << 32) + moved, size >> 2)
            count -= size
            moved += size
            if moved == int(parts[at + 2]):
                at += BUFFER
                moved = 0
        if left == 0 and state[READS]:
            answer = DONE
        else:
            answer = int(ready(inb, outb, ports, control, left))
    state[SECTORS] = left
    state[PART] = at // BUFFER
    state[MOVED] = moved
    return answer


@micropython.viper
def at_once(
    io, state: ptr32, drive: ptr32, channel, current, later, sector: int, parts: int, count: int, kind: int, skip: int
) -> int:
    """Drive.quick(): carry out a request of one command, if the channel is free. current: (drive, request) for the
    channel if the disk has to be waited for. later(): called if other requests have been submitted meanwhile."""
    if count > _FEW:
        cpu.look()  # pop() has checked so many buffers without a preemption point
    if state[TAKEN] or int(state[INSIDE]) == MOVES:
        return -1
    b = ptr32(parts)
    total = uneven = 0
    i = 0
    while i < BUFFER * count:
        size = int(b[i + 2])
        total += size
        uneven |= size
        i += BUFFER
    sectors = total >> 9
    if uneven & 3 or total & SECTOR - 1 or sectors > AT_ONCE:
        return -1
    if sectors == 0 and kind != FLUSH:
        return -1
    if sector + sectors > int(drive[SIZE]) | int(drive[SIZE + 1]) << 32:
        return -1
    code = int(drive[READING + kind])
    inside = int(state[INSIDE])
    state[INSIDE] = MOVES
    state[TAKEN] = 1
    state[SECTORS] = sectors
    state[BLOCK] = int(drive[MULTIPLE])
    state[READS] = 1 if kind == READ else 0
    state[EVEN] = 1
    state[PART] = 0
    state[MOVED] = 0
    ports = int(drive[PORTS])
    control = int(drive[CONTROL])
    device = int(drive[SELECT]) | sector >> 24
    issue(io, ports, control, device, sector, -1 if kind == FLUSH else sectors, code)
    answer = int(run(io, ports, control, state, parts))
    if answer == WAITS:
        deadline = int(io.rdtsc()) + int(channel.patience)
        channel.deadline = deadline
        channel.parts = parts
        channel.current = current
        io.look_at(deadline)
        state[INSIDE] = inside
        return UNDER_WAY
    state[INSIDE] = inside
    state[TAKEN] -= 1
    if state[TAKEN]:
        later()
    return -1 if answer == FAILED else total
