"""The image file: what boot loaders see of it, and that ordinary code leaves the FPU alone."""

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from pcanel.paths import ELF

IMAGE = Path(os.environ.get("PCANEL_ELF") or ELF)


@pytest.fixture(scope="module")
def segments():
    with IMAGE.open("rb") as file:
        return [dict(s.header) for s in ELFFile(file).iter_segments() if s["p_type"] == "PT_LOAD"]


def test_file_layout_is_memory_layout(segments):
    """The Multiboot 1 address fields describe one contiguous block."""
    assert len({s["p_offset"] - s["p_paddr"] for s in segments}) == 1
    assert all(s["p_vaddr"] == s["p_paddr"] for s in segments)
    for before, after in zip(segments, segments[1:], strict=False):
        assert before["p_paddr"] + before["p_memsz"] == after["p_paddr"]


def test_multiboot_headers(segments):
    data = IMAGE.read_bytes()
    at = next(i for i in range(0, 8192, 4) if data[i : i + 4] == struct.pack("<I", 0x1BADB002))
    magic, flags, checksum, header, load, load_end, bss_end, entry = struct.unpack_from("<8I", data, at)
    assert (magic + flags + checksum) & 0xFFFFFFFF == 0
    assert flags & 0x10000
    first, last = segments[0], segments[-1]
    assert load == first["p_paddr"]
    assert header - load == at - first["p_offset"]
    assert load_end == last["p_paddr"] + last["p_filesz"]
    assert bss_end == last["p_paddr"] + last["p_memsz"]
    assert load <= entry < load_end
    at = next(i for i in range(0, 32768, 8) if data[i : i + 4] == struct.pack("<I", 0xE85250D6))
    assert sum(struct.unpack_from("<4I", data, at)) & 0xFFFFFFFF == 0


def test_ends_where_uefi_firmware_begins(segments):
    assert segments[-1]["p_paddr"] + segments[-1]["p_memsz"] <= 0x800000


def test_no_sse_but_for_floating_point():
    """Vector moves would come from copies; the only ones are in prologues that test AL first."""
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", IMAGE], capture_output=True, text=True, check=True
    ).stdout
    guilty = set()
    for function in re.split(r"\n\n", text):
        name = re.search(r"<(.+)>:", function)
        if name and re.search(r"\b(movups|movupd|movdqu|movdqa|movaps)\b.*%xmm", function):
            if not re.search(r"test +%al,%al", function):
                guilty.add(name[1])
    # Complex numbers are pairs of doubles; tgamma keeps some in registers.
    assert {name for name in guilty if not re.search("complex|cmath|tgamma", name)} == set()
