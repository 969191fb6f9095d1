"""vmm/loaders/linux.py: placement, zero page, registers, broken images, real kernels."""

import lzma
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st
from images import bzimage, elf
from needs import lacking
from support import Memory

from vmm.loaders import LoadError, load
from vmm.memory.e820 import e820

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]
SIZE = 64 * MIB
MEMORY = Memory(SIZE)


def boot(blobs, **config):
    config = {"protocol": "linux", "kernel": "k", **config}
    return load(MEMORY, config, blobs, e820(SIZE), 0xE0000)


def test_bzimage_64_bit_entry():
    kernel = bytes(range(256)) * 16
    initrd = b"initrd" * 1000
    state = boot({"k": bzimage(kernel), "i": initrd}, initrd="i", cmdline="console=ttyS0")
    assert (state.mode, state.rip) == ("long", 16 * MIB + 0x200)
    assert MEMORY.read(16 * MIB, len(kernel)) == kernel
    params = state.gprs["rsi"]
    assert MEMORY.read_u16(params + 0x1FE) == 0xAA55
    assert MEMORY.read_u64(params + 0x70) == 0xE0000
    assert MEMORY.read_u8(params + 0x1EF) == 0
    assert MEMORY.read_u8(params + 0x210) == 0xFF
    cmdline = MEMORY.read_u32(params + 0x228)
    assert MEMORY.read(cmdline, 14) == b"console=ttyS0\0"
    at, size = struct.unpack("<II", MEMORY.read(params + 0x218, 8))
    assert MEMORY.read(at, size) == initrd and at + size <= SIZE and at % 4096 == 0
    count = MEMORY.read_u8(params + 0x1E8)
    entries = [struct.unpack("<QQI", MEMORY.read(params + 0x2D0 + 20 * i, 20)) for i in range(count)]
    assert entries == e820(SIZE)


@pytest.mark.parametrize(
    "version, loadflags, base, kernel_gpa, room",
    [
        (0x200, 1, 0x90000, MIB, 0x9000), (0x201, 1, 0x90000, MIB, 0x9000), (0x202, 1, 0x10000, MIB, 0x10000),
        (0x209, 1, 0x10000, MIB, 0x10000), (0x209, 0, 0x90000, 0x10000, 0x9000), (0x20F, 0, 0x90000, 0x10000, 0x9000),
    ],
)  # fmt: skip
def test_older_protocols_are_entered_in_real_mode_by_their_set_up_code(version, loadflags, base, kernel_gpa, room):
    kernel = bytes(range(256)) * 16
    image = bzimage(kernel, version=version, loadflags=loadflags)
    state = boot({"k": image, "i": b"initrd" * 100}, initrd="i", cmdline="a=1")
    assert (state.mode, state.rip, state.bios) == ("real", 0, True)
    assert state.segments["cs"][:2] == ((base >> 4) + 0x20, base + 0x200)
    assert {state.segments[name][:2] for name in ("ds", "es", "ss", "fs", "gs")} == {(base >> 4, base)}
    assert state.rsp == room - 16
    assert MEMORY.read(kernel_gpa, len(kernel)) == kernel
    setup = bytearray(image[:1024])
    at, size = struct.unpack("<II", MEMORY.read(base + 0x218, 8))
    assert MEMORY.read(at, size) == b"initrd" * 100 and at + size <= min(SIZE, 0x38000000)
    if version >= 0x202:
        line = MEMORY.read_u32(base + 0x228)
    else:
        assert MEMORY.read_u16(base + 0x20) == 0xA33F
        line = base + MEMORY.read_u16(base + 0x22)
    assert MEMORY.read(line, 4) == b"a=1\0" and not base <= line < base + room
    assert MEMORY.read_u8(base + 0x210) == 0xFF
    heap = version >= 0x201
    assert MEMORY.read_u8(base + 0x211) == loadflags | (0x80 if heap else 0)
    assert MEMORY.read_u16(base + 0x224) == (room - 0x200 if heap else 0)
    assert MEMORY.read(base + 0x230, 0x1D0) == bytes(setup[0x230:0x400])


def test_linux_is_told_of_a_screen_where_its_file_says_so():
    screen_info = {}
    for screen in ("off", "on", "console", None):
        params = boot({"k": bzimage(b"\x90" * 64)}, screen=screen).gprs["rsi"]
        screen_info[screen] = MEMORY.read(params, 0x40)
    assert screen_info["off"] == screen_info[None] == bytes(0x40)
    told = screen_info["on"]
    assert told == screen_info["console"]
    assert (told[6], told[7], told[0xE], told[0xF], told[0x10]) == (3, 80, 25, 1, 16)


def test_identity_map_by_the_walk_of_the_cpu():
    state = boot({"k": bzimage(b"\x90" * 64)})
    for gva in (0, 0x7123, 16 * MIB + 0x200, 0xC0000000, 0xFFFFFFFF):
        table = state.cr3
        for shift in (39, 30):
            table = MEMORY.read_u64(table + 8 * (gva >> shift & 511)) & ~0xFFF
        entry = MEMORY.read_u64(table + 8 * (gva >> 21 & 511))
        assert entry & 0x83 == 0x83 and (entry & ~0x1FFFFF) + (gva & 0x1FFFFF) == gva


def test_32_bit_entry_and_relocation():
    state = boot({"k": bzimage(b"\x90" * 64, xloadflags=0, pref=256 * MIB, align=MIB)})
    assert (state.mode, state.rip) == ("protected", MIB)
    assert state.gprs["rsi"] and state.gprs["rbp"] == state.gprs["rbx"] == 0
    assert state.segments["cs"][0] == 0x10 and state.segments["ds"][0] == 0x18


