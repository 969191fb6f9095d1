"""port/header.py: C and assembly have their constants from the tables in vmm/."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "port"))

from constants import Tree
from header import header, shared

ROOT = Path(__file__).resolve().parents[2]
TREE = Tree(str(ROOT))
DEFINE = re.compile(r"^ *#define (\w+)(?: (.*))?$", re.M)
SOURCES = [path for place in ("port", "boot") for path in (ROOT / place).glob("*.[chS]")]


@pytest.fixture(scope="module")
def made():
    """{name: its text} of the header."""
    return dict(DEFINE.findall(header(TREE)))


def test_constants_and_masks_of_fields(made):
    assert made["RFLAGS_IF"] == "(0x200)"
    assert made["GUEST_RIP"] == "(0x681e)"
    assert made["MC_STATUS_VAL"] == "(SHARED_U64(0x8000000000000000))"
    assert made["MC_STATUS_MCACOD"] == "(0xffff)"
    assert made["MC_STATUS_MSCOD"] == "(SHARED_U64(0xffff0000))"


def test_a_line_that_brings_nothing_is_refused(monkeypatch):
    assert shared(TREE, "vmm.vtx.x86", "CR9_") == []
    monkeypatch.setattr("header.SHARED", (("vmm.vtx.x86", "CR9_", "CR9_"),))
    with pytest.raises(SystemExit, match="vmm.vtx.x86 has no CR9_"):
        header(TREE)


def test_no_source_declares_one_again(made):
    for path in SOURCES:
        assert not {name for name, _ in DEFINE.findall(path.read_text())} & set(made), path


def test_no_source_has_a_port_as_a_number():
    """vmm/devices/pc_ports.py has them."""
    for path in SOURCES:
        assert not re.findall(r"\b(?:in|out)[bwl]\((?:0x|\d).*", path.read_text()), path
