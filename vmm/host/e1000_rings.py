"""The descriptor rings of an 82540EM, in viper: in bytecode a frame took 30,000 ticks, here it takes some hundreds.

A frame to be sent is copied once, into the contiguous buffers of its descriptors; a received one is copied once, by its
receiver. Source: Intel, "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual", "Receive and
Transmit Description".
"""

import cpu
import micropython
from micropython import const

from vmm.devices.virtio.queue import CHAIN, NOTHING
from vmm.host.buffers import BUFFER, COUNT, fill, fill_sum
from vmm.network.words import CSUM, ETHERNET, IPV4, IPV6, TCP, TCPV4, TCPV6

ENTRY = const(16)
RING = const(COUNT * ENTRY)
BUFFERS = const(2 * RING)  # offset of the receive ring's buffers
_TX_BUFFERS = const(BUFFERS + COUNT * BUFFER)
BYTES = const(_TX_BUFFERS + COUNT * BUFFER)

# Words of a card
REGISTERS = const(0)  # hpa, low and high
RINGS = const(2)  # hpa of the receive ring; the transmit ring and the buffers follow
NEXT = const(4)  # next receive descriptor
TAKEN = const(5)  # the frame before it is in use
FREE = const(6)  # next transmit descriptor to fill
SENT = const(7)  # oldest transmit descriptor that may not have been sent yet
TOLD = const(8)  # FREE when the tail register was last written
LINE_MASKED = const(9)  # the card has, or may have, interrupted: its line is masked until it is answered
CARD_WORDS = const(10)

# Registers
ICR = const(0x00C0)
IMS = const(0x00D0)
IMC = const(0x00D8)
RX_TAIL = const(0x2818)
_TX_TAIL = const(0x3818)
RXT0 = const(1 << 7 | 1 << 6 | 1 << 4)  # causes: frames received, few descriptors left, none left

_DONE = const(1)  # of a descriptor's status
_WHOLE = const(2)
# The third word of a transmit descriptor
_LAST = const(1 << 24)
_FCS = const(1 << 25)
_REPORT = const(1 << 27)
_EXTENDED = const(1 << 29)
_DATA = const(1 << 20)
_TCP = const(1 << 24)  # of a context
_IP = const(1 << 25)
_SEGMENTS = const(1 << 26)
_FILL_IP = const(1 << 8)  # of data, in the fourth word: checksums
_FILL = const(1 << 9)
_FAR = const(256)  # offsets in a context are below this


@micropython.viper
def read(card: int, register: int) -> int:
    c = ptr32(card)
    return int(ptr32((int(c[REGISTERS]) | int(c[REGISTERS + 1]) << 32) + register)[0])


@micropython.viper
def write(card: int, register: int, value: int):
    c = ptr32(card)
    ptr32((int(c[REGISTERS]) | int(c[REGISTERS + 1]) << 32) + register)[0] = value


@micropython.viper
def has_frame(card: int) -> int:
    """Whether a frame has been received."""
    c = ptr32(card)
    entry = ptr32((int(c[RINGS]) | int(c[RINGS + 1]) << 32) + int(c[NEXT]) * ENTRY)
    return int(entry[3]) & _DONE


@micropython.viper
def has(card: int) -> int:
    """Whether the card needs service: a frame, or an interrupt that has to be answered."""
    c = ptr32(card)
    if int(read(card, ICR)):
        c[LINE_MASKED] = 1
    return 1 if c[LINE_MASKED] else int(has_frame(card))


@micropython.viper
def tell(card: int):
    """Send the frames of put(). Disables interrupts until listen(): an answer that arrives at once needs none."""
    c = ptr32(card)
    write(card, IMC, RXT0)
    if c[TOLD] != c[FREE]:
        c[TOLD] = c[FREE]
        write(card, _TX_TAIL, int(c[FREE]))
    if int(read(card, ICR)):
        c[LINE_MASKED] = 1


@micropython.viper
def listen(card: int):
    """Enable interrupts, also for frames that have arrived since tell()."""
    write(card, IMS, RXT0)


@micropython.viper
def answered(card: int):
    """The interrupt has been answered; the caller unmasks the line."""
    ptr32(card)[LINE_MASKED] = 0


@micropython.viper
def take(card: int, part: ptr32) -> int:
    """Take the next frame from the ring. Returns its bytes, or 0. part: three words for it; it stays valid until the
    next call."""
    c = ptr32(card)
    rings = int(c[RINGS]) | int(c[RINGS + 1]) << 32
    n = int(c[NEXT])
    if c[TAKEN]:
        c[TAKEN] = 0
        write(card, RX_TAIL, n - 1 & COUNT - 1)
    while True:
        entry = ptr32(rings + n * ENTRY)
        status = int(entry[3])
        if status & _DONE == 0:
            return 0
        size = int(entry[2]) & 0xFFFF
        entry[2] = 0
        entry[3] = 0
        here = rings + BUFFERS + n * BUFFER
        n = n + 1 & COUNT - 1
        c[NEXT] = n
        if status & 0xFF02 == _WHOLE and size >= ETHERNET and size <= BUFFER:
            break
        write(card, RX_TAIL, n - 1 & COUNT - 1)
    c[TAKEN] = 1
    part[0] = here & 0xFFFFFFFF
    part[1] = here >> 32
    part[2] = size
    return size


