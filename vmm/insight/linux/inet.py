"""Sockets of the Internet protocols: addresses, ports, states in the words of `ss`."""

from micropython import const

from vmm.insight import objects

STATES = {1: "ESTAB", 2: "SYN-SENT", 3: "SYN-RECV", 4: "FIN-WAIT-1", 5: "FIN-WAIT-2", 6: "TIME-WAIT", 7: "UNCONN",
          8: "CLOSE-WAIT", 9: "LAST-ACK", 10: "LISTEN", 11: "CLOSING", 12: "SYN-RECV"}  # fmt: skip
_TIME_WAIT = const(6)  # in this state and the next one the struct is smaller than struct sock
_NEW = const(12)
_INET6 = const(10)


def ipv4(data):
    """Text of four bytes."""
    return ".".join([str(byte) for byte in data])


def ipv6(data):
    """Text of 16 bytes, in brackets: the longest run of zeros is "::" (RFC 5952)."""
    words = [data[i] << 8 | data[i + 1] for i in range(0, 16, 2)]
    if words[:5] == [0] * 5 and words[5] == 0xFFFF:
        return "[::ffff:%s]" % ipv4(data[12:])
    best, length = 8, 1
    for start in range(8):
        end = start
        while end < 8 and not words[end]:
            end += 1
        if end - start > length:
            best, length = start, end - start
    texts = ["%x" % word for word in words]
    if best == 8:
        return "[%s]" % ":".join(texts)
    return "[%s::%s]" % (":".join(texts[:best]), ":".join(texts[best + length :]))


def inode(kernel, sock):
    """The inode of a struct sock (an Object), as /proc/PID/fd names it; 0 where no file has it."""
    socket = sock.sk_socket
    if not socket:
        return 0
    return kernel.container_of(int(socket), "struct socket_alloc", "socket").vfs_inode.i_ino


def row(kernel, protocol, gva):
    """(PROTO, STATE, LOCAL, PEER, INODE) of the struct sock at an address, or of a struct that begins as it does."""
    common = kernel.object("struct sock_common", gva)
    number = common.skc_dport
    port = (number & 0xFF) << 8 | number >> 8
    read = kernel.space.read
    if common.skc_family == _INET6:
        protocol += "6"
        local = ipv6(read(common.at_("skc_v6_rcv_saddr"), 16))
        peer = ipv6(read(common.at_("skc_v6_daddr"), 16))
    else:
        local = ipv4(read(common.at_("skc_rcv_saddr"), 4))
        peer = ipv4(read(common.at_("skc_daddr"), 4))
    state = common.skc_state
    number = 0
    if state not in (_TIME_WAIT, _NEW):
        number = inode(kernel, objects.Object(kernel.types.type("struct sock"), kernel.space, gva))
    return (
        protocol,
        STATES.get(state, "?"),
        "%s:%d" % (local, common.skc_num),
        "%s:%s" % (peer, port or "*"),
        number,
    )
