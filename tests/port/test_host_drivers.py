"""Drivers of the machine's own devices in QEMU: its virtio disk, whose image the host reads afterwards."""

import random
from pathlib import Path

import pytest
from pcanel.hostdisks import Disk
from pcanel.monitor import Monitor

SECTORS = 4096
SOURCE = Path(__file__).with_name("host_drivers.py").read_text()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("disk") / "disk.img"
    path.write_bytes(random.Random(8).randbytes(SECTORS * 512))
    return path


@pytest.fixture(scope="module")
def prompt(image):
    monitor = Monitor(engine="qemu", memory=256)
    monitor._machine.disks = [Disk(image, True)]
    with monitor:
        monitor.exec(SOURCE)
        monitor.exec("a, b = bytearray(300 * 512), bytearray(300 * 512)\nat, bt = map(uctypes.addressof, (a, b))")
        yield monitor


def test_the_disk_is_found_by_its_name(prompt, image):
    name = Disk(image, True).model
    assert prompt.eval("[(d.model, d.serial, d.sectors) for d in drives.found]") == [("virtio disk", name, SECTORS)]
    prompt.exec(f"drive = drives.take({name!r}, guest, True)")


@pytest.mark.parametrize("sizes", [[300 * 512], [512] * 300, [1, 511, 3000, 1096, 65536 - 4608 + 512]])
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
    prompt.exec(
        f"ok = transfer(drive, READ, {SECTORS - 1}, pieces(at, [512] * 40)), transfer(drive, READ, 0, pieces(at, [512]))"
    )
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