@micropython.viper
def peek(card: int, part: ptr32, ahead: int) -> int:
    """As take(), for the frame that is `ahead` frames behind the next one, without taking it from the ring."""
    c = ptr32(card)
    rings = int(c[RINGS]) | int(c[RINGS + 1]) << 32
    n = int(c[NEXT]) + ahead & COUNT - 1
    entry = ptr32(rings + n * ENTRY)
    if int(entry[3]) & 0xFF03 != _WHOLE | _DONE:
        return 0
    size = int(entry[2]) & 0xFFFF
    if size < ETHERNET or size > BUFFER:
        return 0
    here = rings + BUFFERS + n * BUFFER
    part[0] = here & 0xFFFFFFFF
    part[1] = here >> 32
    part[2] = size
    return size


@micropython.viper
def keep(card: int, count: int):
    """Take the next `count` frames, which stay valid like the one before them."""
    c = ptr32(card)
    rings = int(c[RINGS]) | int(c[RINGS + 1]) << 32
    n = int(c[NEXT])
    while count > 0:
        entry = ptr32(rings + n * ENTRY)
        entry[2] = 0
        entry[3] = 0
        n = n + 1 & COUNT - 1
        count -= 1
    c[NEXT] = n


@micropython.viper
def put(card: int, parts: int, skip: int, size: int, header: int) -> int:
    """Copy a frame of `size` bytes into the transmit ring. CHAIN; NOTHING if the ring is full, or the frame does not
    match its header. Arguments: as of vmm.network.receive.receive()."""
    c = ptr32(card)
    rings = int(c[RINGS]) | int(c[RINGS + 1]) << 32
    ring = rings + RING
    n = int(c[FREE])
    sent = int(c[SENT])
    while sent != n and ptr32(ring + sent * ENTRY)[3] & _DONE:
        sent = sent + 1 & COUNT - 1
    c[SENT] = sent
    if (sent - n - 1 & COUNT - 1) < (size + BUFFER - 1) // BUFFER + 1:
        return NOTHING
    h = ptr32(header)
    flags = int(h[0]) & CSUM
    segments = int(h[0]) >> 8 & 0xFF
    start = int(h[1]) >> 16
    offset = int(h[2]) & 0xFFFF
    near = 0  # whether the card computes the checksum, which takes a context descriptor
    if flags:
        if segments or start + offset < _FAR:
            near = 1
    first = n + near & COUNT - 1
    buffers = rings + _TX_BUFFERS
    frame = buffers + first * BUFFER
    fill(buffers, first, 0, parts, skip, size)
    command = _FCS | _REPORT
    sums = 0
    if segments:
        sums = int(_segment(ring + n * ENTRY, frame, size, segments, int(h[1]) & 0xFFFF))
        if sums == 0:
            return NOTHING
        command |= _SEGMENTS
    elif near:
        sums = _FILL
        context = ptr32(ring + n * ENTRY)
        context[0] = 0
        context[1] = start | start + offset << 8
        context[2] = _EXTENDED | _REPORT
        context[3] = 0
    elif flags:
        fill_sum(frame, start, offset, size)
    if sums:
        command |= _EXTENDED | _DATA
    at = frame
    n = first
    while size > 0:
        piece = BUFFER if size > BUFFER else size
        entry = ptr32(ring + n * ENTRY)
        entry[0] = at & 0xFFFFFFFF
        entry[1] = at >> 32
        size -= piece
        entry[2] = piece | command | (0 if size else _LAST)
        entry[3] = sums
        n = n + 1 & COUNT - 1
        at += BUFFER
        if at == buffers + COUNT * BUFFER:
            at = buffers
    c[FREE] = n
    return CHAIN


@micropython.viper
def _segment(context: ptr32, frame: int, size: int, segments: int, most: int) -> int:
    """Write the context descriptor for TCP segmentation into frames of `most` bytes of data, and prepare the headers as
    the card needs them: lengths 0, and the pseudo header's sum without the length. Returns the checksum bits of its
    data descriptors; 0 if the frame is no TCP of this kind."""
    f = ptr8(frame)
    ip = ETHERNET
    while f[ip - 2] == 0x81 and f[ip - 1] == 0 and ip < ETHERNET + 8:
        ip += 4
    if size < ip + 40:
        return 0
    kind = int(f[ip - 2]) << 8 | int(f[ip - 1])
    p = ptr8(frame + ip)
    if segments == TCPV4:
        tcp = (int(p[0]) & 15) * 4
        if kind != IPV4 or tcp < 20 or p[9] != TCP:
            return 0
        total = int(cpu.add_up(frame + ip + 12, 8, 0x0600))
    elif segments == TCPV6:
        tcp = 40
        if kind != IPV6 or p[6] != TCP:
            return 0
        total = int(cpu.add_up(frame + ip + 8, 32, 0x0600))
    else:
        return 0
    data = ip + tcp
    t = ptr8(frame + data)
    head = int(t[12]) >> 4 << 2
    if head < 20 or data + head > size or data + head >= _FAR:
        return 0
    command = _EXTENDED | _REPORT | _TCP | _SEGMENTS
    fill = _FILL
    if segments == TCPV4:
        command |= _IP
        fill |= _FILL_IP
        p[2] = 0
        p[3] = 0
        p[10] = 0
        p[11] = 0
    else:
        p[4] = 0
        p[5] = 0
    t[16] = total
    t[17] = total >> 8
    context[0] = ip | ip + 10 << 8 | data - 1 << 16
    context[1] = data | data + 16 << 8
    context[2] = command | size - data - head
    context[3] = data + head << 8 | most << 16
    return fill
