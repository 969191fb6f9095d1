"""Copies a frame into the receive buffers of a guest, in viper.

The copy of vmm/host/buffers.py stops at the wrap of a ring; this one stops at each of the guest's buffers, and for a
guest that has been switched off meanwhile. A function shared by both would cost a call for each piece.
"""

import cpu
import micropython
from vmx import bind

from vmm.devices.virtio import queue
from vmm.devices.virtio.device import DRIVER_OK, NEEDS_RESET, STATUS
from vmm.devices.virtio.queue import (
    BROKEN,
    BUFFER,
    BUFFERS,
    CHAIN,
    HEAD,
    IN,
    MISSHAPEN,
    NOTHING,
    OUT,
    WRONG,
    pop,
    push_quietly,
    put,
    show,
    take_back,
)
from vmm.host.buffers import STRETCH
from vmm.network.words import (
    CAN,
    DROPPED,
    FIRST,
    HEADER_BYTES,
    MEMORY,
    MERGES,
    RECEIVED,
    RX,
    RX_CHAIN,
    STATUS_AT,
    UP,
)
from vmm.vtx.frame import SIBLING


# Long, since the header and the copy share all of its values: a call with few arguments costs 90 ticks a frame
# (measured when push_quietly() replaced put() and show()), and each buffer would need two.
@micropython.viper
def _receive(pop, push, put, show, copy, port: int, parts: int, skip: int, size: int, header: int, hold) -> int:
    p = ptr32(port)
    w = ptr32(int(p[STATUS_AT]) | int(p[STATUS_AT + 1]) << 32)
    if p[UP] == 0 or int(w[STATUS]) & (DRIVER_OK | NEEDS_RESET) != DRIVER_OK:
        return NOTHING
    state = int(p[RX]) | int(p[RX + 1]) << 32
    memory = int(p[MEMORY]) | int(p[MEMORY + 1]) << 32
    chain = int(p[RX_CHAIN]) | int(p[RX_CHAIN + 1]) << 32
    c = ptr32(chain)
    s = ptr32(parts)
    at = (int(s[0]) | int(s[1]) << 32) + skip
    here = int(s[2]) - skip  # bytes left of this part
    left = size
    first = 0  # address of the header in the first buffer
    count = 0
    mark = size - STRETCH
    held = 0
    while True:
        found = int(pop(state, memory, chain))
        if found != CHAIN:
            break
        count += 1
        if c[OUT]:
            found = WRONG
            break
        written = 0
        i = BUFFERS
        end = BUFFERS + BUFFER * int(c[IN])
        while i < end:
            to = int(c[i]) | int(c[i + 1]) << 32
            room = int(c[i + 2])
            i += BUFFER
            if first == 0:
                if room < HEADER_BYTES:
                    found = WRONG
                    break
                first = to
                h = ptr32(header)
                d = ptr32(to)
                d[0] = h[0]
                d[1] = h[1]
                d[2] = h[2]
                to += HEADER_BYTES
                room -= HEADER_BYTES
                written = HEADER_BYTES
            while left and room:
                if here <= 0:
                    parts += BUFFER * 4
                    s = ptr32(parts)
                    at = int(s[0]) | int(s[1]) << 32
                    here = int(s[2])
                    continue
                if left < mark:
                    mark -= STRETCH
                    if int(cpu.due()):
                        if int(_paused(port, hold, held)):
                            found = NOTHING
                            count = 0
                            left = 0
                        held = 1
                        if left == 0:
                            break
                piece = here if here < room else room
                if piece > left:
                    piece = left
                copy(to, at, piece)
                to += piece
                at += piece
                room -= piece
                here -= piece
                left -= piece
                written += piece
            if left == 0:
                break
        if found != CHAIN:
            break
        if left == 0:
            ptr16(first + HEADER_BYTES - 2)[0] = count
            if count == 1:
                push(state, int(c[HEAD]), written)
            else:
                put(state, count - 1, int(c[HEAD]), written)
                show(state, count)
            p[RECEIVED] += 1
            left = (int(p[RECEIVED + 1]) | int(p[RECEIVED + 2]) << 32) + size
            p[RECEIVED + 1] = left
            p[RECEIVED + 2] = left >> 32
            if held:
                _hold(port, hold, -1)
            return CHAIN
        put(state, count - 1, int(c[HEAD]), written)
        if int(p[CAN]) & MERGES == 0:
            found = NOTHING  # the frame is longer than the guest's buffers
            break
    _not_received(port, count, found)
    if held:
        _hold(port, hold, -1)
    return found


@micropython.viper
def _paused(port: int, hold, held: int) -> int:
    """Let other guests run in the middle of a frame, but not its receiver. Returns 1 if the receiver has been switched
    off meanwhile."""
    p = ptr32(port)
    if held == 0:
        _hold(port, hold, 1)
    cpu.look()
    if p[UP] == 0 or ptr32(int(p[RX]) | int(p[RX + 1]) << 32)[queue.SIZE] == 0:
        return 1
    return 0


@micropython.viper
def _not_received(port: int, count: int, found: int):
    """The frame is dropped, or the ring is broken: return its `count` chains to the available ring."""
    p = ptr32(port)
    state = int(p[RX]) | int(p[RX + 1]) << 32
    if count:
        take_back(state, count)
    if found != WRONG:
        p[DROPPED] += 1
    elif ptr32(state)[BROKEN] == 0:
        ptr32(state)[BROKEN] = MISSHAPEN


@micropython.viper
def _hold(port: int, hold, more: int):
    """VM.hold(more) of a port's guest."""
    p = ptr32(port)
    first = int(p[FIRST]) | int(p[FIRST + 1]) << 32
    at = first
    while at:
        hold(at, more)
        at = int(ptr32(at)[SIBLING])
        if at == first:
            break


# receive(port, parts, skip, size, header, hold): copy a frame of `size` bytes into the receive buffers of a guest.
# Returns CHAIN; NOTHING: it is dropped; WRONG: the ring is broken. parts: address of its parts (words.py), whose first
# `skip` bytes are left out; header: address of virtio's 12 bytes; hold(frame, more): hold() of vmm.scheduling. Guests
# of higher priority may preempt a long frame, but its receiver does not run meanwhile.
receive = bind(_receive, pop, push_quietly, put, show, cpu.copy)
