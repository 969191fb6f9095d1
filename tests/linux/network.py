"""Network interfaces of one Linux guest: two at one switch, the second in a namespace of its own; one at the host's."""

import contextlib
import functools
import hashlib
import http.server
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import broken
from pcapng import FileScanner, blocks


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


PORT = _free_port()  # of the host, which leads to the guest's 7000
KEYS = f"""
[[net]]
switch = "lan"
[[net]]
switch = "lan"
mac = "52:54:00:00:00:02"
[[net]]
switch = "host"
forward = ["tcp:{PORT}:7000"]
"""
DRIVERS = "../net/core/failover", "net/net_failover", "net/virtio_net"
OTHER = "nsenter -n -t $(cat /tmp/other)"
PORTS = "vms['linux'].expansion.ports[:2]"

_NO_IPV6 = "/proc/sys/net/ipv6/conf/all/disable_ipv6"


def prepare(shell):
    """10.0.0.1 here, 10.0.0.2 in the namespace; no IPv6, which sends frames of its own."""
    shell.run(
        "unshare -n sleep 99999 & echo $! > /tmp/other; sleep 0.1; ip link set eth1 netns $(cat /tmp/other); "
        f"echo 1 > {_NO_IPV6}; {OTHER} sh -c 'echo 1 > {_NO_IPV6}'; "
        f"ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up; {OTHER} ip addr add 10.0.0.2/24 dev eth1; "
        f"{OTHER} ip link set eth1 up"
    )


def check_ping(shell):
    said = shell.run("ping -c 5 -i 0.1 10.0.0.2; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu")
    assert "5 packets received, 0% packet loss" in said
    assert said.splitlines()[-1] == "1500"
    known = shell.monitor.eval("monitor.switches['lan'].known")
    assert known == {said.splitlines()[-2]: "linux/net0", "52:54:00:00:00:02": "linux/net1"}


def check_tcp(shell):
    """A stream both ways, whose segments no one cuts between two that need not."""
    before = shell.monitor.eval(f"[port.sent for port in {PORTS}]")
    said = shell.run(
        "dd if=/dev/urandom of=/tmp/sent bs=64k count=16 2>/dev/null; md5sum < /tmp/sent; "
        f"{OTHER} nc -l -p 5000 -e cat > /tmp/err & sleep 0.2; nc 10.0.0.2 5000 < /tmp/sent | head -c 1048576 | md5sum"
    )
    first, second = said.split()[0], said.split()[2]
    assert first == second
    after = shell.monitor.eval(f"[port.sent for port in {PORTS}]")
    assert all(then - size > 1 << 20 for (_, size), (_, then) in zip(before, after, strict=True))
    assert shell.monitor.eval(f"[port.words[2] for port in {PORTS}]") == [15, 15], "all that there is is negotiated"
    assert shell.monitor.eval(f"[port.refused for port in {PORTS}]") == [0, 0]


def check_without_offloads(shell):
    """A receiver that can do nothing gets segments and checksums that are right."""
    words = "from vmm.network.words import CAN, MERGES\n"
    shell.monitor.exec(f"{words}can = {PORTS}[1].words[CAN]\n{PORTS}[1].words[CAN] = MERGES")
    try:
        said = shell.run(
            f"{OTHER} nc -l -p 5001 > /tmp/got & sleep 0.2; head -c 200000 /tmp/sent | nc 10.0.0.2 5001; sleep 0.2; "
            f"head -c 200000 /tmp/sent | cmp - /tmp/got && {OTHER} cat /proc/net/snmp | grep ^Tcp"
        )
    finally:
        shell.monitor.exec(f"{PORTS}[1].words[CAN] = can")
    names, values = [line.split() for line in said.splitlines()]
    assert dict(zip(names, values, strict=True))["InCsumErrors"] == "0"


def check_policies(shell):
    """Frames are seen, dropped and changed; afterwards the quick way is back."""
    monitor = shell.monitor
    monitor.exec(
        "vm = vms['linux']\nseen = []\n"
        "@vm.on(PACKET, protocol=1, out=True, net=0)\ndef pings(vcpu):\n"
        "    seen.append(repr(vcpu.packet))\n    return HANDLED if len(seen) == 2 else None\n"
        "@vm.on(PACKET, port=7777, out=False)\ndef shout(vcpu):\n"
        "    data = vcpu.packet.data\n    at = data.find(b'hello')\n"
        "    if at >= 0:\n        data[at:at + 5] = b'HELLO'\n        vcpu.packet.fix()\n"
    )
    try:
        assert "3 packets transmitted, 2 packets received" in shell.run("ping -c 3 -i 0.2 -W 1 10.0.0.2")
        said = shell.run(f"{OTHER} nc -l -p 7777 & sleep 0.2; echo hello world | nc 10.0.0.2 7777; sleep 0.3")
        assert "HELLO world" in said
        seen = monitor.eval("seen")
        assert len(seen) == 3 and "to 52:54:00:00:00:02, IPv4, 98 bytes>" in seen[0]
        broken.check_packet(shell)
        _check_nonsense(shell)
    finally:
        monitor.exec("pings.detach()\nshout.detach()")
    assert monitor.eval(f"[port.words[1] for port in {PORTS}]") == [0, 0]


