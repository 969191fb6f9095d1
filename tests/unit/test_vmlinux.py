"""host-tools/pcanel/guest/vmlinux.py: the kernel inside a bzImage, by each packing that the kernel's build has."""

import bz2
import gzip
import lzma
import struct

import lz4.block
import pytest
import zstandard
from images import bzimage
from pcanel.errors import InputError
from pcanel.guest.vmlinux import payload, unpack

KERNEL = b"\x7fELF" + bytes(range(256)) * 5000


def _lz4_legacy(data):
    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        out += struct.pack("<I", len(block)) + block
    return out


PACKINGS = {
    "lz4": _lz4_legacy,
    "zstd": zstandard.ZstdCompressor(level=19, write_content_size=False).compress,
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("way", PACKINGS)
def test_every_packing(way):
    packed = PACKINGS[way](KERNEL) + struct.pack("<I", len(KERNEL))
    image = bytearray(bzimage(b"stub" * 8 + packed))
    struct.pack_into("<II", image, 0x248, 32, len(packed))
    assert payload(bytes(image)) == packed
    assert unpack(packed) == KERNEL


@pytest.mark.parametrize("way", PACKINGS)
def test_what_is_broken_is_refused_in_one_line(way):
    packed = PACKINGS[way](KERNEL)
    with pytest.raises(InputError, match="unpacks to 1280004 bytes, not to 7"):
        unpack(packed + struct.pack("<I", 7))
    with pytest.raises(InputError, match="unpack"):
        unpack(packed[: len(packed) // 2] + struct.pack("<I", len(KERNEL)))


def test_an_unknown_packing_is_refused():
    with pytest.raises(InputError, match="not known here"):
        unpack(b"\x89LZO" + bytes(100))
