"""The buffers of a network card's transmit ring, 2 KiB for each descriptor, contiguous: copies into them, checksums."""

import cpu
import micropython
from micropython import const

from vmm.devices.virtio.queue import BUFFER as PART

COUNT = const(256)  # descriptors of a ring
BUFFER = const(2048)
STRETCH = const(0x1000)  # bytes that are copied between two preemption points


@micropython.viper
def fill(buffers: int, n: int, begin: int, parts: int, skip: int, size: int):
    """Copy a frame into the buffers, from byte `begin` of descriptor n's on, wrapping around behind the last. parts:
    address of its parts (vmm/network/words.py), whose first `skip` bytes are left out. Guests of higher priority may
    preempt it."""
    copy = cpu.copy
    mark = size - STRETCH
    s = ptr32(parts)
    at = (int(s[0]) | int(s[1]) << 32) + skip
    here = int(s[2]) - skip
    to = buffers + n * BUFFER + begin
    room = (COUNT - n) * BUFFER - begin
    while size > 0:
        if here <= 0:
            parts += PART * 4
            s = ptr32(parts)
            at = int(s[0]) | int(s[1]) << 32
            here = int(s[2])
            continue
        if size < mark:
            mark -= STRETCH
            cpu.look()
        if room == 0:
            to = buffers
            room = COUNT * BUFFER
        piece = here if here < size else size
        if piece > room:
            piece = room
        copy(to, at, piece)
        to += piece
        at += piece
        here -= piece
        room -= piece
        size -= piece


@micropython.viper
def fill_sum(frame: int, start: int, offset: int, size: int):
    """Write the checksum of a frame's bytes from `start` on to `start + offset`, where the pseudo header's sum is."""
    total = ~int(cpu.add_up(frame + start, size - start, 0)) & 0xFFFF
    at = ptr8(frame + start + offset)
    at[0] = total
    at[1] = total >> 8
