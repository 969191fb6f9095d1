"""The fast path of frames: from a guest's transmit queue into receive buffers of others, copied once, in viper.

Other cases are left to bytecode (vmm/network/switch.py): ports that policies or captures watch, receivers that cannot
do what the frame needs, headers that are split between buffers.
"""

import cpu
import micropython
from micropython import const
from vmx import bind

from vmm.devices.virtio import queue
from vmm.devices.virtio.queue import (
    AVAIL,
    BUFFER,
    BUFFERS,
    CHAIN,
    HEAD,
    IN,
    NEXT,
    NOTHING,
    OUT,
    WRONG,
    interrupts,
    pop,
    push,
)
from vmm.network.addresses import find, learn
from vmm.network.merge import merge
from vmm.network.receive import receive
from vmm.network.words import (
    CAN,
    CARD,
    COUNT,
    CSUM,
    DROPPED,
    ETHERNET,
    FRAME,
    HEADER,
    HEADER_BYTES,
    KNOWN,
    LONGEST,
    MEMORY,
    MOST_BYTES,
    NEEDS_CSUM,
    NEEDS_TSO4,
    NEEDS_TSO6,
    NUMBER,
    PORTS,
    RECEIVED,
    REFUSED,
    RX,
    SENT,
    SIZE,
    SKIP,
    SOURCE,
    TARGET,
    TCPV4,
    TCPV6,
    TX,
    TX_CHAIN,
    WATCHED,
)

MORE = const(2)  # an answer of send(): there is more, for another call after other guests could run
_SLOWLY = const(3)  # answers of _next()
_REFUSED = const(4)

# The limit of one call of send(), in bytes, and the bytes that each frame counts besides its own.
_AT_ONCE = const(0x4000)
_FRAME = const(0x400)

_TYPE = const(0xFF00)  # of a header's first word: of segmentation
_LONG = const(NEEDS_TSO4 | NEEDS_CSUM)  # abilities of a receiver for which frames are merged


@micropython.viper
def _next(pop, push, port: int) -> int:
    """Take the next frame of the port's transmit queue: its header goes to the port's words, SKIP and SIZE are set.

    Returns CHAIN; NOTHING; WRONG; _SLOWLY: one for the slow path; _REFUSED: no valid frame, which is counted."""
    p = ptr32(port)
    state = int(p[TX]) | int(p[TX + 1]) << 32
    chain = int(p[TX_CHAIN]) | int(p[TX_CHAIN + 1]) << 32
    found = int(pop(state, int(p[MEMORY]) | int(p[MEMORY + 1]) << 32, chain))
    if found != CHAIN:
        return found
    c = ptr32(chain)
    size = 0
    i = BUFFERS
    end = BUFFERS + BUFFER * int(c[OUT])
    while i < end:
        size += int(c[i + 2])
        i += BUFFER
    size -= HEADER_BYTES
    p[SIZE] = size
    header = int(c[BUFFERS]) | int(c[BUFFERS + 1]) << 32
    if c[IN] == 0 and size >= ETHERNET:
        here = int(c[BUFFERS + 2])
        if here == HEADER_BYTES:
            p[SKIP] = 0
            here = int(c[BUFFERS + BUFFER + 2])
        else:
            p[SKIP] = HEADER_BYTES
            here -= HEADER_BYTES
        if here < ETHERNET:
            return _SLOWLY
        if ptr32(header)[0] & (_TYPE | CSUM) == 0 and size <= LONGEST:
            p[HEADER] = 0
            p[HEADER + 1] = 0
            p[HEADER + 2] = 0x10000
        else:
            found = int(check(port, header))
        if found == CHAIN:
            return _SLOWLY if p[WATCHED] else CHAIN
    p[REFUSED] += 1
    push(state, int(c[HEAD]), 0)
    return _REFUSED


