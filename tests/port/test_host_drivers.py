"""Drivers of the machine's own devices in QEMU: virtio and AHCI disks, whose images the host reads afterwards, and its
network cards, by a DHCP server's answer and a conversation by TCP with a server on the host's loopback."""

import contextlib
import hashlib
import random
import socket
import struct
import threading
from pathlib import Path

import pytest
from pcanel.engines.choose import Choice
from pcanel.engines.qemu import Qemu
from pcanel.hostdisks import Disk
from pcanel.monitor import Monitor

SECTORS = 4096
SOURCE = Path(__file__).with_name("host_drivers.py").read_text()
TCP = Path(__file__).with_name("host_tcp.py").read_text()
SAYS, HEARS = 200_000, 400_000  # bytes, by TCP
DISCOVER = struct.pack(">BBBBIHHIIII", 1, 1, 6, 0, 0x12345678, 0, 0x8000, 0, 0, 0, 0) + b"\x52\x54\0\0\0\7" + bytes(202)
DISCOVER += b"\x63\x82\x53\x63\x35\1\1\xff"


class Ahci(Qemu):
    """The disk behind an AHCI controller, and an e1000."""

    def arguments(self):
        words = [word.replace("virtio-net-pci", "e1000") for word in super().arguments()]
        at = [n for n, word in enumerate(words) if word.startswith("virtio-blk-pci,")]
        for n in at:
            words[n] = words[n].replace("virtio-blk-pci,", "ide-hd,bus=ahci.0,")
        return [*words[: at[0] - 1], "-device", "ahci,id=ahci", *words[at[0] - 1 :]] if at else words


class Throttled(Qemu):
    """64 KiB a second: what comes behind a large request waits."""

    def arguments(self):
        limit = ",throttling.bps-total=65536"
        return [word + limit if word.startswith("if=none,id=disk") else word for word in super().arguments()]


class ThrottledAhci(Throttled, Ahci):
    pass


KINDS = {"virtio": (Qemu, "virtio disk"), "ahci": (Ahci, "QEMU HARDDISK")}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def image(tmp_path_factory, kind):
    path = tmp_path_factory.mktemp("disk") / "disk.img"
    path.write_bytes(random.Random(8).randbytes(SECTORS * 512))
    return path


@pytest.fixture(scope="module")
def prompt(image, kind):
    monitor = Monitor(engine="qemu", memory=256)
    monitor.choice = Choice(KINDS[kind][0], "what this is about")
    monitor._machine.disks = [Disk(image, True)]
    monitor._machine.network = True
    with monitor:
        monitor.exec(f"import uctypes\nfrom vmm.host import FLUSH, READ, WRITE\n{SOURCE}")
        monitor.exec("a, b = bytearray(300 * 512), bytearray(300 * 512)\nat, bt = map(uctypes.addressof, (a, b))")
        yield monitor


def test_the_disk_is_found_by_its_name(prompt, image, kind):
    name = Disk(image, True).model
    assert prompt.eval("[(d.model, d.serial, d.sectors) for d in drives.found]") == [(KINDS[kind][1], name, SECTORS)]
    prompt.exec(f"drive = drives.take({name!r}, guest, True)")


@pytest.mark.parametrize("sizes", [[300 * 512], [512] * 300, [1, 511, 3000, 1096, 65536 - 4608 + 512], [1] * 1024])
def test_reads(prompt, image, sizes):
    count = sum(sizes) // 512
    prompt.exec(f"for i in range(len(a)):\n    a[i] = 0\nok = transfer(drive, READ, 77, pieces(at, {sizes!r}))")
    assert prompt.eval("ok") is True
    assert prompt.eval(f"bytes(a[:{sum(sizes)}])") == image.read_bytes()[77 * 512 : (77 + count) * 512]


def test_writes_are_in_the_image_after_a_flush(prompt, image):
    before = image.read_bytes()
    prompt.exec(
        "for i in range(len(b)):\n    b[i] = i * 7 >> 3 & 255\n"
        "ok = transfer(drive, WRITE, 1000, pieces(bt, [512] * 300)), transfer(drive, FLUSH, 0, None)"
    )
    assert prompt.eval("ok") == (True, True)
    wanted = bytes(i * 7 >> 3 & 255 for i in range(300 * 512))
    assert image.read_bytes() == before[: 1000 * 512] + wanted + before[1300 * 512 :]


