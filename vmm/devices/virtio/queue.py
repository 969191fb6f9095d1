"""A split virtqueue in guest memory: descriptors, available ring, used ring; indirect tables, event index.

Everything here is read from memory that the guest writes at will, so each index and address is checked before its use:
a chain is at most MOST buffers, all of them lie in RAM, readable ones come first. A ring that breaks a rule stops its
queue, and the device asks for a reset. Source: virtio 1.2, "Split Virtqueues".
"""

from array import array

import micropython
import uctypes
from micropython import const

from vmm.memory.guest import HPA_HIGH, HPA_LOW, SIZE_HIGH, SIZE_LOW, locate

MOST = const(258)  # buffers of a chain: 128 KiB of pages, twice, and a header and a status
SEGMENTS = const(62)  # of data that disks ask drivers for at most: pop() takes 100 ticks a buffer, uninterrupted

# Words of `state`
SIZE = const(0)  # entries, 0: the queue is not enabled
EVENT = const(1)  # VIRTIO_F_EVENT_IDX has been accepted
INDIRECT = const(2)  # VIRTIO_F_INDIRECT_DESC
DESC = const(3)  # hpa, low and high
AVAIL = const(5)
USED = const(7)
NEXT = const(9)  # entries of the available ring that were taken, 16 bits
FILLED = const(10)  # entries of the used ring that were filled, 16 bits
SIGNALLED = const(11)  # FILLED when the driver was last asked about
BROKEN = const(12)  # why it has stopped, or 0
_WORDS = const(13)

# Words of a chain
HEAD = const(0)
OUT = const(1)  # buffers that the device reads: they come first
IN = const(2)  # buffers that it writes
BUFFERS = const(3)  # from here on, three words each: hpa low, hpa high, bytes
BUFFER = const(3)

DESC_NEXT = const(1)
DESC_WRITE = const(2)
_DESC_INDIRECT = const(4)
_NO_INTERRUPT = const(1)
_NO_NOTIFY = const(1)

# pop()
NOTHING = const(0)
CHAIN = const(1)
WRONG = const(-1)

_INDEX = const(1)  # reasons in BROKEN
_DESCRIPTOR = const(2)
_ORDER = const(3)
_TABLE = const(4)
_LONG = const(5)
_OUTSIDE = const(6)
_EMPTY = const(7)
MISSHAPEN = const(8)
REASONS = (
    "", "available index too far ahead", "descriptor out of range", "readable buffer behind a writable one",
    "wrong indirect table", "chain too long", "address outside RAM", "empty buffer", "buffers of a wrong kind",
)  # fmt: skip


def new_chain():
    """A buffer for pop()."""
    return array("I", [0] * (BUFFERS + BUFFER * MOST))


