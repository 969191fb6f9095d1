"""Validity of the network interfaces in a guest's description. The host checks guest files by the same code.

`forward` is used by the host only: the engine's user-mode network implements it.

An error is a ValueError of one line that begins with the entry, and with the key if one of its keys is wrong.
"""

HOST = "host"  # the switch with the uplink to the host's network
_KEYS = ("switch", "mac", "forward")
_MOST = 8
_NETWORK = "10.0.2."  # of the engine's user-mode network
FIRST_ADDRESS = "10.0.2.15"  # that its DHCP gives


def nets(name, entries):
    """Check [{"switch": "lan", "mac": "02:50:00:00:00:01"}, ...]; only switch is required. name: the guest's."""
    if len(entries) > _MOST:
        raise ValueError("[%d]: a guest has %d network interfaces at most" % (_MOST, _MOST))
    seen = {}
    for number, net in enumerate(entries):
        if not isinstance(net, dict):
            raise ValueError("[%d]: must be a table with switch, not %r" % (number, net))
        for key in net:
            if key not in _KEYS:
                raise ValueError("[%d].%s: unknown key; there are %s" % (number, key, ", ".join(_KEYS)))
        switch = net.get("switch")
        if not isinstance(switch, str) or not _word(switch):
            raise ValueError("[%d].switch: must be the name of a switch, not %r" % (number, switch))
        try:
            mac = address(name, number, net)
        except ValueError as error:
            raise ValueError("[%d].mac: %s" % (number, error)) from None
        try:
            if forwards(net) and switch != HOST:
                raise ValueError("only the switch %r leads to the host" % HOST)
        except ValueError as error:
            raise ValueError("[%d].forward: %s" % (number, error)) from None
        if (switch, mac) in seen:
            raise ValueError("[%d].mac: that of [%d] at the same switch" % (number, seen[switch, mac]))
        seen[switch, mac] = number


def forwards(net):
    """[("tcp" or "udp", port of the host, the guest's address, its port), ...] of an interface's `forward`: strings
    such as "tcp:2222:22" or, for a guest without the first address of DHCP, "tcp:2222:10.0.2.16:22". ValueError."""
    given = net.get("forward", [])
    if not isinstance(given, (list, tuple)):
        raise ValueError('must be a list of strings such as "tcp:2222:22", not %r' % (given,))
    return [_forward(text) for text in given]


def _forward(text):
    parts = text.split(":") if isinstance(text, str) else ()
    if len(parts) == 3:
        parts.insert(2, FIRST_ADDRESS)
    if len(parts) != 4 or parts[0] not in ("tcp", "udp"):
        raise ValueError('must be such as "tcp:2222:22" or "tcp:2222:10.0.2.16:22", not %r' % (text,))
    kind, there, address, here = parts
    if not all([port.isdigit() and 0 < int(port) < 65536 for port in (there, here)]):
        raise ValueError("%s: a port is a number from 1 to 65535" % text)
    last = address[len(_NETWORK) :]
    if address[: len(_NETWORK)] != _NETWORK or not last.isdigit() or not 3 < int(last) < 255:
        raise ValueError("%s: the guest's address is one of %s4 to %s254" % (text, _NETWORK, _NETWORK))
    return kind, int(there), address, int(here)


def _word(text):
    """Whether this can be a switch's name."""
    return 0 < len(text) < 32 and all([c.isalpha() or c.isdigit() or c in "_-." for c in text])


def address(name, number, net):
    """The 6 bytes of an interface's address: its mac, or a locally administered one derived from the guest's name.
    ValueError."""
    given = net.get("mac")
    if given is None:
        value = 0x811C9DC5  # FNV-1a
        for byte in ("%s/%d" % (name, number)).encode():
            value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
        return b"\x02P" + value.to_bytes(4, "big")
    parts = given.split(":") if isinstance(given, str) else ()
    try:
        mac = bytes([int(part, 16) for part in parts])
    except ValueError:
        mac = b""
    if len(mac) != 6 or any([len(part) != 2 for part in parts]):
        raise ValueError("must be an address such as 02:50:00:00:00:01, not %r" % (given,))
    if mac[0] & 1 or mac == bytes(6):
        raise ValueError("%s is no address of one interface" % given)
    return mac
