"""Disks of guest files: what becomes a boot module and what a disk of the machine; faults; locks; what engines get."""

import subprocess
import sys

import pytest
from pcanel.engines.base import Machine
from pcanel.engines.bochs import Bochs
from pcanel.engines.qemu import Qemu
from pcanel.errors import InputError
from pcanel.guest.file import load
from pcanel.guest.set import load_all
from pcanel.hostdisks import Disk, Locks, check, distinct

GUEST = 'memory = "16M"\nprotocol = "multiboot"\nkernel = "kernel"\n'


@pytest.fixture
def write(tmp_path):
    """Writes a guest file with disks, each a dict; returns its path."""
    (tmp_path / "kernel").write_bytes(b"k" * 100)
    (tmp_path / "small.img").write_bytes(bytes(1024))
    with (tmp_path / "large.img").open("wb") as file:
        file.truncate(64 << 20)

    def make(*disks, name="some"):
        text = GUEST + "".join("[[disk]]\n" + "".join(f"{k} = {v!r}\n" for k, v in d.items()) for d in disks)
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return make


def test_small_images_are_boot_modules_and_large_or_writable_ones_disks(write, tmp_path):
    guest = load(
        write({"image": "small.img"}, {"image": "small.img", "mode": "rw"}, {"image": "large.img", "mode": "ro"})
    )
    rw, large = guest.disks
    assert rw == Disk(tmp_path / "small.img", True) and large == Disk(tmp_path / "large.img", False)
    assert [d["image"] for d in guest.config["disks"]] == ["some/disk0", f"host:{rw.model}", f"host:{large.model}"]
    assert rw.model != large.model and len(rw.model) <= 20
    assert [b.name for b in guest.blobs] == ["some/kernel", "some/disk0"]


def test_a_disk_of_the_host_by_its_name(write):
    guest = load(write({"image": "host:WD-1234", "mode": "ro", "limit": "1M"}))
    assert guest.disks == ()
    assert guest.config["disks"] == [
        {"image": "host:WD-1234", "mode": "ro", "transport": "virtio-pci", "limit": 1 << 20}
    ]


@pytest.mark.parametrize(
    "disk, said",
    [
        ({"image": "none.img"}, r"disk\[0\]\.image: .*none\.img: no such file"),
        ({"image": "."}, r"disk\[0\]\.image: .*"),
        ({"image": "odd.img", "mode": "rw"}, r"disk\[0\]\.image: .*odd\.img: has 1000 bytes, .* is it truncated\?$"),
        (
            {"image": "q.img"},
            r"disk\[0\]\.image: .*q\.img: is a qcow2 image; `qemu-img convert -O raw .*` makes a raw one$",
        ),
        ({"image": "small.img", "mode": "no"}, r"disk\[0\]\.mode: must be one of rw, ro, scratch, not 'no'$"),
        ({"image": "small.img", "limit": 5}, r"disk\[0\]\.limit: must be bytes, 64 KiB at least, not 5$"),
        ({"image": "small.img", "size": 5}, r"disk\[0\]\.size: unknown key; there are .*$"),
    ],
)
def test_faults(write, tmp_path, disk, said):
    (tmp_path / "odd.img").write_bytes(bytes(1000))
    (tmp_path / "q.img").write_bytes(b"QFI\xfb" + bytes(508))
    with pytest.raises(InputError, match=said) as info:
        load(write(disk))
    assert "\n" not in str(info.value)


def with_cd(write, image):
    path = write()
    path.write_text(GUEST + f"[[cd]]\nimage = {image!r}\n")
    return path


def test_a_cd_is_a_boot_module_or_a_disk_as_other_images(write, tmp_path):
    small, large = load(with_cd(write, "small.img")), load(with_cd(write, "large.img"))
    assert small.config["cds"] == [{"image": "some/cd0"}] and small.disks == ()
    (disk,) = large.disks
    assert disk == Disk(tmp_path / "large.img", False)
    assert large.config["cds"] == [{"image": f"host:{disk.model}"}]
    (tmp_path / "odd.iso").write_bytes(bytes(3000))
    with pytest.raises(InputError, match=r"cd\[0\]\.image: .*odd\.iso: has 3000 bytes, .* is it truncated\?$"):
        load(with_cd(write, "odd.iso"))


def test_a_read_only_image(write, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, how: False)  # root may write to everything
    assert check(tmp_path / "small.img", True) == "may not be written to"
    assert check(tmp_path / "small.img", False) == ""


