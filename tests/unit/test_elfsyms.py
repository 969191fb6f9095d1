"""vmm/insight/elfsyms.py over ELF files made here, 32-bit and 64-bit, whole and damaged."""

import struct

import pytest

from vmm.insight.elfsyms import ElfSymbols

# name, address, size, type, section (0: undefined)
ROWS = [
    ("", 0, 0, 0, 0),
    ("start.c", 0, 0, 4, 0xFFF1),
    ("_start", 0x101000, 0, 0, 1),
    ("main", 0x101020, 0x40, 2, 1),
    ("twice", 0x101060, 0x10, 2, 1),
    ("outside", 0x5000, 0, 0, 0),
    ("twice", 0x101070, 0x10, 2, 1),
    ("table", 0x102000, 0x100, 1, 2),
    ("_end", 0x102100, 0, 0, 0xFFF1),
]


def elf(wide):
    strings = b"\0"
    symbols = b""
    for name, address, size, kind, section in ROWS:
        at = strings.find(b"\0" + name.encode() + b"\0") + 1 if name else 0
        if name and not at:
            at = len(strings)
            strings += name.encode() + b"\0"
        if wide:
            symbols += struct.pack("<IBBHQQ", at, 0x10 | kind, 0, section, address, size)
        else:
            symbols += struct.pack("<IIIBBH", at, address, size, 0x10 | kind, 0, section)
    start = 64
    headers = start + len(symbols) + len(strings)
    form, size = ("<IIQQQQIIQQ", 64) if wide else ("<IIIIIIIIII", 40)
    rows = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (0, 2, 0, 0, start, len(symbols), 2, 1, 8, 24 if wide else 16),
        (0, 3, 0, 0, start + len(symbols), len(strings), 0, 0, 1, 0),
    ]
    head = bytearray(64)
    head[:7] = b"\x7fELF" + bytes((2 if wide else 1, 1, 1))
    struct.pack_into("<Q" if wide else "<I", head, 40 if wide else 32, headers)
    struct.pack_into("<HHH", head, 58 if wide else 46, size, 3, 2)
    return bytes(head) + symbols + strings + b"".join(struct.pack(form, *row) for row in rows)


@pytest.fixture(params=[False, True], ids=["ELF32", "ELF64"])
def blob(request):
    return elf(request.param)


def test_which_names_are_data(blob):
    known = ElfSymbols("kernel", blob)
    assert known.is_data("table", 0x102000)
    assert not any(known.is_data(name, address) for name, address, _, kind, _ in ROWS if kind > 1)


def test_names_without_a_type_are_what_their_section_is():
    code = bytearray(elf(True))
    at = struct.unpack_from("<Q", code, 40)[0] + 64 + 8
    known = ElfSymbols("kernel", bytes(code))
    assert known.is_data("_start", 0x101000)  # section 1 has no flags
    struct.pack_into("<Q", code, at, 4)  # SHF_EXECINSTR
    assert not ElfSymbols("kernel", bytes(code)).is_data("_start", 0x101000)


def test_names(blob):
    known = ElfSymbols("kernel", blob)
    assert len(known) == len(ROWS)
    assert known.lookup("main") == [0x101020]
    assert known.lookup("twice") == [0x101060, 0x101070]
    assert known.lookup("_end") == [0x102100]
    for absent in ("", "start.c", "outside", "mai", "mainx"):
        assert known.lookup(absent) == []
    assert set(known.similar("x")) == {"_start", "main", "twice", "table", "_end"}
    assert list(known.starting("ta")) == list(known.containing("abl")) == [("table", 0x102000)]


def test_addresses(blob):
    known = ElfSymbols("kernel", blob)
    assert known.around(0x101000) == ("_start", 0x101000, 0x101020)
    assert known.around(0x10105F) == ("main", 0x101020, 0x101060)
    assert known.around(0x1020FF)[0] == "table"
    assert known.around(0x102100) == ("_end", 0x102100, None)
    for outside in (0, 0x100FFF, 0x101080, 0x102101, 1 << 63):
        assert known.around(outside) is None


def test_files_without_symbols(blob):
    for bad, why in (
        (b"", "is no ELF file"),
        (b"MZ" + blob[2:], "is no ELF file"),
        (blob[:64], "has no symbol table"),
        (blob[:-1], "has no symbol table"),
    ):
        with pytest.raises(ValueError, match="kernel " + why):
            ElfSymbols("kernel", bad)


def test_files_that_lie(blob):
    """Each byte behind the header damaged: another answer, or ValueError."""
    for at in range(16, len(blob)):
        bad = bytearray(blob)
        bad[at] ^= 0xFF
        try:
            known = ElfSymbols("kernel", bytes(bad))
            known.lookup("main")
            known.around(0x101030)
        except ValueError:
            pass
