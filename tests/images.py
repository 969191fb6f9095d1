"""Small kernel images for the loader tests, by the formats' field tables."""

import struct

MIB = 1 << 20


def bzimage(
    kernel, version=0x20F, loadflags=1, xloadflags=1, pref=16 * MIB, align=2 * MIB,
    relocatable=1, init_size=MIB, cmdline_size=2047,
):  # fmt: skip
    head = bytearray(1024)
    kernel = kernel + bytes(-len(kernel) % 16)
    head[0x1F1] = 1
    struct.pack_into("<I", head, 0x1F4, len(kernel) // 16)
    struct.pack_into("<H", head, 0x1FE, 0xAA55)
    head[0x200:0x206] = b"\xeb\x6aHdrS"
    struct.pack_into("<H", head, 0x206, version)
    head[0x211] = loadflags
    struct.pack_into("<I", head, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<IBBHI", head, 0x230, align, relocatable, 12, xloadflags, cmdline_size)
    struct.pack_into("<QI", head, 0x258, pref, init_size)
    return bytes(head) + kernel


def elf(bits, machine, entry, segments):
    """`segments`: (paddr, vaddr, data, memsz)."""
    ehsize, phsize = (64, 56) if bits == 64 else (52, 32)
    ident = b"\x7fELF" + bytes((bits // 32, 1, 1)) + bytes(9)
    code = "<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH"
    out = ident + struct.pack(code, 2, machine, 1, entry, ehsize, 0, 0, ehsize, phsize, len(segments), 0, 0, 0)
    offset = ehsize + phsize * len(segments)
    for paddr, vaddr, data, memsz in segments:
        if bits == 64:
            out += struct.pack("<IIQQQQQQ", 1, 7, offset, vaddr, paddr, len(data), memsz, 4096)
        else:
            out += struct.pack("<IIIIIIII", 1, offset, vaddr, paddr, len(data), memsz, 7, 4096)
        offset += len(data)
    return out + b"".join(data for _, _, data, _ in segments)


def multiboot_header(flags, fields=(0, 0, 0, 0, 0)):
    """Magic, flags, checksum and, with flag 16, the five address fields."""
    head = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)
    return head + (struct.pack("<5I", *fields) if flags >> 16 & 1 else b"")