class Queue:
    """One ring. memory: vmm.memory.guest.GuestMemory. most: the largest size, a power of two."""

    def __init__(self, memory, most):
        self._memory = memory
        self.most = most
        self.state = array("I", [0] * _WORDS)
        self.reset()

    def reset(self):
        """Not enabled, no addresses."""
        for i in range(_WORDS):
            self.state[i] = 0
        self.size = self.most  # as the driver chose it
        self.addresses = [0, 0, 0]  # gpas of descriptors, available ring, used ring

    def enable(self, event, indirect):
        """Use the ring at `addresses`; event, indirect: features. False where it is not in RAM or its size is wrong."""
        size = self.size
        if not 0 < size <= self.most or size & (size - 1):
            return False
        s = self.state
        table = self._memory.table
        at = DESC
        for gpa, length, align in zip(self.addresses, (16 * size, 6 + 2 * size, 6 + 8 * size), (16, 2, 4)):
            hpa = -1 if gpa % align or gpa >> 56 else locate(table, gpa, length)
            if hpa < 0:
                return False
            s[at] = hpa & 0xFFFFFFFF
            s[at + 1] = hpa >> 32
            at += 2
        s[EVENT] = 1 if event else 0
        s[INDIRECT] = 1 if indirect else 0
        s[NEXT] = s[FILLED] = s[SIGNALLED] = s[BROKEN] = 0
        s[SIZE] = size
        return True

    def set_address(self, which, shift, bits):
        """Half of the gpa of descriptors (0), available (1) or used ring (2); shift: 0 the low half, 32 the high."""
        self.addresses[which] = self.addresses[which] & ~(0xFFFFFFFF << shift) | (bits & 0xFFFFFFFF) << shift

    @property
    def enabled(self):
        return self.state[SIZE] != 0

    @property
    def broken(self):
        """Why the device has stopped using it; "" where it has not."""
        return REASONS[self.state[BROKEN]]

    def pop(self, chain):
        """Take the next chain of buffers: NOTHING, CHAIN, or WRONG (`broken` says what). chain: of new_chain()."""
        return pop(self.state, self._memory.table, chain)

    def again(self, head, chain):
        """pop() of the chain that begins at descriptor `head`, which has been taken before."""
        ring = array("H", [0, 1, head])
        at = uctypes.addressof(ring)
        state = array("I", self.state)
        state[AVAIL], state[AVAIL + 1] = at & 0xFFFFFFFF, at >> 32
        state[NEXT] = state[EVENT] = state[BROKEN] = 0
        return pop(state, self._memory.table, chain)

    def push(self, head, written):
        """Give a chain back. written: bytes that the device has written to it."""
        push(self.state, head, written)

    def interrupts(self):
        """Whether the driver asks for an interrupt for what was given back since the last call."""
        return interrupts(self.state)

    def save(self):
        """Plain data: size, addresses, state without host addresses."""
        s = self.state
        return {
            "size": self.size, "addresses": list(self.addresses), "enabled": s[SIZE] != 0, "event": s[EVENT],
            "indirect": s[INDIRECT], "next": s[NEXT], "filled": s[FILLED], "signalled": s[SIGNALLED],
            "broken": s[BROKEN],
        }  # fmt: skip

    def load(self, saved):
        """As saved. ValueError where the ring is not in RAM."""
        self.reset()
        self.size = saved["size"]
        self.addresses = list(saved["addresses"])
        if saved["enabled"] and not self.enable(saved["event"], saved["indirect"]):
            raise ValueError("a queue at %s is not in guest memory" % ", ".join(["%#x" % at for at in self.addresses]))
        s = self.state
        s[NEXT], s[FILLED] = saved["next"], saved["filled"]
        s[SIGNALLED], s[BROKEN] = saved["signalled"], saved["broken"]


@micropython.viper
def _broken(state: ptr32, why: int) -> int:
    """The driver has made nonsense of the ring: it is used no more."""
    state[BROKEN] = why
    return WRONG


# A call more would be 120 for each of the four chains of a ping between guests, 1 % of it.
@micropython.viper
def pop(state: ptr32, memory: ptr32, chain: ptr32) -> int:
    """Queue.pop(). memory: the table of GuestMemory."""
    size = int(state[SIZE])
    if size == 0 or state[BROKEN]:
        return NOTHING
    avail = ptr16(int(state[AVAIL]) | int(state[AVAIL + 1]) << 32)
    taken = int(state[NEXT])
    waiting = int(avail[1]) - taken & 0xFFFF
    if waiting == 0:
        return NOTHING
    if waiting > size:
        return int(_broken(state, _INDEX))
    index = int(avail[2 + (taken & size - 1)])
    chain[HEAD] = index
    table = int(state[DESC]) | int(state[DESC + 1]) << 32
    entries = size
    indirect = 0
    count = 0
    readable = 0
    low = int(memory[SIZE_LOW]) | int(memory[SIZE_HIGH]) << 32  # of the first block of RAM, which begins at 0
    base = int(memory[HPA_LOW]) | int(memory[HPA_HIGH]) << 32
    while True:
        if index >= entries:
            return int(_broken(state, _DESCRIPTOR))
        d = ptr32(table + (index << 4))
        gpa = int(d[0]) | int(d[1]) << 32
        length = int(d[2])
        flags = int(d[3])
        if flags & _DESC_INDIRECT:
            entries = length >> 4
            if indirect or state[INDIRECT] == 0 or flags & DESC_NEXT or length & 15 or entries - 1 & 0xFFFF0000:
                return int(_broken(state, _TABLE))
            table = int(locate(memory, gpa, length))
            if table < 0:
                return int(_broken(state, _TABLE))
            indirect = 1
            index = 0
            continue
        if length == 0:
            return int(_broken(state, _EMPTY))
        if count == MOST:
            return int(_broken(state, _LONG))
        if flags & DESC_WRITE == 0:
            if readable != count:
                return int(_broken(state, _ORDER))
            readable += 1
        if gpa >= 0 and length <= low - gpa:  # locate() without the call
            hpa = base + gpa
        else:
            hpa = int(locate(memory, gpa, length))
            if hpa < 0:
                return int(_broken(state, _OUTSIDE))
        at = BUFFERS + BUFFER * count
        chain[at] = hpa & 0xFFFFFFFF
        chain[at + 1] = hpa >> 32
        chain[at + 2] = length
        count += 1
        if flags & DESC_NEXT == 0:
            break
        index = flags >> 16
    chain[OUT] = readable
    chain[IN] = count - readable
    taken = taken + 1 & 0xFFFF
    state[NEXT] = taken
    if state[EVENT]:
        used = ptr16(int(state[USED]) | int(state[USED + 1]) << 32)
        used[2 + 4 * size] = taken  # the driver notifies when it adds the next one
    return CHAIN


