"""The VMCS table and the frame: what the encodings themselves say must fit the headings and names."""

import re
from pathlib import Path

from vmm.vtx import reasons, vmcs

ROOT = Path(__file__).resolve().parents[2]
SOURCE = (ROOT / "vmm/vtx/vmcs.py").read_text()
WIDTHS = {"16-bit": 0, "64-bit": 1, "32-bit": 2, "Natural-width": 3}
KINDS = {"control": 0, "read-only data": 1, "guest-state": 2, "host-state": 3}


def sections():
    """[(heading, name, encoding), ...] as they stand in the file."""
    heading = None
    for line in SOURCE.splitlines():
        if match := re.match(r"# (\S+) (.*) fields$", line):
            heading = match.groups()
        elif match := re.match(r"([A-Z0-9_]+) = const\((0x[0-9A-F]+)\)", line):
            yield heading, match.group(1), int(match.group(2), 16)


def test_width_and_kind_follow_from_the_encoding():
    rows = list(sections())
    assert len(rows) > 170
    for (width, kind), name, encoding in rows:
        assert encoding >> 13 & 3 == WIDTHS[width], name
        assert encoding >> 10 & 3 == KINDS[kind], name
        assert encoding & 1 == 0 and encoding >> 15 == 0, name


def test_no_encoding_and_no_name_stands_twice():
    rows = list(sections())
    assert len({name for _, name, _ in rows}) == len(rows) == len({encoding for _, _, encoding in rows})
    assert vmcs.fields() == {name: encoding for _, name, encoding in rows}


def test_nobody_copies_words_of_the_frame():
    """They are imported (port/constants.py); a number of its own would drift."""
    for path in (ROOT / "vmm").rglob("*.py"):
        if path.name != "frame.py":
            assert not re.findall(r"= const\(0x[0-9A-F]{3} // 4\)", path.read_text()), path


def test_reasons_are_distinct_and_fit_the_table():
    names = reasons.names()
    values = [value for name, value in vars(reasons).items() if name.isupper() and value < reasons.SLOTS]
    assert len(names) == len(values)
    assert max(names) < reasons.SLOTS
