"""The VMCS table and the frame: what the encodings themselves say must fit the headings and names."""

import ast
import re
from pathlib import Path

import pytest

from vmm.vtx import frame, reasons, vmcs

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


def test_the_shim_uses_the_same_encodings():
    """vmxops.h names a few fields: they must be those of the table."""
    table = set(vmcs.fields().values())
    used = re.findall(r"#define \w+ +\(0x([0-9a-f]{4})\)", (ROOT / "port/vmxops.h").read_text())
    assert len(used) > 15
    assert {int(word, 16) for word in used} <= table


def c_frame():
    """{member: offset} from the comments of the structure in port/vcpu.h."""
    text = (ROOT / "port/vcpu.h").read_text()
    return {name: int(offset, 16) for name, offset in re.findall(r"(\w+)(?:\[\w+\])?; +// 0x([0-9a-f]{3,4})", text)}


@pytest.mark.parametrize(
    ("word", "member"),
    [
        ("RAX", "gpr"), ("RIP", "rip"), ("RFLAGS", "rflags"), ("REASON", "reason"), ("QUALIFICATION", "qualification"),
        ("LENGTH", "length"), ("LINEAR", "linear"), ("GPA", "gpa"), ("INTR_INFO", "intr_info"),
        ("VECTORING_INFO", "vectoring_info"), ("INSTR_INFO", "instr_info"), ("VERDICT", "verdict"),
        ("PENDING", "pending"), ("DEADLINE", "deadline"), ("EXIT_TSC", "exit_tsc"),
    ],
)  # fmt: skip
def test_the_frame_in_python_is_the_frame_in_c(word, member):
    assert getattr(frame, word) * 4 == c_frame()[member]


def test_private_copies_of_frame_words_agree_with_the_table():
    """Hot handlers hold the words they read as private constants; they must not drift."""
    names = {name for name in dir(frame) if name.isupper()}
    checked = 0
    for path in (ROOT / "vmm").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                text = ast.unparse(node.value)
                if name.startswith("_") and name[1:] in names and "// 4" in text:
                    value = eval(text.removeprefix("const"))
                    assert value == getattr(frame, name[1:]), f"{path.name}: {name}"
                    checked += 1
    assert checked >= 8


def test_reasons_are_distinct_and_fit_the_table():
    names = reasons.names()
    values = [value for name, value in vars(reasons).items() if name.isupper() and name not in ("SLOTS", "COMPLETED")]
    assert len(names) == len(values)
    assert max(names) < reasons.SLOTS