def test_an_image_that_is_written_to_has_one_guest(write, tmp_path):
    shared = write({"image": "large.img"}, name="one"), write({"image": "large.img", "mode": "ro"}, name="two")
    guests = load_all(shared, 1024)
    assert distinct(d for g in guests for d in g.disks) == [Disk(tmp_path / "large.img", False)]
    with pytest.raises(
        InputError, match=r"two\.toml: disk: .*large\.img: is a disk of one, too; an image that is written"
    ):
        load_all((shared[0], write({"image": "large.img", "mode": "rw"}, name="two")), 1024)
    with pytest.raises(InputError, match="is one disk, not two"):
        load(write({"image": "large.img"}, {"image": "large.img", "mode": "rw"}))


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_an_image_by_another_name(write, tmp_path, link):
    """A small image that is written to is no boot module of another, whatever it is called there."""
    getattr(tmp_path / "alias.img", link)(tmp_path / "small.img")
    alias, writer = {"image": "alias.img"}, {"image": "small.img", "mode": "rw"}
    for disks in ((writer,), (alias,)), ((alias,), (writer,)):
        files = [write(*some, name=name) for some, name in zip(disks, ("one", "two"), strict=True)]
        with pytest.raises(InputError, match=r"two\.toml: disk: .*\.img: is a disk of one, too; an image that is"):
            load_all(files, 1024)
    for disks in (writer, alias), (alias, writer):
        with pytest.raises(InputError, match="an image that is written to "):
            load_all([write(*disks)], 1024)


def test_a_small_image_that_another_run_writes_to(write, tmp_path):
    locks = Locks()
    locks.take([Disk(tmp_path / "small.img", True)])
    try:
        with pytest.raises(InputError, match=r"disk\[0\]\.image: .*small\.img: another run writes to it; [^\n]*$"):
            load(write({"image": "small.img"}))
    finally:
        locks.release()
    assert load(write({"image": "small.img"})).disks == ()


HOLD = """
import sys
from pathlib import Path
from pcanel.hostdisks import Disk, Locks
locks = Locks()
locks.take([Disk(Path(sys.argv[1]), {})])
print('has it', flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("theirs, ours, fits", [(True, True, 0), (True, False, 0), (False, True, 0), (False, False, 1)])
def test_two_runs_and_one_image(write, tmp_path, theirs, ours, fits):
    image = tmp_path / "small.img"
    code = HOLD.format(theirs)
    other = subprocess.Popen(
        [sys.executable, "-c", code, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    locks = Locks()
    try:
        assert other.stdout.readline() == "has it\n"
        if fits:
            locks.take([Disk(image, ours)])
        else:
            with pytest.raises(InputError, match=r"small\.img: another run (has it|writes to it); [^\n]*one run$"):
                locks.take([Disk(image, ours)])
            locks.release()
    finally:
        other.communicate()
    locks.take([Disk(image, ours)])
    locks.release()


def machine(tmp_path, count):
    (tmp_path / "pcanel.elf").write_bytes(b"\x7fELF")
    disks = [Disk(tmp_path / f"{n}.img", n % 2 == 0) for n in range(count)]
    return Machine(tmp_path, tmp_path / "pcanel.elf", 256, disks=disks)


def test_what_qemu_gets(tmp_path):
    first, second = machine(tmp_path, 2).disks
    words = " ".join(Qemu(machine(tmp_path, 2)).arguments())
    assert f"werror=report,file={first.path}" in words and f"snapshot=on,file={second.path}" in words
    assert f"virtio-blk-pci,drive=disk1,serial={second.model}" in words


@pytest.mark.parametrize("engine, most", [(Bochs, 7), (Qemu, 4)])
def test_too_many(tmp_path, engine, most):
    engine(machine(tmp_path, most))
    with pytest.raises(InputError, match=f"{most + 1} images are disks of the machine; .* has {most}$"):
        engine(machine(tmp_path, most + 1))


def devices(write, text):
    path = write()
    path.write_text(GUEST + f"devices = {text}\n")
    return path


def test_devices_of_ones_own(write, tmp_path):
    (tmp_path / "egg.py").write_text("class Egg: pass\n")
    guest = load(devices(write, '["egg.py:Egg"]'))
    assert guest.config["devices"] == [["some/device0", "Egg"]]
    assert guest.blobs[-1].content == tmp_path / "egg.py"


@pytest.mark.parametrize(
    "text, said",
    [
        ('["egg.py"]', r"devices: must be a list of \"FILE.py:CLASS\"; entry 0 is 'egg\.py'$"),
        ("[5]", r"devices: must be a list .* entry 0 is 5$"),
        ('["none.py:Egg"]', r"devices: .*none\.py: no such file"),
        ('["bad.py:Egg"]', r"devices: .*bad\.py: .*syntax"),
    ],
)
def test_devices_that_are_none(write, tmp_path, text, said):
    (tmp_path / "bad.py").write_text("class class\n")
    with pytest.raises(InputError, match=said):
        load(devices(write, text))
