"""What a Linux guest's network takes: guests/exitbench/net.c in Debian's cloud kernel, two guests at one switch, and
one of them at the network of the host, where a thread of this process serves TCP on the loopback.

QEMU's figures are of one measurement: QEMU 7.2 with KVM in the same Bochs, the same kernel as guest, virtio-net; two
QEMUs by -netdev dgram, and one by -netdev user, behind which the outer system is the host. Natively: Linux's e1000.
"""

import contextlib
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from pcanel.bench import modules
from pcanel.bench.monitored import UNMITIGATED
from pcanel.console import Console
from pcanel.engines.choose import choose
from pcanel.errors import PcanelError
from pcanel.monitor import Monitor
from pcanel.paths import BUILD

_PROGRAM = BUILD / "guests/exitbench/net"
_TIMEOUT = 900  # seconds
_MIB = 1 << 20
_STREAM = 8  # MiB
_PINGS = 200
_OTHER = "10.0.0.2"
_HOST = "10.0.2.2"
_GUESTS = {  # name: (its interfaces, how they are set up)
    "first": (("lan", "host"), "ip addr add 10.0.0.1/24 dev eth0; ip addr add 10.0.2.15/24 dev eth1"),
    "other": (("lan",), f"ip addr add {_OTHER}/24 dev eth0"),
}
# Row: (what the program is told, behind its name; the port of the server on the host's loopback is put in)
RUNS = {
    "net_ping": f"ping {_OTHER} {_PINGS}",
    "net_tcp": f"send {_OTHER} 5000 {_STREAM}",
    "net_host_ping": f"ping {_HOST} {_PINGS}",
    "net_host_tcp": f"get {_HOST} {{port}} {_STREAM}",
}
# Ticks, QEMU 7.2 with KVM; natively, Linux's e1000.
KVM_ONCE = {"net_ping": 168410, "net_tcp": 50_300_000, "net_host_ping": 71377, "net_host_tcp": 13_500_000}
NATIVE_ONCE = {"net_host_ping": 13613}


def monitored(cpu: str | None = None) -> dict[str, int]:
    """Row -> ticks (median of a ping; of TCP, a MiB)."""
    initrd = (BUILD / "guests/initrd.cpio").read_bytes() + modules.with_program(modules.VIRTIO + modules.NET, _PROGRAM)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, server() as port:
        directory = Path(name)
        (directory / "initrd").write_bytes(initrd)
        files = [_file(directory, guest, switches) for guest, (switches, _) in _GUESTS.items()]
        monitor = Monitor(cpu=cpu, guests=files, cmdline=UNMITIGATED)
        monitor.choice = choose("bochs")
        with monitor:
            consoles = {guest: monitor.console(guest) for guest in _GUESTS}
            for guest, (switches, setup) in _GUESTS.items():
                consoles[guest].expect(rb"linux:~# ", _TIMEOUT)
                up = "; ".join(f"ip link set eth{n} up" for n in range(len(switches)))
                _run(consoles[guest], f"stty cols 1000; {modules.INSMOD}; {setup}; {up}")
            consoles["other"].send("/net sink 5000 &\n")
            consoles["other"].expect(r"net: sink is ready", _TIMEOUT)
            return {row: _figure(consoles["first"], words.format(port=port)) for row, words in RUNS.items()}


def _file(directory: Path, name: str, switches: tuple[str, ...]) -> Path:
    file = directory / f"{name}.toml"
    nets = "".join(f'[[net]]\nswitch = "{switch}"\n' for switch in switches)
    file.write_text(
        f'memory = "128M"\nprotocol = "linux"\nkernel = "{BUILD}/guests/cloud.vmlinux"\ninitrd = "initrd"\n'
        f'cmdline = "console=ttyS0 quiet mitigations=off cryptomgr.notests"\n{nets}'
    )
    return file


def _run(console: Console, line: str) -> str:
    """The output of a line at a guest's shell."""
    console.send(f"{line}; echo net: over $?\n")
    return console.expect(r"(?s).*?^net: over \d+", _TIMEOUT)[0].decode(errors="replace")


def _figure(console: Console, words: str) -> int:
    said = _run(console, f"/net {words}")
    found = re.search(rf"^net: {words.split()[0]}: (\d+)", said, re.MULTILINE)
    if not found:
        raise PcanelError(f"the guest's program has not said what `net {words}` takes\n{said[-2000:]}")
    return int(found[1])


@contextlib.contextmanager
def server() -> Iterator[int]:
    """A port of the loopback that gives each client _STREAM MiB."""
    data = bytes(_MIB)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed: the bench is over
            with client, contextlib.suppress(ConnectionError):
                for _ in range(_STREAM):
                    client.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
