"""Takes the vmlinux ELF out of a bzImage.

The Linux boot protocol (Documentation/arch/x86/boot.rst) gives the payload's place:
`payload_offset` and `payload_length` count from the protected-mode code, which follows
`setup_sects` sectors. The payload ends with the unpacked size, four bytes. It may be packed
by any of the kernel's ways but LZO.

usage: python -m pcanel.guest.vmlinux BZIMAGE VMLINUX
"""

import bz2
import lzma
import struct
import sys
import zlib
from pathlib import Path

import lz4.block
import zstandard

from pcanel.errors import InputError
from pcanel.vmm_import import importable

with importable():
    from vmm.disks import SECTOR
    from vmm.loaders.boot_header import HEADER, SETUP_SECTS, VERSION

_PAYLOAD = 0x248  # payload_offset, payload_length
LZ4_LEGACY = b"\x02\x21\x4c\x18"
LZ4_BLOCK = 8 << 20  # a legacy block unpacks to at most this
_XZ = b"\xfd7zXZ\0"
_LZMA = b"\x5d\0\0"  # properties and the low bytes of the dictionary's size, as the kernel's build makes them
_GZIP = b"\x1f\x8b"
_BZIP2 = b"BZh"
_ZSTD = b"\x28\xb5\x2f\xfd"

_BROKEN = (
    EOFError, OSError, ValueError, lz4.block.LZ4BlockError, lzma.LZMAError, struct.error, zlib.error,
    zstandard.ZstdError,
)  # fmt: skip


def payload(image: bytes) -> bytes:
    """The packed kernel inside a bzImage. Raises InputError if this is none."""
    if len(image) < _PAYLOAD + 8 or image[HEADER : HEADER + 4] != b"HdrS":
        raise InputError("not a bzImage (no HdrS at 0x202)")
    (version,) = struct.unpack_from("<H", image, VERSION)
    if version < 0x208:
        raise InputError(f"boot protocol {version >> 8}.{version & 0xFF:02d} does not say where the payload is")
    start = ((image[SETUP_SECTS] or 4) + 1) * SECTOR
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    packed = image[start + offset : start + offset + length]
    if len(packed) != length:
        raise InputError("the bzImage is cut short")
    return packed


def unpack(packed: bytes) -> bytes:
    """Unpacks a payload by its magic number and checks the size that it ends with."""
    (size,) = struct.unpack_from("<I", packed, len(packed) - 4)
    try:
        unpacked = _unpack(packed)
    except _BROKEN as error:
        raise InputError(f"the payload does not unpack: {error}") from error
    if len(unpacked) != size:
        raise InputError(f"the payload unpacks to {len(unpacked)} bytes, not to {size}")
    return unpacked


def _unpack(packed: bytes) -> bytes:
    if packed.startswith(LZ4_LEGACY):
        return _unpack_lz4_legacy(packed[4:-4])
    if packed.startswith(_ZSTD):
        return zstandard.ZstdDecompressor().decompressobj().decompress(packed[:-4])
    if packed.startswith(_XZ):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed)
    if packed.startswith(_LZMA):
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(packed)
    if packed.startswith(_GZIP):
        return zlib.decompressobj(wbits=31).decompress(packed)
    if packed.startswith(_BZIP2):
        return bz2.BZ2Decompressor().decompress(packed)
    raise InputError(f"the payload is packed in a way not known here (starts {packed[:6].hex()})")


def _unpack_lz4_legacy(blocks: bytes) -> bytes:
    unpacked = bytearray()
    position = 0
    while position < len(blocks):
        (length,) = struct.unpack_from("<I", blocks, position)
        position += 4
        unpacked += lz4.block.decompress(blocks[position : position + length], uncompressed_size=LZ4_BLOCK)
        position += length
    return bytes(unpacked)


def main() -> None:
    source, target = (Path(argument) for argument in sys.argv[1:3])
    try:
        unpacked = unpack(payload(source.read_bytes()))
    except InputError as error:
        sys.exit(f"{source}: {error}")
    if unpacked[:4] != b"\x7fELF":
        sys.exit(f"{source}: what is packed inside is no ELF file")
    target.write_bytes(unpacked)
    print(f"setup: {target}: {len(unpacked) >> 20} MiB, from {source.name}")


if __name__ == "__main__":
    main()
