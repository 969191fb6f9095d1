"""The fast path of frames: from a guest's transmit queue into receive buffers of others, copied once, in viper.

What is not usual is left to Python (vmm/network/switch.py): ports that policies or captures watch, uplinks, receivers
that cannot do what the frame needs, headers that are cut.
"""

import cpu
import micropython
from micropython import const
from vmx import bind

from vmm.devices.virtio.queue import (
    BUFFER,
    BUFFERS,
    CHAIN,
    HEAD,
    IN,
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

MORE = const(2)  # an answer of send(): there is more, after others had the chance to run

# Before send() tells a receiver, and returns: bytes that it moves, and what a frame counts besides them.
_AT_ONCE = const(0x4000)
_FRAME = const(0x400)

_TYPE = const(0xFF00)  # of a header's first word: of segmentation
_LONG = const(NEEDS_TSO4 | NEEDS_CSUM)  # what a receiver can for which frames are merged


@micropython.viper
def _look(port: int) -> int:
    """The frame in the port's transmit chain: its header goes to the port's words, SKIP and SIZE are set.

    CHAIN; 0 where the fast path cannot take it; -1 where it is no frame."""
    p = ptr32(port)
    c = ptr32(int(p[TX_CHAIN]) | int(p[TX_CHAIN + 1]) << 32)
    if c[IN] or c[OUT] == 0:
        return -1
    size = 0
    i = BUFFERS
    end = BUFFERS + BUFFER * int(c[OUT])
    while i < end:
        size += int(c[i + 2])
        i += BUFFER
    size -= HEADER_BYTES
    if size < ETHERNET:
        return -1
    p[SIZE] = size
    here = int(c[BUFFERS + 2])
    if here == HEADER_BYTES:
        p[SKIP] = 0
        here = int(c[BUFFERS + BUFFER + 2])
    else:
        p[SKIP] = HEADER_BYTES
        here -= HEADER_BYTES
    if here < ETHERNET:
        return 0
    if ptr32(int(c[BUFFERS]) | int(c[BUFFERS + 1]) << 32)[0] & (_TYPE | CSUM) == 0 and size <= LONGEST:
        p[HEADER] = 0
        p[HEADER + 1] = 0
        p[HEADER + 2] = 0x10000
        return CHAIN
    return int(check(port, int(c[BUFFERS]) | int(c[BUFFERS + 1]) << 32))


@micropython.viper
def check(port: int, header: int) -> int:
    """Take the header at this address over into the port's words: CHAIN, or -1 where it makes no sense for the frame of
    SIZE bytes. The features that it uses are looked at by the receiver's side alone."""
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
    """What has to be done to the frame whose header is in the port's words."""
    word = int(ptr32(port)[HEADER])
    gso = word >> 8 & 0xFF
    if gso == TCPV4:
        return NEEDS_TSO4 | NEEDS_CSUM
    if gso == TCPV6:
        return NEEDS_TSO6 | NEEDS_CSUM
    return word & NEEDS_CSUM


# What it calls comes by one tuple: looked up as globals they took 500 ticks a frame.
@micropython.viper
def _send(calls, port: int, switch: int, signals, soon, broken, hold, card) -> int:
    p = ptr32(port)
    t = ptr32(switch)
    state = int(p[TX]) | int(p[TX + 1]) << 32
    memory = int(p[MEMORY]) | int(p[MEMORY + 1]) << 32
    chain = int(p[TX_CHAIN]) | int(p[TX_CHAIN + 1]) << 32
    c = ptr32(chain)
    header = port + 4 * HEADER
    own = int(p[NUMBER])
    moved = 0
    last = -1  # the port that is to be told
    found = NOTHING
    look, take, give_back, examine, put_in, tell_of = calls
    while True:
        if moved:
            if moved >= _AT_ONCE:
                found = MORE
                break
            look()
        if state:
            found = int(take(state, memory, chain))
            if found != CHAIN:
                break
            shape = int(examine(port))
            if shape < 0:
                p[REFUSED] += 1
                give_back(state, int(c[HEAD]), 0)
                moved += _FRAME
                continue
            if shape == 0 or p[WATCHED]:
                break
        else:
            found = NOTHING
            p[SIZE] = int(card[1](chain + 4 * BUFFERS))
            if p[SIZE] == 0:
                break
            found = CHAIN
        size = int(p[SIZE])
        skip = int(p[SKIP])
        parts = chain + 4 * BUFFERS
        if skip == 0 and state:
            parts += 4 * BUFFER
        a = ptr32(parts)
        a = ptr32((int(a[0]) | int(a[1]) << 32) + skip)
        # -- from where: a group address is no source
        low = int(a[1]) >> 16 | (int(a[2]) & 0xFFFF) << 16
        high = int(a[2]) >> 16
        at = int(p[SOURCE])
        if int(t[at]) != low or int(t[at + 1]) != high | KNOWN or int(t[at + 2]) != own:
            if low & 1 == 0:
                p[SOURCE] = int(learn(switch, low, high, own))
        # -- whereto
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
        while n < end:  # all of them can take it, or Python does it
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
            give_back(state, int(c[HEAD]), 0)
        elif need:
            p[HEADER] = 0  # the card's next one may be alone
            p[HEADER + 1] = 0
            p[HEADER + 2] = 0x10000
    if last >= 0:
        tell_of(switch, last, signals, soon)
    return found


@micropython.viper
def add(port: int, word: int, size: int):
    """One more frame is counted; DROPPED has no bytes."""
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


# tell(switch, number, signals, soon): frames have arrived at a guest's port: an interrupt where its driver waits for
# one, and its turn soon.
tell = bind(_tell, interrupts)

_CALLS = cpu.look, pop, push, _look, receive, tell


def sender(port, switch, signals, soon, broken, hold, card):
    """Return send() of a port: it carries what a guest's transmit queue, or the card of an uplink, has. NOTHING; CHAIN,
    one for Python; WRONG, a broken ring; MORE.

    signals: of the switch, signal(0) of each port's device; soon(frame): Scheduler.preempt_soon; broken(n): the receive
    queue of port n is; hold: of receive(); card: [put, take, peek, keep] of the uplink's card (vmm/host), where there
    is one. Between two frames guests of a higher priority run.
    """
    return bind(_send, _CALLS, port, switch, signals, soon, broken, hold, card)