def test_vmlinux_by_virtual_and_physical_entry():
    segments = [(0x1000000, 0xFFFFFFFF81000000, b"text" * 100, 0x4000), (0x1400000, 0, b"percpu", 6)]
    for entry in (0x1000010, 0xFFFFFFFF81000010):
        MEMORY.write(0x1000190, b"\xff" * 16)
        state = boot({"k": elf(64, 62, entry, segments)})
        assert (state.mode, state.rip) == ("long", 0x1000010)
        assert MEMORY.read(0x1000000, 0x1000) == (b"text" * 100).ljust(0x1000, b"\0")
        assert MEMORY.read(0x1400000, 6) == b"percpu"


@pytest.mark.parametrize(
    "blob, words",
    [
        (b"", "neither bzImage"),
        (bzimage(b"k", version=0x1FF), "1.255 is older than 2.00"),
        (bzimage(b"k")[:0x280], "cut off"),
        (bzimage(b"k" * 4096)[:-512], "cut off"),
        (bzimage(b"k" * 0x80010, loadflags=0), "overlaps set-up code"),
        (bzimage(b"k", pref=0x1000, relocatable=0, init_size=16), "overlaps GDT"),
        (bzimage(b"k", init_size=128 * MIB), "no guest RAM left"),
        (bzimage(b"k", pref=0, align=3), "0x230"),
        (elf(64, 62, 0x1000000, [(0x1000000, 0, b"x", 128 * MIB)]), "outside guest RAM"),
        (elf(64, 62, 0x5000000, [(0x1000000, 0, b"x", 1)]), "entry 0x5000000"),
        (elf(64, 40, 0x1000000, [(0x1000000, 0, b"x", 1)]), "machine 40"),
    ],
)
def test_broken_images(blob, words):
    with pytest.raises(LoadError) as caught:
        boot({"k": blob})
    text = str(caught.value)
    assert text.startswith("k: ") and words in text and "\n" not in text


def test_broken_requests():
    blob = bzimage(b"k")
    with pytest.raises(LoadError, match="i: no boot module"):
        boot({"k": blob}, initrd="i")
    with pytest.raises(LoadError, match="initrd i"):
        boot({"k": blob, "i": bytes(60 * MIB)}, initrd="i")
    with pytest.raises(LoadError, match="the kernel takes 2047"):
        boot({"k": blob}, cmdline="x" * 2048)


SEEDS = [
    bzimage(b"\x90" * 600),
    elf(64, 62, 0x1000010, [(0x1000000, 0xFFFFFFFF81000000, b"text" * 10, 0x4000)]),
    elf(32, 3, 0x100000, [(0x100000, 0xC0100000, b"text" * 10, 0x4000)]),
]


# Where a segment that begins below 1 MiB may be loaded, besides RAM: below the ACPI tables, and above them.
FIRMWARE_AREA = ((0xC0000, 0xE0000), (0xF1000, 0x100000))


class Guarded(Memory):
    """Refuses writes where the map has no RAM and nothing is loaded."""

    def write(self, gpa, data):
        end = gpa + len(data)
        allowed = [(b, b + n) for b, n, kind in e820(self.size) if kind == 1]
        assert any(first <= gpa and end <= last for first, last in allowed + list(FIRMWARE_AREA)), (hex(gpa), hex(end))
        super().write(gpa, data)


GUARDED = Guarded(32 * MIB)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 0x268), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, 2048),
)
def test_fuzz_no_crash_no_stray_write(seed, edits, cut):
    blob = bytearray(seed)
    for at, data in edits:
        blob[at : at + len(data)] = data[: max(0, len(blob) - at)]
    blob = blob[: len(blob) - cut] if cut < len(blob) else blob
    try:
        state = load(GUARDED, {"kernel": "k"}, {"k": bytes(blob)}, e820(GUARDED.size))
    except LoadError as error:
        assert "\n" not in str(error)
    else:
        assert state.mode in ("long", "protected") or state.bios


def real_kernels(ending):
    return sorted(ROOT.glob("build/guests/*." + ending)) or [None]


def boot_real(path):
    if path is None:
        lacking("no kernel under build/guests: make guests fetches them")
    blob = path.read_bytes()
    memory = Memory(256 * MIB)
    return blob, memory, load(memory, {"kernel": "k"}, {"k": blob}, e820(memory.size))


@pytest.mark.parametrize("path", real_kernels("bzImage"))
def test_real_bzimage(path):
    blob, memory, state = boot_real(path)
    if blob[0x236] & 1:  # XLF_KERNEL_64
        assert state.mode == "long" and state.rip & 0xFFF == 0x200
        start = state.rip - 0x200
    else:
        assert state.mode == "protected" and state.rip & 0xFFF == 0
        start = state.rip
    payload = struct.unpack_from("<I", blob, 0x248)[0]
    offset = (blob[0x1F1] + 1) * 512 + payload
    assert memory.read(start + payload, 4096) == blob[offset : offset + 4096]
    if blob[offset : offset + 4] == b"\xfd7zX":
        assert lzma.LZMADecompressor().decompress(blob[offset : offset + MIB], 4) == b"\x7fELF"


@pytest.mark.parametrize("path", real_kernels("vmlinux"))
def test_real_vmlinux(path):
    blob, memory, state = boot_real(path)
    with path.open("rb") as file:
        image = ELFFile(file)
        assert (state.mode, state.rip) == ({32: "protected", 64: "long"}[image.elfclass], image.header.e_entry)
        for segment in image.iter_segments("PT_LOAD"):
            data = segment.data()
            assert memory.read(segment.header.p_paddr, len(data)) == data
