"""Sockets of a network namespace, as /proc/net and `ss` show them: TCP, UDP, UDP-Lite, raw, packet, Unix, netlink.

Each protocol has a hash table; its buckets are read many at once, and empty ones are skipped. Limits: 2^20 buckets,
65,536 sockets. Source: Linux, include/net/inet_hashtables.h, udp.h, af_unix.h, include/linux/rhashtable.h.
"""

import struct

import micropython
from micropython import const

from vmm.insight import objects
from vmm.insight.linux import inet
from vmm.insight.table import Table
from vmm.vtx.x86 import MASK64

_COLUMNS = ("PROTO", "STATE", "LOCAL", "PEER", "INODE")
_BUCKETS = const(1 << 20)
_MOST = const(65536)  # sockets
_PORTION = const(512)  # buckets read at once
_UNIX = const(512)  # hash chains of Unix sockets
_LINKS = const(32)  # netlink protocols
_PATH = const(108)  # bytes of a Unix socket's name
_FAMILY = const(2)  # bytes before it
_TYPES = {1: "u_str", 2: "u_dgr", 5: "u_seq"}
_NETLINK = {0: "route", 2: "usersock", 4: "sock_diag", 5: "nflog", 6: "xfrm", 7: "selinux", 8: "iscsi", 9: "audit",
            10: "fib_lookup", 11: "connector", 12: "netfilter", 15: "kobject_uevent", 16: "generic", 20: "rdma",
            21: "crypto"}  # fmt: skip


@micropython.viper
def _pointer(data: ptr8, at: int, size: int, step: int) -> int:
    """Where the next word is from `at` on, `step` bytes apart, that is a kernel's address and even; -1: none.

    The others are NULL, or the odd marker of an end. In viper: nearly all of some thousand buckets are empty.
    """
    while at + 8 <= size:
        if data[at + 7] and not data[at] & 1:
            return at
        at += step
    return -1


class _Reader:
    """Walks hash tables of sockets of one namespace."""

    def __init__(self, kernel, net):
        self.kernel = kernel
        self.space = kernel.space
        self.net = net
        self.common = kernel.types.type("struct sock_common")
        self._net_at = self.common.offset("skc_net.net")
        self._left = _MOST

    def heads(self, gva, count, step, offset):
        """Yield the word at `offset` of each of `count` buckets of `step` bytes that holds a pointer."""
        if count > _BUCKETS:
            raise ValueError("the kernel says that a table of sockets has %d buckets" % count)
        for first in range(0, count, _PORTION):
            size = min(_PORTION, count - first) * step
            data = self.space.read(gva + first * step, size)
            at = _pointer(data, offset, size, step)
            while at >= 0:
                yield struct.unpack_from("<Q", data, at)[0]
                at = _pointer(data, at + step, size, step)

    def chain(self, node, offset):
        """Yield the addresses of the structs linked from `node` on by a member at `offset`, up to NULL or an odd
        marker."""
        while node and not node & 1:
            self._left -= 1
            if self._left < 0:
                raise ValueError("more than %d sockets: a chain loops" % _MOST)
            yield node - offset & MASK64
            node = self.space.number(node, 8)

    def socks(self, gva, count, step, head, node):
        """Yield the sockets of the namespace in `count` buckets of `step` bytes, heads and nodes at these offsets."""
        for first in self.heads(gva, count, step, head):
            for sock in self.chain(first, node):
                if self.space.number(sock + self._net_at, 8) == self.net:
                    yield sock


def sockets(kernel, task):
    """A Table of the sockets in the network namespace of a task: PROTO, STATE, LOCAL, PEER, INODE."""
    if not task.nsproxy:
        raise ValueError("task %d is ending: it has no network any more" % task.pid)
    net = task.nsproxy.net_ns
    reader = _Reader(kernel, int(net))
    rows = []
    for part in (_tcp, _udp, _raw, _packet, _unix, _netlink):
        rows += part(reader, net)
    return Table(_COLUMNS, rows)


def _tcp(reader, net):
    kernel = reader.kernel
    table = kernel.variable("tcp_hashinfo", "struct inet_hashinfo")
    node = reader.common.offset("skc_nulls_node")
    rows = []
    listening = table.lhash2
    if listening:
        bucket = listening.target_
        member = "nulls_head" if bucket.has("nulls_head") else "head"
        for sock in reader.socks(int(listening), table.lhash2_mask + 1, bucket.size, bucket.offset(member), node):
            rows.append(inet.row(kernel, "tcp", sock))
    for sock in reader.socks(int(table.ehash), table.ehash_mask + 1, table.ehash.target_.size, 0, node):
        rows.append(inet.row(kernel, "tcp", sock))
    return rows