def test_a_request_beyond_the_disk_fails_and_the_next_does_not(prompt):
    first = f"transfer(drive, READ, {SECTORS - 1}, pieces(at, [512] * 40))"
    prompt.exec(f"ok = {first}, transfer(drive, READ, 0, pieces(at, [512]))")
    assert prompt.eval("ok") == (False, True)


def test_requests_are_under_way_together_and_can_be_cancelled(prompt, image):
    prompt.exec(
        "answers = []\n"
        "def send(vm, n):\n"
        "    words, sectors = words_of([(at + 512 * n, 512)])\n"
        "    drive.submit(Request(vm, READ, n, words, sectors, lambda ok: answers.append((vm is guest, n, ok))))\n"
        "other = Guest()\n"
        "for n in range(40):\n    send(guest if n & 1 else other, n)\n"
        "drive.cancel(other)\n"
        "end = cpu.rdtsc() + 20 * cpu.tsc_hz\n"
        "while len([a for a in answers if a[0]]) < 20 and cpu.rdtsc() < end:\n    drive.look(0)\n"
    )
    answers = prompt.eval("answers")
    assert sorted(n for mine, n, ok in answers if mine and ok) == list(range(1, 40, 2))
    data = prompt.eval("bytes(a[: 40 * 512])")
    whole = image.read_bytes()
    assert all(data[n * 512 :][:512] == whole[n * 512 :][:512] for n in range(1, 40, 2))


def test_a_network_card_sends_and_receives(prompt, kind):
    """A frame in two pieces goes out, with the checksum to be filled in by the card; the answer comes back."""
    prompt.exec(
        "from vmm.network import uplink\nfrom vmm.network.words import NEEDS_CSUM\n"
        "class Guests(Scheduler):\n    nested = False\n"
        "link = uplink.find(Guests(), monitor.pages)\ncard = link.card\n"
        "frame, header, part = bytearray(1500), bytearray(12), array('I', [0, 0, 0])\n"
        "def send(data, start, offset):\n"
        "    frame[: len(data)] = data\n"
        "    header[:] = bytes([1, 0, 0, 0, 0, 0, start, 0, offset, 0, 0, 0])\n"
        "    base = uctypes.addressof(frame)\n"
        "    parts = array('I', [base & 0xFFFFFFFF, base >> 32, 31, base + 31 & 0xFFFFFFFF, base + 31 >> 32, 1469])\n"
        "    done = card.put(uctypes.addressof(parts), 0, len(data), uctypes.addressof(header))\n"
        "    card.tell()\n    return done\n"
        "def come():\n"
        "    end = cpu.rdtsc() + 20 * cpu.tsc_hz\n"
        "    while cpu.rdtsc() < end:\n"
        "        size = card.take(part)\n"
        "        if size:\n            return bytes(uctypes.bytearray_at(part[0] | part[1] << 32, size))\n"
    )
    assert prompt.eval("type(card).__name__") == {"virtio": "VirtioNet", "ahci": "E1000"}[kind]
    assert prompt.eval("card.can & NEEDS_CSUM")
    udp = struct.pack(">HHHH", 68, 67, 8 + len(DISCOVER), 0) + DISCOVER
    pseudo = sum(struct.unpack(">6H", bytes(4) + b"\xff" * 4 + struct.pack(">HH", 17, len(udp))))
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    udp = udp[:6] + struct.pack(">H", pseudo) + udp[8:]
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, 0, 0xFFFFFFFF)
    total = sum(struct.unpack(">10H", ip))
    ip = ip[:10] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + ip[12:]
    frame = b"\xff" * 6 + b"\x52\x54\0\0\0\7" + b"\x08\0" + ip + udp
    for _ in range(3):
        assert prompt.eval(f"send({frame!r}, 34, 6)") == 1
        offers = []
        while not offers:
            answer = prompt.eval("come()")
            assert answer, "no answer within 20 s"
            if answer[12:14] == b"\x08\0" and answer[23] == 17 and answer[36:38] == b"\0\x44":
                offers.append(answer)
        assert offers[0][42 + 4 : 42 + 8] == b"\x12\x34\x56\x78" and offers[0][42 + 16 : 42 + 20] == bytes(
            (10, 0, 2, 15)
        )


