"""vmm/loaders/multiboot.py and flat.py: images, information structure, refusals."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import elf, multiboot_header
from support import Memory

from vmm.loaders import LoadError, load
from vmm.memory.e820 import e820

MIB = 1 << 20
SIZE = 16 * MIB
MAP = e820(SIZE)


def boot(memory, blobs, **config):
    return load(memory, {"protocol": "multiboot", "kernel": "k", **config}, blobs, MAP, 0)


def string(memory, gpa):
    return memory.read(gpa, 64).split(b"\0")[0]


@pytest.mark.parametrize("bits, machine", [(32, 3), (64, 62), (32, 62)])
def test_elf_with_modules(memory, bits, machine):
    text = multiboot_header(3) + b"code"
    blob = elf(bits, machine, 0x10000C, [(0x100000, 0x100000, text, 0x2345)])
    blobs = {"k": blob, "a": b"A" * 5000, "b": b""}
    state = boot(memory, blobs, cmdline="one two", modules=[["a", "first x=1"], ["b", ""]])
    assert (state.mode, state.rip) == ("protected", 0x10000C)
    assert state.gprs["rax"] == 0x2BADB002 and state.cr0 >> 31 == 0
    assert memory.read(0x100000, len(text)) == text
    info = state.gprs["rbx"]
    flags, lower, upper, _, cmdline, count, mods = struct.unpack("<7I", memory.read(info, 28))
    assert flags == 1 | 4 | 8 | 0x40 | 0x200
    assert (lower, upper) == (639, (SIZE - MIB) // 1024)
    assert string(memory, cmdline) == b"one two"
    assert string(memory, memory.read_u32(info + 64)) == b"Pcanel/Py"
    start, end, name, _ = struct.unpack("<4I", memory.read(mods, 16))
    assert count == 2 and start % 4096 == 0 and start >= 0x102345
    assert memory.read(start, end - start) == b"A" * 5000 and string(memory, name) == b"first x=1"
    start, end, name, _ = struct.unpack("<4I", memory.read(mods + 16, 16))
    assert start == end and string(memory, name) == b""
    length, at = struct.unpack("<II", memory.read(info + 44, 8))
    got = [struct.unpack("<IQQI", memory.read(at + i, 24)) for i in range(0, length, 24)]
    assert got == [(20, *entry) for entry in MAP]


def test_address_fields(memory):
    header = multiboot_header(0x10000, (0x200010, 0x200000, 0x200100, 0x201000, 0x200030))
    blob = b"\x90" * 16 + header.ljust(0x100, b"x")
    memory.write(0x200000, b"\xff" * 0x1001)
    state = boot(memory, {"k": blob})
    assert state.rip == 0x200030
    assert memory.read(0x200000, 0x100) == blob[:0x100]
    assert memory.read(0x200100, 0xF01) == bytes(0xF00) + b"\xff"
    whole = multiboot_header(0x10000, (0x200010, 0x200010, 0, 0, 0x200030))
    boot(memory, {"k": b"\xcc" * 16 + whole.ljust(0x40, b"y")})
    assert memory.read(0x200010, 0x40) == whole.ljust(0x40, b"y")


TEXT = multiboot_header(0)


@pytest.mark.parametrize(
    "blob, words",
    [
        (b"", "no header"),
        (bytes(8192) + TEXT, "no header"),
        (multiboot_header(0x8), "flags 0x8"),
        (multiboot_header(0), "no ELF header"),
        (multiboot_header(0x10000)[:12], "cut off"),
        (multiboot_header(0x10000, (0x100, 0x200000, 0, 0, 0)), "load_addr"),
        (multiboot_header(0x10000, (0x200000, 0x200000, 0x300000, 0, 0)), "load_end_addr"),
        (multiboot_header(0x10000, (0x200000, 0x200000, 0, 0, 5)), "entry 0x5"),
        (multiboot_header(0x10000, (0xA0000, 0xA0000, 0, 0, 0xA0000)), "outside guest RAM"),
        (elf(32, 3, 0x100000, [(0x100000, 0, TEXT, 0x7FFFFFFF)]), "outside guest RAM"),
    ],
)
def test_broken_images(memory, blob, words):
    with pytest.raises(LoadError) as caught:
        boot(memory, {"k": blob})
    text = str(caught.value)
    assert text.startswith("k: ") and words in text and "\n" not in text


def test_broken_requests(memory):
    blob = elf(32, 3, 0x100000, [(0x100000, 0x100000, TEXT, 64)])
    with pytest.raises(LoadError, match="m: no boot module"):
        boot(memory, {"k": blob}, modules=[["m", ""]])
    with pytest.raises(LoadError, match="module m"):
        boot(memory, {"k": blob, "m": bytes(16 * MIB)}, modules=[["m", ""]])
    with pytest.raises(LoadError, match="boot information"):
        boot(memory, {"k": blob}, cmdline="x" * 16 * MIB)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([(64, 62), (32, 3), (0, 0)]),
    st.lists(st.tuples(st.integers(0, 0xC0), st.binary(min_size=1, max_size=6)), max_size=4),
    st.integers(0, 0xC0),
)
def test_fuzz(kind, edits, cut):
    text = multiboot_header(0x10000, (0x200000, 0x200000, 0, 0x200400, 0x200004)).ljust(0x80, b"x")
    if kind[0]:
        text = elf(*kind, 0x100004, [(0x100000, 0x100000, TEXT.ljust(64), 64)])
    blob = bytearray(text)
    for at, data in edits:
        blob[at : at + len(data)] = data[: max(0, len(blob) - at)]
    try:
        boot(Memory(SIZE), {"k": bytes(blob[: len(blob) - cut])})
    except LoadError as error:
        assert "\n" not in str(error)


def flat(memory, image=b"\xf4", **config):
    return load(memory, {"protocol": "flat", "kernel": "k", **config}, {"k": image}, MAP, 0)


def test_flat_real(memory):
    state = flat(memory, address=0x7C00, registers={"edx": 0x80, "ax": 5, "ds": 0x1234, "sp": 0x6000})
    assert (state.mode, state.rip, state.rsp) == ("real", 0x7C00, 0x6000)
    assert memory.read(0x7C00, 1) == b"\xf4"
    assert (state.gprs["rdx"], state.gprs["rax"]) == (0x80, 5)
    assert state.segments["ds"][:2] == (0x1234, 0x12340) and state.segments["cs"][:2] == (0, 0)
    assert state.cr0 & 0x80000001 == 0 and state.idt_limit == 0x3FF
    state = flat(memory, address=0x12345)
    assert (state.segments["cs"][:2], state.rip) == ((0x1234, 0x12340), 5)
    assert (state.segments["ss"][:2], state.rsp) == ((0x234, 0x2340), 0)
    state = flat(memory, address=0x12345, registers={"sp": 0x6000})
    assert (state.segments["ss"][:2], state.rsp) == ((0, 0), 0x6000)


def test_flat_protected_and_long(memory):
    state = flat(memory, address=0x100000, mode="protected", registers={"esi": 7, "eip": 0x100008})
    assert (state.rip, state.gprs["rsi"], state.cr0 & 1) == (0x100008, 7, 1)
    state = flat(memory, address=0x100000, mode="long", registers={"r15": 1 << 63})
    assert state.cr0 >> 31 and state.efer == 0x500 and state.gprs["r15"] == 1 << 63
    assert memory.read_u64(state.cr3) & 1


def test_selectors_of_other_loaders_and_a_gdt_that_has_them(memory):
    """QEMU's and GRUB's: code at 8, data at 10h; what is behind them leads back to real mode."""
    header = multiboot_header(0)
    image = elf(32, 3, MIB + len(header), [(MIB, MIB, header + b"\xf4", 0x100)])
    state = boot(memory, {"k": image})
    assert (state.segments["cs"][0], state.segments["ds"][0], state.segments["ss"][0]) == (8, 0x10, 0x10)
    table = memory.read(state.gdt_base, state.gdt_limit + 1)
    assert list(struct.unpack("<5Q", table)) == [
        0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00009B000000FFFF, 0x000093000000FFFF,
    ]  # fmt: skip
    stack = memory.read(state.rsp - 0x1000, 0x1000)
    assert stack == bytes(0x1000) and state.rsp < 0x9FC00
    assert not state.gdt_base <= state.rsp - 8 < state.gdt_base + 40


@pytest.mark.parametrize("start", [0, 0x9F000, 0xC0000, 0xDF000, 0xF0000, 0xFF000])
def test_a_segment_that_begins_below_1_mib_with_the_elf_header(memory, start):
    """Its code is at 1 MiB. Where VGA memory and tables are, nothing is loaded; the rest is."""
    header = multiboot_header(0)
    table = b"table" * 100
    memory.write(0xE0000, table)
    code = header + b"\xf4"
    image = elf(32, 3, MIB + len(header), [(MIB, MIB, code, 0x100)])
    at = len(image) - len(code)
    body = image + bytes(-len(image) % 16)
    filled = body[:at] + code + b"\x5a" * (MIB - start - at - len(code)) + code
    image = bytearray(filled)
    struct.pack_into("<IIIIII", image, 52, 1, 0, start, start, len(filled), len(filled) + 0x1000)
    state = load(memory, {"protocol": "multiboot", "kernel": "k"}, {"k": bytes(image)}, e820(memory.size))
    assert memory.read(MIB, len(code)) == code and state.rip == MIB + len(header)
    assert memory.read(0xE0000, len(table)) == table
    for gpa in (0x8000, 0x9F800, 0xC8000, 0xDF800, 0xFF800):
        if gpa >= start + 0x400:
            assert memory.read(gpa, 4) == b"\x5a" * 4
    info = state.gprs["rbx"]
    assert not start <= info < min(0x9FC00, MIB) and not MIB <= info < MIB + len(code) + 0x1000


@pytest.mark.parametrize("mode", ["protected", "long"])
@pytest.mark.parametrize("address, size", [(0x1000, 0x9000), (0x8000, 0x2000), (0x1000, 0x9EC00)])
def test_flat_over_the_usual_places_of_tables(memory, mode, address, size):
    image = bytes(range(1, 256)) * (size // 255 + 1)
    state = flat(memory, image[:size], address=address, mode=mode)
    assert memory.read(address, size) == image[:size]
    places = [(address, address + size), (state.gdt_base, state.gdt_base + state.gdt_limit + 1)]
    if mode == "long":
        places.append((state.cr3, state.cr3 + 0x6000))
        assert memory.read_u64(state.cr3) == state.cr3 + 0x1000 | 3
    assert memory.read_u64(state.gdt_base + 0x10) >> 40 & 0xFF == 0x9B
    places.sort()
    assert all(end <= start for (_, end), (start, _) in zip(places, places[1:], strict=False))


@pytest.mark.parametrize(
    "registers, want",
    [
        ({"dl": 0x80}, {"rdx": 0x80}),
        ({"dl": 0x80, "edx": 0x12345678}, {"rdx": 0x12345680}),
        ({"ah": 0x12, "al": 0x34}, {"rax": 0x1234}),
        ({"ch": 1, "bl": 2, "bh": 3, "cl": 4, "dh": 5}, {"rcx": 0x104, "rbx": 0x302, "rdx": 0x500}),
        ({"sil": 0x11, "dil": 0x22, "bpl": 0x33, "spl": 0x44},
         {"rsi": 0x11, "rdi": 0x22, "rbp": 0x33, "rsp": 0x100044}),
        ({"r8d": 1 << 31, "r9w": 0xFFFF, "r10b": 0xFF, "r15": 1 << 63},
         {"r8": 1 << 31, "r9": 0xFFFF, "r10": 0xFF, "r15": 1 << 63}),
    ],
)  # fmt: skip
def test_registers_by_each_of_their_names(memory, registers, want):
    state = flat(memory, address=0x100000, mode="long", registers=registers)
    assert {name: state.gprs[name] for name in want} == want
    assert [name for name, value in state.gprs.items() if value and name not in (*want, "rsp")] == []


@pytest.mark.parametrize(
    "config, words",
    [
        ({"registers": {"dl": 256}}, "no 8-bit number"),
        ({"registers": {"r8b": 256}}, "no 8-bit number"),
        ({"registers": {"eh": 1}}, "register eh is unknown"),
        ({"registers": {"r16d": 1}}, "register r16d is unknown"),
        ({"mode": "vm86"}, "mode vm86"),
        ({"address": MIB}, "cannot start at 0x100000"),
        ({"address": 0xA0000}, "outside guest RAM"),
        ({"registers": {"xmm0": 1}}, "register xmm0"),
        ({"registers": {"ax": 65536}}, "no 16-bit number"),
        ({"registers": {"eax": -1}}, "no 32-bit number"),
        ({"registers": {"": 1}}, "register '' is unknown"),
        ({"registers": {"ecs": 0x12345}}, "register ecs is unknown"),
        ({"registers": {"ax": True}}, "no 16-bit number"),
        ({"mode": "protected", "address": MIB, "registers": {"ds": 1}}, "register ds"),
    ],
)
def test_flat_refusals(memory, config, words):
    with pytest.raises(LoadError, match=words):
        flat(memory, **config)
    with pytest.raises(LoadError, match="empty image"):
        flat(memory, b"", **{"mode": "real", **config})