def _udp(reader, net):
    kernel = reader.kernel
    node = reader.common.offset("skc_node")
    rows = []
    for name, protocol in (("udp_table", "udp"), ("udplite_table", "udplite")):
        if protocol == "udplite" and kernel.find(name) is None:
            continue  # newer kernels have none
        table = kernel.variable(name, "struct udp_table")
        slot = table.hash.target_
        socks = reader.socks(int(table.hash), table.mask + 1, slot.size, slot.offset("head"), node)
        rows += [inet.row(kernel, protocol, sock) for sock in socks]
    return rows


def _raw(reader, net):
    """Rows of raw sockets: the protocol's number is in place of the port."""
    kernel = reader.kernel
    node = reader.common.offset("skc_node")
    rows = []
    for name in ("raw_v4_hashinfo", "raw_v6_hashinfo"):
        at = kernel.find(name)
        if at is not None:  # IPv6 may be a module, or not there
            heads = kernel.types.type("struct raw_hashinfo").member("ht")
            socks = reader.socks(at + heads.byte, heads.type.plain.length, 8, 0, node)
            rows += [inet.row(kernel, "raw", sock) for sock in socks]
    return rows


def _packet(reader, net):
    """Rows of packet sockets: LOCAL is the Ethernet protocol and the interface's number, "*" for all."""
    kernel = reader.kernel
    if not net.type_.plain.target.has("packet") or not kernel.types.has("struct packet_sock"):
        return []  # AF_PACKET is a module
    type = kernel.types.type("struct packet_sock")
    rows = []
    for at in reader.chain(net.packet.sklist.first.value_, reader.common.offset("skc_node")):
        sock = objects.Object(type, kernel.space, at)
        kind = {2: "p_dgr", 3: "p_raw"}.get(sock.sk.sk_type, "p_?")
        number = sock.num
        local = "%#06x:%s" % ((number & 0xFF) << 8 | number >> 8, sock.ifindex or "*")
        state = inet.STATES.get(sock.sk.__sk_common.skc_state, "?")
        rows.append((kind, state, local, "*", inet.inode(kernel, sock.sk)))
    return rows


def _unix(reader, net):
    kernel = reader.kernel
    if net.unx.type_.has("table"):  # one for each namespace, from Linux 6.0 on
        table = int(net.unx.table.buckets)
    else:
        table = kernel.symbol("unix_socket_table")
    node = reader.common.offset("skc_node")
    type = kernel.types.type("struct unix_sock")
    rows = []
    for gva in reader.socks(table, _UNIX, 8, 0, node):
        sock = objects.Object(type, kernel.space, gva)
        kind = _TYPES.get(sock.sk.sk_type, "u_?")
        peer = _unix_name(kernel, sock.peer) if sock.peer else "*"
        state = inet.STATES.get(sock.sk.__sk_common.skc_state, "?")
        rows.append((kind, state, _unix_name(kernel, sock), peer, inet.inode(kernel, sock.sk)))
    return rows


def _unix_name(kernel, sock):
    """The name of a Unix socket: a path, "@name" in the abstract name space, "*" without a name."""
    if isinstance(sock, objects.Pointer):
        sock = kernel.object("struct unix_sock", int(sock))
    address = sock.addr
    if not address:
        return "*"
    size = min(max(address.len - _FAMILY, 0), _PATH)
    data = kernel.space.read(int(address) + address.target_.offset("name") + _FAMILY, size)
    if data[:1] == b"\0":
        return "@" + "".join([chr(byte) if 32 < byte < 127 else "@" for byte in data[1:]])
    found = objects.text(data)
    return found if isinstance(found, str) else repr(found)[2:-1]


def _netlink(reader, net):
    kernel = reader.kernel
    tables = kernel.variable("nl_table", "struct netlink_table *")
    type = kernel.types.type("struct netlink_sock")
    node = type.offset("node")
    rows = []
    for protocol in range(_LINKS):
        buckets = tables[protocol].hash.tbl
        if not buckets:
            continue
        if buckets.nest:
            raise ValueError("the table of netlink sockets is a nested one: not known here")
        gva = int(buckets) + buckets.target_.offset("buckets")
        for at in reader.socks(gva, buckets.size, 8, 0, node):
            sock = objects.Object(type, kernel.space, at)
            local = "%s:%d" % (_NETLINK.get(protocol, str(protocol)), sock.portid)
            peer = str(sock.dst_portid) if sock.dst_portid else "*"
            state = inet.STATES.get(sock.sk.__sk_common.skc_state, "?")
            rows.append(("nl", state, local, peer, inet.inode(kernel, sock.sk)))
    return rows
