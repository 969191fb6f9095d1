"""Kernels, the initramfs, and what boot media are made of."""

import lzma
import stat
import struct
import zlib
from pathlib import Path

import lz4.block
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pcanel.errors import InputError
from pcanel.guest import initramfs, vmlinux
from pcanel.image import grub_config
from pcanel.modules import BootModule, check_names, lay_out, policy

ROOT = Path(__file__).resolve().parents[2]


def bzimage(packed: bytes, setup_sects: int = 4) -> bytes:
    """The parts of a bzImage that say where the payload is."""
    image = bytearray((setup_sects + 1) * 512)
    image[0x1F1] = setup_sects
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    struct.pack_into("<II", image, 0x248, 64, len(packed))
    return bytes(image) + bytes(64) + packed + b"after"


def lz4_legacy(data: bytes) -> bytes:
    packed = bytearray(b"\x02\x21\x4c\x18")
    for start in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[start : start + (8 << 20)], store_size=False)
        packed += struct.pack("<I", len(block)) + block
    return bytes(packed)


def gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("pack", [lz4_legacy, lzma.compress, gzip])
@given(data=st.binary(min_size=1, max_size=2000), setup_sects=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_payload_comes_out_as_it_went_in(pack, data, setup_sects):
    packed = pack(data) + struct.pack("<I", len(data))
    assert vmlinux.unpack(vmlinux.payload(bzimage(packed, setup_sects))) == data


def test_a_payload_of_several_blocks():
    data = bytes(range(256)) * (70 << 10)
    packed = lz4_legacy(data) + struct.pack("<I", len(data))
    assert vmlinux.unpack(packed) == data


@pytest.mark.parametrize(
    "image, word",
    [
        (b"", "not a bzImage"),
        (bytes(4096), "not a bzImage"),
        (bzimage(gzip(b"x") + bytes(4)), "not to 0"),
        (bzimage(b"unknown packing"), "not known"),
        (bzimage(gzip(b"x") + b"\1\0\0\0")[:-10], "cut short"),
    ],
)
def test_a_bad_kernel_is_refused(image, word):
    with pytest.raises(InputError, match=word):
        vmlinux.unpack(vmlinux.payload(image))


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Reads a newc archive back: {name: (mode, content)}."""
    found, position = {}, 0
    while True:
        assert archive[position : position + 6] == b"070701"
        fields = [int(archive[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        name = archive[position + 110 : position + 110 + fields[11] - 1].decode()
        start = (position + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], archive[start : start + fields[6]])
        position = (start + fields[6] + 3) & ~3


def test_initramfs():
    init = ROOT / "guests/initramfs/init"
    archive = initramfs.build(init)
    assert archive == initramfs.build(init)
    found = entries(archive)
    assert found["init"] == (stat.S_IFREG | 0o755, init.read_bytes())
    assert found["bin/busybox"][1][:4] == b"\x7fELF"
    assert found["dev/console"][0] == stat.S_IFCHR | 0o600
    for path in ("bin/sh", "sbin/poweroff", "sbin/reboot", "usr/bin/setsid", "bin/cttyhack"):
        assert found[path] == (stat.S_IFLNK | 0o777, b"/bin/busybox")


def test_grub_config_quotes():
    config = grub_config([BootModule("guest:it's", b"{}")], "heap=1M", lean=False)
    assert "multiboot2 /boot/pcanel.elf 'heap=1M'\n" in config
    assert "module2 /boot/modules/0 'guest:it'\\''s'\n" in config
    assert "serial --unit=0" in config


def test_modules_are_laid_out_by_name(tmp_path):
    blob = tmp_path / "blob"
    blob.write_bytes(b"1234")
    modules = [BootModule("guest:a", b"{}"), BootModule("a/kernel", blob), BootModule("file:/lib/x.py", b"x = 1")]
    paths = lay_out(modules, tmp_path / "boot")
    assert paths == ["guest:a", "a/kernel", "file:/lib/x.py"]
    assert [(tmp_path / "boot" / path).read_bytes() for path in paths] == [b"{}", b"1234", b"x = 1"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "a//b"])
def test_modules_stay_in_their_directory(tmp_path, name):
    with pytest.raises(InputError, match="relative"):
        lay_out([BootModule(name, b"")], tmp_path)


def test_module_names(tmp_path):
    for name in ("", "two words", "x" * 200, "bell\a"):
        with pytest.raises(InputError):
            BootModule(name, b"")
    with pytest.raises(InputError, match="twice"):
        check_names([BootModule("a", b""), BootModule("a", b"")])


def test_policy_module(tmp_path):
    path = tmp_path / "my policy.py"
    path.write_text("print(1)\n")
    assert policy(path).name == "policy:my_policy.py"
