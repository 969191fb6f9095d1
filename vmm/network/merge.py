"""Merges TCP frames from the host's network card into one long frame, for a guest that accepts such frames.

A guest's kernel takes thousands of ticks for each received frame, whatever its size. Only frames that are in the card's
ring already are merged. They are consecutive segments of one connection with the same header fields: the result is the
frame that a sender with segmentation offload would have sent. Checksums are verified first, since a guest verifies none
of a long frame. Source: virtio 1.2, "Processing of Incoming Packets"; RFC 791; RFC 9293, "TCP Header Format".
"""

import cpu
import micropython
from micropython import const

from vmm.devices.virtio.queue import BUFFER
from vmm.network.words import CSUM, ETHERNET, HEADER, PSH, SIZE, TCP, TCPV4

_IPV4 = const(0x0008)  # EtherType, as a little-endian word of the frame
_NO_OPTIONS = const(0x45)
_IP = const(20)  # bytes of such a header
_IP_SUM = const(5)  # half word of its checksum
_ADDRESSES = const(12)  # byte of its addresses; TCP follows them
_DONT_FRAGMENT = const(0x0040)
_ACK = const(0x10)
_TCP_SUM = const(16)
_MOST_FRAMES = const(44)  # 64 KiB in frames of Ethernet's size
_MOST = const(ETHERNET + 0xFFFF)  # bytes
_RIGHT = const(0xFFFF)  # the sum of data with a right checksum


# 1,300 ticks for a frame of 1,460 bytes, 250 of them for its checksums. Comparing a frame in a function of its own
# would cost a call (180) for each, with six more arguments.
@micropython.viper
def merge(port: int, parts: int, peek, keep) -> int:
    """Merge the card's next frames into the one at `parts`. Returns the number of frames merged.

    parts: address of the frame's three words, with room for others behind them; peek, keep: the card's. The port's SIZE
    and HEADER are set for the merged frame. Guests of higher priority may preempt it.
    """
    if int(peek(parts + BUFFER * 4, 0)) == 0:
        return 0
    part = ptr32(parts)
    size = int(part[2])
    frame = int(part[0]) | int(part[1]) << 32
    if size < ETHERNET + 2 * _IP or int(ptr16(frame)[6]) != _IPV4:
        return 0
    f = ptr32(frame)
    i = ptr32(frame + ETHERNET)
    t = ptr32(frame + ETHERNET + _IP)
    fixed = int(i[0]) & 0xFFFF
    if fixed & 0xFF != _NO_OPTIONS or int(i[2]) >> 8 & 0xFF != TCP:
        return 0
    n = int(i[0]) >> 16
    if ((n & 0xFF) << 8 | n >> 8) != size - ETHERNET:
        return 0
    n = int(i[1])
    fragment = n >> 16
    number = (n & 0xFF) << 8 | n >> 8 & 0xFF
    words = int(t[3])
    head = (words & 0xF0) >> 2
    data = ETHERNET + _IP + head  # bytes of all headers
    most = size - data
    if fragment | _DONT_FRAGMENT != _DONT_FRAGMENT or head < _IP or most <= 0 or words >> 8 & 0xFF != _ACK:
        return 0
    n = int(t[1])
    sequence = ((n & 0xFF) << 24 | (n & 0xFF00) << 8 | n >> 8 & 0xFF00 | n >> 24) + most & 0xFFFFFFFF
    add_up = cpu.add_up
    look = cpu.look
    total = size
    count = 0
    pushed = 0
    look()  # in the exit that has sent, up to 8,000 ticks lie before this line
    while count < _MOST_FRAMES:
        parts += BUFFER * 4
        part = ptr32(parts)
        if count:
            if int(peek(parts, count)) == 0:
                break
        size = int(part[2]) - data
        if size <= 0 or size > most or total + size > _MOST:
            break
        at = int(part[0]) | int(part[1]) << 32
        a = ptr32(at)
        if int(a[0]) != int(f[0]) or int(a[1]) != int(f[1]) or int(a[2]) != int(f[2]):
            break
        if int(ptr16(at)[6]) != _IPV4:
            break
        a = ptr32(at + ETHERNET)
        n = size + data - ETHERNET
        if int(a[0]) != (fixed | (n & 0xFF) << 24 | (n & 0xFF00) << 8):
            break
        n = int(a[1])
        if n >> 16 != fragment or (int(a[2]) ^ int(i[2])) & 0xFFFF or int(a[3]) != int(i[3]) or int(a[4]) != int(i[4]):
            break
        n = (n & 0xFF) << 8 | n >> 8 & 0xFF
        if n != (number + count + 1 & 0xFFFF):
            if n != number or fragment == 0:
                break
        a = ptr32(at + ETHERNET + _IP)
        if int(a[0]) != int(t[0]) or int(a[2]) != int(t[2]):
            break
        pushed = (int(a[3]) ^ words) & 0xFFFFFFFF
        if pushed:
            if pushed != PSH << 8:
                break
        n = int(a[1])
        if ((n & 0xFF) << 24 | (n & 0xFF00) << 8 | n >> 8 & 0xFF00 | n >> 24) != sequence:
            break
        n = _IP  # options
        while n < head:
            if int(a[n >> 2]) != int(t[n >> 2]):
                break
            n += 4
        if n < head:
            break
        if count == 0:
            if int(_right(frame + ETHERNET, most + head)) == 0:
                break
        if int(add_up(at + ETHERNET, _IP, 0)) != _RIGHT:
            break
        n = size + head
        if int(add_up(at + ETHERNET + _ADDRESSES, n + 8, (TCP << 8) + ((n & 0xFF) << 8 | n >> 8))) != _RIGHT:
            break
        at += data
        part[0] = at & 0xFFFFFFFF
        part[1] = at >> 32
        part[2] = size
        total += size
        count += 1
        if size < most or pushed:
            words |= pushed
            break
        sequence = sequence + size & 0xFFFFFFFF
        look()
    if count == 0:
        return 0
    keep(count)
    t[3] = words
    _whole(port, frame, total, data, most)
    return count