@micropython.viper
def check(port: int, header: int) -> int:
    """Copy the header at this address into the port's words. Returns CHAIN, or -1 for a header that is invalid for the
    frame of SIZE bytes. Whether the receiver supports its features is checked later."""
    p = ptr32(port)
    h = ptr32(header)
    size = int(p[SIZE])
    flags = int(h[0]) & CSUM
    gso = int(h[0]) >> 8 & 0xFF
    word = flags | gso << 8
    p[HEADER + 1] = 0
    p[HEADER + 2] = 0x10000
    if flags:
        start = int(h[1]) >> 16
        offset = int(h[2]) & 0xFFFF
        if start < ETHERNET or start + offset + 2 > size:
            return -1
        p[HEADER + 1] = start << 16
        p[HEADER + 2] = offset | 0x10000
    if gso:
        if flags == 0 or (gso != TCPV4 and gso != TCPV6) or int(h[1]) & 0xFFFF == 0 or size > MOST_BYTES:
            return -1
        word |= int(h[0]) & 0xFFFF0000
        p[HEADER + 1] |= int(h[1]) & 0xFFFF
    elif size > LONGEST:
        return -1
    p[HEADER] = word
    return CHAIN


@micropython.viper
def needs(port: int) -> int:
    """The work left to be done to the frame whose header is in the port's words: bits of vmm.network.words."""
    word = int(ptr32(port)[HEADER])
    gso = word >> 8 & 0xFF
    if gso == TCPV4:
        return NEEDS_TSO4 | NEEDS_CSUM
    if gso == TCPV6:
        return NEEDS_TSO6 | NEEDS_CSUM
    return word & NEEDS_CSUM


# The functions that it calls are passed in one tuple: looking them up as globals took 500 ticks a frame. A function of
# its own for the search of the targets cost 260 ticks, 1 % of a ping, whose frames take 7,000 each with their exit.
@micropython.viper
def _send(calls, port: int, switch: int, signals, soon, broken, hold, card) -> int:
    p = ptr32(port)
    t = ptr32(switch)
    state = int(p[TX]) | int(p[TX + 1]) << 32
    chain = int(p[TX_CHAIN]) | int(p[TX_CHAIN + 1]) << 32
    header = port + 4 * HEADER
    own = int(p[NUMBER])
    moved = 0
    last = -1  # the port to be signalled
    look, next_frame, put_in, tell_of, give_back = calls
    while True:
        if moved:
            if moved >= _AT_ONCE:
                found = MORE
                break
            look()
        parts = chain + 4 * BUFFERS
        if state:
            found = int(next_frame(port))
            if found != CHAIN:
                if found == _REFUSED:
                    moved += _FRAME
                    continue
                if found == _SLOWLY:
                    found = CHAIN
                break
            if p[SKIP] == 0:
                parts += 4 * BUFFER
        else:
            p[SIZE] = int(card[1](parts))
            if p[SIZE] == 0:
                found = NOTHING
                break
            found = CHAIN
        size = int(p[SIZE])
        skip = int(p[SKIP])
        a = ptr32(parts)
        a = ptr32((int(a[0]) | int(a[1]) << 32) + skip)
        # -- the source; a group address is not learned
        low = int(a[1]) >> 16 | (int(a[2]) & 0xFFFF) << 16
        high = int(a[2]) >> 16
        at = int(p[SOURCE])
        if int(t[at]) != low or int(t[at + 1]) != high | KNOWN or int(t[at + 2]) != own:
            if low & 1 == 0:
                p[SOURCE] = int(learn(switch, low, high, own))
        # -- the destination
        low = int(a[0])
        high = int(a[1]) & 0xFFFF
        at = int(p[TARGET])
        if int(t[at]) != low or int(t[at + 1]) != high | KNOWN:
            at = -1 if low & 1 else int(find(switch, low, high))
            if at >= 0:
                p[TARGET] = at
        need = int(p[HEADER])
        if need:
            need = int(needs(port))
        first = 0
        end = int(t[COUNT])
        if at >= 0:
            first = int(t[at + 2])
            end = first + 1
            if state == 0:
                there = int(t[PORTS + 2 * first]) | int(t[PORTS + 2 * first + 1]) << 32
                if there:
                    r = ptr32(there)
                    if r[WATCHED] == 0 and int(r[CAN]) & _LONG == _LONG:
                        if int(merge(port, parts, card[2], card[3])):
                            size = int(p[SIZE])
                            need = _LONG
                            look()
        n = first
        while n < end:  # all targets can take the frame, or it is left to bytecode
            there = int(t[PORTS + 2 * n]) | int(t[PORTS + 2 * n + 1]) << 32
            if there and n != own:
                r = ptr32(there)
                if r[WATCHED] or need & ~int(r[CAN]):
                    break
            n += 1
        if n < end:
            break
        while first < end:
            there = int(t[PORTS + 2 * first]) | int(t[PORTS + 2 * first + 1]) << 32
            if there and first != own:
                if ptr32(there)[CARD]:
                    done = int(card[0](parts, skip, size, header))
                    add(there, RECEIVED if done == CHAIN else DROPPED, size)
                else:
                    done = int(put_in(there, parts, skip, size, header, hold))
                    if at < 0:
                        look()
                if done == CHAIN:
                    if last != first:
                        if last >= 0:
                            tell_of(switch, last, signals, soon)
                        last = first
                elif done == WRONG:
                    broken(first)
            first += 1
        p[SENT] += 1
        high = (int(p[SENT + 1]) | int(p[SENT + 2]) << 32) + size
        p[SENT + 1] = high
        p[SENT + 2] = high >> 32
        moved += size + _FRAME
        if state:
            a = ptr32(state)
            found = NOTHING
            if a[queue.SIZE] == 0:  # the queue has been reset in the middle of a frame
                break
            give_back(state, int(ptr32(chain)[HEAD]), 0)
            if a[NEXT] == ptr16(int(a[AVAIL]) | int(a[AVAIL + 1]) << 32)[1]:  # next_frame() would take 360 for that
                break
        elif need:
            p[HEADER] = 0  # the card's next frame may not be merged
            p[HEADER + 1] = 0
            p[HEADER + 2] = 0x10000
    if last >= 0:
        tell_of(switch, last, signals, soon)
    return found


