"""port/texts.py and port/native.py: what help() says of names that are written in C."""

import importlib.util
import re

import pytest
from pcanel.paths import ROOT

_SPEC = importlib.util.spec_from_file_location("texts", ROOT / "port/texts.py")
texts = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(texts)
ENTRIES = {entry[0]: entry for entry in texts.entries(ROOT / "vmm", ROOT / "port/native.py")}


def table(file, name):
    """The names of a table of a C file."""
    source = (ROOT / "port" / file).read_text()
    body = re.search(rf"{name}\[\] = \{{(.*?)\n\}};", source, re.DOTALL)[1]
    return set(re.findall(r"ROM_QSTR\(MP_QSTR_([a-z]\w*)\), MP_ROM_PTR", body))


def test_each_name_of_a_vcpu_has_a_text():
    """Those for users; and each method in C among them has a signature and an example."""
    _, _, _, users, members = ENTRIES["vmm.vtx.vcpu.Vcpu"]
    known = {name: (signature, text) for name, signature, text in members}
    assert [name for name in users if not known.get(name, ("", ""))[1]] == []
    methods = table("vcpu.c", "vcpu_locals_table") & set(users)
    assert {"read", "write", "msr"} <= methods
    for name in methods | {"translate"}:
        signature, text = known[name]
        assert signature[0] == "(" and "xample" in text, name


@pytest.mark.parametrize("module, file", [("cpu", "modcpu.c"), ("multiboot", "modmultiboot.c")])
def test_what_is_said_of_a_module_is_there(module, file):
    there = table(file, f"{module}_globals_table")
    said = {name.partition(".")[2] for name in ENTRIES if name.startswith(module + ".")}
    assert said and said <= there
    assert module != "multiboot" or said == there
    for name in said:
        _, signature, text, _, _ = ENTRIES[f"{module}.{name}"]
        assert signature[0] == "(" and f"{module}." in text.partition("Example: ")[2], name