def _check_nonsense(shell):
    """A policy that leaves in packet.data what is no frame pauses the guest, which goes on without it."""
    for leave in ("vcpu.packet.data[:] = b'short'", "vcpu.packet.data.extend(bytes(70000))", "vcpu.packet.data = None"):
        shell.monitor.exec(f"@vm.on(PACKET, protocol=1, out=True)\ndef broken(vcpu):\n    {leave}")
        broken.fails(shell, "PACKET", "ping -c 1 -W 1 10.0.0.2 > /dev/null; true")
        assert " 0% packet loss" in shell.run("ping -c 1 10.0.0.2")


def capturing(shell, path, *more):
    """A `pcanel capture` that has begun."""
    command = [Path(sys.executable).parent / "pcanel", "capture", "linux", path, "--run", shell.monitor.run.id, *more]
    capture = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while capture.poll() is None and not (path.exists() and path.stat().st_size):
        time.sleep(0.1)
    return capture


def check_other_captures(shell, path):
    """One at a time, whose file another does not touch; one that was killed is no obstacle."""
    first = capturing(shell, path)
    shell.run("ping -c 3 -i 0.1 10.0.0.2")
    second = capturing(shell, path)
    assert second.communicate(timeout=240)[1] == (
        "pcanel capture: guest linux: its frames are captured already (--take-over ends that capture)\n"
    )
    third = capturing(shell, path.with_suffix(".other"), "--take-over")
    said = first.communicate(timeout=240)
    assert first.returncode == 0 and "another capture has taken it over" in said[1] and "none lost" in said[0]
    with path.open("rb") as file:
        assert sum(isinstance(block, blocks.EnhancedPacket) for block in FileScanner(file)) >= 6
    third.kill()
    third.communicate()
    fourth = capturing(shell, path.with_suffix(".fourth"), "--take-over")
    fourth.send_signal(signal.SIGHUP)
    assert "0 frames, none lost" in fourth.communicate(timeout=240)[0]
    assert shell.monitor.eval(f"[port.words[1] for port in {PORTS}]") == [0, 0]


def check_capture(shell, path):
    """pcanel capture, read by a library of another hand."""
    command = [Path(sys.executable).parent / "pcanel", "capture", "linux", path, "--count", "6"]
    with subprocess.Popen([*command, "--run", shell.monitor.run.id]) as capture:
        while capture.poll() is None:
            shell.run("ping -c 2 -i 0.1 10.0.0.2")
    assert capture.returncode == 0
    with path.open("rb") as file:
        found = list(FileScanner(file))
    packets = [block for block in found if isinstance(block, blocks.EnhancedPacket)]
    names = [block.options["if_name"] for block in found if isinstance(block, blocks.InterfaceDescription)]
    assert names == ["linux/net0", "linux/net1", "linux/net2"] and len(packets) == 6
    pings = [packet.packet_data for packet in packets if packet.packet_data[12:14] == b"\x08\x00"]
    assert len(pings) >= 4 and pings[0][26:34] in (b"\x0a\0\0\1\x0a\0\0\2", b"\x0a\0\0\2\x0a\0\0\1")
    assert {packet.interface_id for packet in packets} >= {0, 1}


@contextlib.contextmanager
def served(directory, data):
    """Serves `data` on the host's loopback, by a file in the directory; gives the URL that a guest takes."""
    (directory / "file").write_bytes(data)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://10.0.2.2:{server.server_port}/file"
        finally:
            server.shutdown()


def check_host(shell, directory):
    """DHCP, ping and HTTP by the engine's user-mode network."""
    data = random.Random(5).randbytes(100_000)
    with served(directory, data) as url:
        said = shell.run(
            "ip link set eth2 up; udhcpc -i eth2 -n -q -t 5 -s /bin/true 2>&1; ip addr add 10.0.2.15/24 dev eth2; "
            f"ping -c 2 10.0.2.2; wget -q -O - {url} | md5sum"
        )
    assert "lease of 10.0.2.15 obtained from 10.0.2.2" in said
    assert " 0% packet loss" in said
    assert hashlib.md5(data).hexdigest() in said


def check_forward(shell):
    """A port of the host leads to the guest; what comes back is cut into frames by the card, and its sums are right."""
    sums = shell.run("md5sum < /tmp/sent; nc -l -p 7000 < /tmp/sent > /tmp/came & sleep 0.2")
    with socket.create_connection(("127.0.0.1", PORT), timeout=120) as stream:
        stream.sendall(b"hello from outside\n")  # nc goes when its peer has no more to say
        data = b"".join(iter(lambda: stream.recv(1 << 16), b""))
    assert len(data) == 1 << 20
    assert hashlib.md5(data).hexdigest() == sums.split()[0]
    assert "hello from outside" in shell.run("cat /tmp/came")
    received, sent, dropped = shell.monitor.eval(
        "(lambda uplink: (uplink.received[1], uplink.sent[1], uplink.dropped))(monitor.switches['host'].uplink)"
    )
    assert received > 100_000 and sent > 1 << 20 and dropped == 0