@micropython.viper
def push(state: ptr32, head: int, written: int):
    """Queue.push()."""
    if state[SIZE] == 0:
        return  # the driver has disabled the queue since
    used = int(state[USED]) | int(state[USED + 1]) << 32
    filled = int(state[FILLED])
    entry = ptr32(used + 4 + ((filled & int(state[SIZE]) - 1) << 3))
    entry[0] = head
    entry[1] = written
    filled = filled + 1 & 0xFFFF
    state[FILLED] = filled
    ptr16(used)[1] = filled


@micropython.viper
def push_quietly(state: ptr32, head: int, written: int):
    """push(), and the driver is asked for no notification when it adds buffers."""
    used = int(state[USED]) | int(state[USED + 1]) << 32
    filled = int(state[FILLED])
    size = int(state[SIZE])
    entry = ptr32(used + 4 + ((filled & size - 1) << 3))
    entry[0] = head
    entry[1] = written
    filled = filled + 1 & 0xFFFF
    state[FILLED] = filled
    ring = ptr16(used)
    ring[1] = filled
    if state[EVENT]:
        ring[2 + 4 * size] = int(state[NEXT]) - 1  # an index that it has passed
    else:
        ring[0] = _NO_NOTIFY


# What one frame fills is shown to the driver all at once: put() for each chain, then show(); or take_back(). Where it
# fills one chain, push_quietly() is both.


@micropython.viper
def put(state: ptr32, ahead: int, head: int, written: int):
    """Write the used ring's entry that is `ahead` of those which the driver sees."""
    at = (int(state[FILLED]) + ahead & int(state[SIZE]) - 1) << 3
    entry = ptr32((int(state[USED]) | int(state[USED + 1]) << 32) + 4 + at)
    entry[0] = head
    entry[1] = written


@micropython.viper
def show(state: ptr32, count: int):
    """The driver sees `count` more entries, and is asked for no notification when it adds buffers."""
    used = ptr16(int(state[USED]) | int(state[USED + 1]) << 32)
    filled = int(state[FILLED]) + count & 0xFFFF
    state[FILLED] = filled
    used[1] = filled
    if state[EVENT]:
        used[2 + 4 * int(state[SIZE])] = int(state[NEXT]) - 1
    else:
        used[0] = _NO_NOTIFY


@micropython.viper
def take_back(state: ptr32, count: int):
    """The last `count` chains of pop() have not been taken."""
    state[NEXT] = int(state[NEXT]) - count & 0xFFFF


@micropython.viper
def interrupts(state: ptr32) -> int:
    """Queue.interrupts()."""
    filled = int(state[FILLED])
    before = int(state[SIGNALLED])
    if filled == before or state[SIZE] == 0:
        return 0
    state[SIGNALLED] = filled
    avail = ptr16(int(state[AVAIL]) | int(state[AVAIL + 1]) << 32)
    if state[EVENT]:
        wanted = int(avail[2 + int(state[SIZE])])
        return 1 if (filled - wanted - 1 & 0xFFFF) < (filled - before & 0xFFFF) else 0
    return 0 if int(avail[0]) & _NO_INTERRUPT else 1


def buffers(chain):
    """([(hpa, bytes) that the device reads], [(hpa, bytes) that it writes]) of a chain."""
    out = []
    for i in range(chain[OUT] + chain[IN]):
        at = BUFFERS + BUFFER * i
        out.append((chain[at] | chain[at + 1] << 32, chain[at + 2]))
    return out[: chain[OUT]], out[chain[OUT] :]


def gather(parts, most):
    """The first `most` bytes of [(hpa, bytes), ...]."""
    data = b""
    for hpa, size in parts:
        if len(data) >= most:
            break
        data += uctypes.bytes_at(hpa, min(size, most - len(data)))
    return data


def cut(parts, start, size):
    """`size` bytes of [(hpa, bytes), ...] from byte `start` on."""
    out = []
    for hpa, length in parts:
        if start >= length:
            start -= length
            continue
        length = min(length - start, size)
        if length:
            out.append((hpa + start, length))
        size -= length
        start = 0
    return out