@contextlib.contextmanager
def server(said, answer):
    """A port of the loopback where one conversation is held: what comes is appended to said, then the answer goes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def converse():
            with listener.accept()[0] as connection:
                while len(said) < SAYS:
                    said.extend(connection.recv(65536) or bytes(SAYS))
                connection.sendall(answer)

        thread = threading.Thread(target=converse, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("offloads", [True, False])
@pytest.mark.parametrize("engine", [Qemu, Ahci])
def test_tcp_by_the_machine_s_card(engine, offloads):
    """From a guest's rings by the switch and the card to a server, and back: whole, with right checksums; long frames
    go out and come in where the guest's driver knows them."""
    answer, said = random.Random(9).randbytes(HEARS), bytearray()
    monitor = Monitor(engine="qemu", memory=256)
    monitor.choice = Choice(engine, "what this is about")
    monitor._machine.network = True
    with monitor, server(said, answer) as port:
        monitor.exec(f"import hashlib\n{TCP}\ninterface = Interface(monitor, {offloads})")
        assert monitor.eval("type(interface.switches['host'].uplink.card).__name__") == (
            "VirtioNet" if engine is Qemu else "E1000"
        )
        monitor.exec(
            f"tcp = Conversation(interface, {port})\n"
            f"sent = bytes([i * 7 + (i >> 8) & 255 for i in range({SAYS} // 8)])\n"
            "for _ in range(8):\n    tcp.say(sent)\n"
            f"heard = hashlib.sha256(tcp.hear({HEARS})).digest()"
        )
        assert monitor.eval("heard") == hashlib.sha256(answer).digest()
        frames, long_in, long_out, wrong = monitor.eval("(tcp.frames, tcp.long_in, tcp.long_out, tcp.wrong)")
        dropped = monitor.eval("(interface.port.dropped, interface.switches['host'].uplink.dropped)")
    assert said == bytes(i * 7 + (i >> 8) & 255 for i in range(SAYS // 8)) * 8
    assert (wrong, dropped) == (0, (0, 0)) and frames > 50
    assert bool(long_out) == bool(long_in) == offloads


@pytest.mark.parametrize("engine", [Throttled, ThrottledAhci])
def test_a_disk_that_does_not_answer_in_time(tmp_path, engine):
    """The command fails, its buffer is not written to any more, and later ones are carried out."""
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(8).randbytes(SECTORS * 512))
    disk = Disk(path, True)
    monitor = Monitor(engine="qemu", memory=256)
    monitor.choice = Choice(engine, "what this is about")
    monitor._machine.disks = [disk]
    with monitor:
        monitor.exec(
            f"import uctypes\nfrom vmm.host import READ\n{SOURCE}\n"
            "a = bytearray(300 * 512)\nat = uctypes.addressof(a)\n"
            f"drive = drives.take({disk.model!r}, guest, True)\n"
            "ok = [transfer(drive, READ, 0, [(at, len(a))])]\n"
            "usual, drive.patience = drive.patience, cpu.tsc_hz // 5\n"
            "ok.append(transfer(drive, READ, 0, [(at, 512)]))\n"
            "drive.patience = usual\nfor i in range(512):\n    a[i] = 0x55\n"
        )
        assert monitor.eval("ok") == [True, False] and monitor.eval("drive.timeouts") == 1
        monitor.exec("import time\ntime.sleep_ms(3000)")
        assert monitor.eval("bytes(a[:512])") == b"\x55" * 512
        monitor.exec("ok.append(transfer(drive, READ, 5, [(at, 512)]))")
        assert monitor.eval("ok") == [True, False, True]
        assert monitor.eval("bytes(a[:512])") == path.read_bytes()[5 * 512 : 6 * 512]
