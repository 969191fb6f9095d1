"""Offloads for a receiver that cannot do them itself: TCP segmentation, and checksums.

Source: virtio 1.2, "Packet Transmission"; RFC 1071; RFC 9293, "TCP Header Format"; RFC 791; RFC 8200.
"""

import struct

import uctypes
from cpu import add_up
from micropython import const

from vmm.network.words import CSUM, IPV4, IPV6, NEEDS_CSUM, NEEDS_TSO4, NEEDS_TSO6, PSH, TCPV4

_PLAIN = bytes(10) + b"\x01\x00"  # a header without offloads
_FIN = const(0x01)
_CWR = const(0x80)


def complete(frame, start, offset):
    """Write the checksum of the bytes from `start` on, at `offset` behind it, where the pseudo header's sum is now."""
    total = add_up(uctypes.addressof(frame) + start, len(frame) - start, 0)
    # For UDP a checksum of zero means that there is none.
    struct.pack_into("<H", frame, start + offset, ~total & 0xFFFF or 0xFFFF)


def finish(frame, header, can):
    """Do the offloads of a frame that its receiver does not support. Returns [(frame, header), ...] for the receiver.

    A frame that does not match its header is dropped: []. can: bits of vmm.network.words.
    """
    flags, kind, size, start, offset = struct.unpack("<BB2xHHH", header[:10])
    cut = kind and not can & (NEEDS_TSO4 if kind == TCPV4 else NEEDS_TSO6)
    if not cut:
        if flags & CSUM and not can & NEEDS_CSUM:
            frame = bytearray(frame)  # a copy: other receivers get the original
            complete(frame, start, offset)
            header = bytearray(_PLAIN)
        return [(frame, header)]
    return _segments(frame, kind == TCPV4, size, can)


def _segments(frame, four, most, can):
    at = 12
    while frame[at : at + 2] == b"\x81\x00" and at < 20:
        at += 4
    ip = at + 2
    kind = frame[at] << 8 | frame[at + 1]
    if kind != (IPV4 if four else IPV6) or len(frame) < ip + 40:
        return []
    tcp = ip + ((frame[ip] & 15) * 4 if four else 40)
    if frame[ip + (9 if four else 6)] != 6 or len(frame) < tcp + 20:
        return []
    data = tcp + (frame[tcp + 12] >> 4) * 4
    if data > len(frame) or data < tcp + 20:
        return []
    out = []
    sequence = struct.unpack_from(">I", frame, tcp + 4)[0]
    number = struct.unpack_from(">H", frame, ip + 4)[0]
    last = frame[tcp + 13]
    addresses = add_up(uctypes.addressof(frame) + ip + (12 if four else 8), 8 if four else 32, 0)
    begin = data
    while True:
        size = min(most, len(frame) - begin)
        end = begin + size >= len(frame)
        one = bytearray(frame[:data]) + frame[begin : begin + size]
        struct.pack_into(">I", one, tcp + 4, sequence + (begin - data) & 0xFFFFFFFF)
        one[tcp + 13] = last & ~(0 if end else _FIN | PSH) & ~(0 if begin == data else _CWR)
        if four:
            struct.pack_into(">HH", one, ip + 2, len(one) - ip, number + len(out) & 0xFFFF)
            struct.pack_into(">H", one, ip + 10, 0)
            total = add_up(uctypes.addressof(one) + ip, tcp - ip, 0)
            struct.pack_into("<H", one, ip + 10, ~total & 0xFFFF)
        else:
            struct.pack_into(">H", one, ip + 4, len(one) - ip - 40)
        length = len(one) - tcp
        pseudo = bytearray(struct.pack(">BBH", 0, 6, length))
        struct.pack_into("<H", one, tcp + 16, add_up(uctypes.addressof(pseudo), 4, addresses))
        if can & NEEDS_CSUM:
            header = bytearray(struct.pack("<BBHHHHH", CSUM, 0, 0, 0, tcp, 16, 1))
        else:
            complete(one, tcp, 16)
            header = bytearray(_PLAIN)
        out.append((one, header))
        begin += size
        if end:
            return out