@micropython.viper
def _whole(port: int, frame: int, total: int, data: int, most: int):
    """Make the first frame's headers those of the merged frame: `total` bytes, `data` of them headers, at most `most`
    bytes of data in a segment."""
    i = ptr32(frame + ETHERNET)
    n = total - ETHERNET
    i[0] = int(i[0]) & 0xFFFF | (n & 0xFF) << 24 | (n & 0xFF00) << 8
    ptr16(frame + ETHERNET)[_IP_SUM] = 0
    ptr16(frame + ETHERNET)[_IP_SUM] = ~int(cpu.add_up(frame + ETHERNET, _IP, 0))
    ptr16(frame + ETHERNET + _IP)[_TCP_SUM >> 1] = int(_pseudo(frame + ETHERNET, n - _IP))
    p = ptr32(port)
    p[SIZE] = total
    p[HEADER] = CSUM | TCPV4 << 8 | data << 16
    p[HEADER + 1] = most | ETHERNET + _IP << 16
    p[HEADER + 2] = _TCP_SUM | 1 << 16


@micropython.viper
def _pseudo(ip: int, size: int) -> int:
    """The sum of TCP's pseudo header. ip: address of the IP header; size: bytes of TCP."""
    return int(cpu.add_up(ip + _ADDRESSES, 8, (TCP << 8) + ((size & 0xFF) << 8 | size >> 8)))


@micropython.viper
def _right(ip: int, size: int) -> int:
    """Whether the checksums of the IP header at `ip` and of the `size` bytes of TCP behind it are right."""
    if int(cpu.add_up(ip, _IP, 0)) != _RIGHT:
        return 0
    return 1 if int(cpu.add_up(ip + _IP, size, int(_pseudo(ip, size)))) == _RIGHT else 0
