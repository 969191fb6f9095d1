"""A frame for policies on PACKET: vcpu.packet."""

import struct

import uctypes
from micropython import const

from vmm.network.offload import add_up
from vmm.network.port import text
from vmm.network.words import CSUM, ETHERNET, IPV4, IPV6, TCP

_ARP = const(0x0806)
_UDP = const(17)
_NAMES = {IPV4: "IPv4", _ARP: "ARP", IPV6: "IPv6"}
_CSUM_AT = {TCP: 16, _UDP: 6}


class Packet:
    """One frame on its way from a guest or to it.

    For users: data, destination, ethertype, fix, net, out, ports, protocol, source.

    data: a bytearray, which a policy may change in place. out: the guest sends it. net: the number of its interface.
    """

    def __init__(self, port, frame, header, out):
        self.port = port
        self._came = frame
        self.data = bytearray(frame)
        self.header = header  # virtio's 12 bytes: the offloads left to be done
        self.out = out
        self.net = int(port.name.rsplit("net", 1)[1])
        self.dropped = False

    @property
    def destination(self):
        """The destination address, such as '52:54:00:12:34:56'."""
        return text(self.data[0:6])

    @property
    def source(self):
        """The source address."""
        return text(self.data[6:12])

    def _type(self):
        """(EtherType, offset of its payload), VLAN tags skipped."""
        data, at = self.data, 12
        while data[at : at + 2] == b"\x81\x00" and at < 20:
            at += 4
        return int.from_bytes(data[at : at + 2], "big"), at + 2

    @property
    def ethertype(self):
        """The EtherType, such as 0x800 for IPv4."""
        return self._type()[0]

    def _transport(self):
        """(protocol, offset of its header); (None, 0) for no IP, or a later fragment."""
        kind, at = self._type()
        data = self.data
        if kind == IPV4 and len(data) >= at + 20:
            if (data[at + 6] & 0x1F) | data[at + 7]:
                return None, 0
            return data[at + 9], at + (data[at] & 15) * 4
        if kind == IPV6 and len(data) >= at + 40:
            return data[at + 6], at + 40
        return None, 0

    @property
    def protocol(self):
        """The protocol number of IP: 1 ICMP, 6 TCP, 17 UDP; None if the frame is no IP."""
        return self._transport()[0]

    @property
    def ports(self):
        """(source, destination) of TCP or UDP, or None."""
        protocol, at = self._transport()
        if protocol not in (TCP, _UDP) or len(self.data) < at + 4:
            return None
        return struct.unpack_from(">HH", self.data, at)

    def fix(self):
        """Correct the checksums after a change: IPv4's at once; TCP's or UDP's as an offload of the receiver."""
        data, (kind, ip) = self.data, self._type()
        protocol, at = self._transport()
        if protocol is None:
            return
        if kind == IPV4:
            struct.pack_into("<H", data, ip + 10, 0)
            total = add_up(uctypes.addressof(data) + ip, min(at, len(data)) - ip, 0)
            struct.pack_into("<H", data, ip + 10, ~total & 0xFFFF)
        if protocol not in _CSUM_AT or len(data) < at + _CSUM_AT[protocol] + 2:
            return
        end = ip + int.from_bytes(data[ip + 2 : ip + 4], "big") if kind == IPV4 else len(data)
        addresses = 12, 8
        if kind == IPV6:
            addresses = 8, 32
        pseudo = bytearray(struct.pack(">BBH", 0, protocol, min(end, len(data)) - at & 0xFFFF))
        total = add_up(uctypes.addressof(data) + ip + addresses[0], addresses[1], 0)
        total = add_up(uctypes.addressof(pseudo), 4, total)
        struct.pack_into("<H", data, at + _CSUM_AT[protocol], total)
        self.header[0] |= CSUM
        struct.pack_into("<HH", self.header, 6, at, _CSUM_AT[protocol])

    def wrong(self):
        """A ValueError if `data`, as a policy has left it, is no valid frame; the original is restored. Else None."""
        try:
            check(self.data)
            return None
        except ValueError as error:
            self.data = bytearray(self._came)
            return error

    def __len__(self):
        return len(self.data)

    def __repr__(self):
        kind = self.ethertype
        ports = self.ports
        name = _NAMES.get(kind, hex(kind))
        if ports:
            name += " %s port %d to %d" % (("TCP" if self.protocol == TCP else "UDP",) + ports)
        return "<%s net%d, %s to %s, %s, %d bytes>" % (
            "from" if self.out else "to", self.net, self.source, self.destination, name, len(self.data),
        )  # fmt: skip


def check(data):
    """ValueError unless `data` can be a frame: bytes or bytearray of a valid size."""
    if not isinstance(data, (bytes, bytearray)) or not ETHERNET <= len(data) <= 65535:
        what = "%d bytes" % len(data) if isinstance(data, (bytes, bytearray)) else repr(data)
        raise ValueError("a frame is bytes, from %d to 65535, not %s" % (ETHERNET, what))