@micropython.viper
def add(port: int, word: int, size: int):
    """Count a frame at `word` of a port (SENT, RECEIVED, DROPPED). DROPPED has no bytes."""
    p = ptr32(port)
    p[word] += 1
    if word != DROPPED:
        total = (int(p[word + 1]) | int(p[word + 2]) << 32) + size
        p[word + 1] = total
        p[word + 2] = total >> 32


@micropython.viper
def _tell(interrupts, switch: int, number: int, signals, soon):
    t = ptr32(switch)
    p = ptr32(int(t[PORTS + 2 * number]) | int(t[PORTS + 2 * number + 1]) << 32)
    if p[CARD]:
        signals[number](0)
    elif int(interrupts(int(p[RX]) | int(p[RX + 1]) << 32)):
        signals[number](0)
        frame = int(p[FRAME]) | int(p[FRAME + 1]) << 32
        if frame:
            soon(frame)


# tell(switch, number, signals, soon): frames have arrived at a guest's port: interrupt its driver if it asks for that,
# and schedule it soon.
tell = bind(_tell, interrupts)

_CALLS = cpu.look, bind(_next, pop, push), receive, tell, push


def sender(port, switch, signals, soon, broken, hold, card):
    """Return send() of a port: it forwards the frames of a guest's transmit queue, or of an uplink's card. send() ->
    NOTHING; CHAIN: a frame for bytecode; WRONG: a broken ring; MORE.

    signals: of the switch, signal(0) of each port's device; soon(frame): Scheduler.preempt_soon; broken(n): the receive
    queue of port n is broken; hold: of receive(); card: [put, take, peek, keep] of the uplink's card (vmm/host), or [].
    Guests of higher priority may preempt it between two frames.
    """
    return bind(_send, _CALLS, port, switch, signals, soon, broken, hold, card)
