"""vmm/insight: a System.map, and a file of symbols for a kernel that KASLR has moved."""

import pytest

from vmm.insight.symbols import Symbols
from vmm.insight.systemmap import SystemMap

TEXT = 0xFFFFFFFF81000000
ROWS = [(0x40, "A", "cpu_number"), (TEXT, "T", "_stext"), (TEXT, "T", "_text")]
ROWS += [(TEXT + 0x100 + 0x40 * i, "t", f"function_{i}") for i in range(50)]
ROWS += [
    (TEXT + 0x2000, "t", "init_once"),
    (TEXT + 0x2010, "t", "init_once"),
    (TEXT + 0xC00080, "T", "entry_SYSCALL_64"),
]
MAP = "".join(f"{gva:016x} {kind} {name}\n" for gva, kind, name in ROWS).encode()


def test_system_map():
    known = SystemMap("System.map", MAP)
    assert len(known) == len(ROWS)
    for gva, _, name in ROWS:
        assert gva in known.lookup(name)
    for i in range(49):
        assert known.around(TEXT + 0x100 + 0x40 * i + 0x3F) == (
            f"function_{i}", TEXT + 0x100 + 0x40 * i, TEXT + 0x140 + 0x40 * i,
        )  # fmt: skip
    assert known.lookup("init_once") == [TEXT + 0x2000, TEXT + 0x2010]
    for absent in ("function", "unction_1", "function_50", "t", "T _stext"):
        assert known.lookup(absent) == []
    assert known.around(0x3F) is None
    assert known.around(TEXT + 0xC00080) == ("entry_SYSCALL_64", TEXT + 0xC00080, None)
    assert known.around(TEXT + 0xC00081) is None
    assert list(known.containing("SYSCALL")) == [("entry_SYSCALL_64", TEXT + 0xC00080)]


def test_which_names_are_data():
    text = MAP + b"%016x D jiffies\n%016x t jiffies\n" % (TEXT + 0xC00100, TEXT + 0xC00200)
    known = SystemMap("System.map", text)
    assert known.is_data("jiffies", TEXT + 0xC00100) and not known.is_data("jiffies", TEXT + 0xC00200)
    assert not known.is_data("_stext", TEXT) and not known.is_data("nobody", TEXT)


@pytest.mark.parametrize("bad", [b"", b"\n", b"\0" * 5000, b"PK\3\4 x y", b"1234 T name", b"x" * 5000, b"zz T name\n"])
def test_other_files(bad):
    with pytest.raises(ValueError, match="System.map is neither an ELF file nor a System.map"):
        SystemMap("System.map", bad)


@pytest.mark.parametrize("garbage", [b"\n", b"\0" * 40, b"x" * 3000 + b"\n", b"g T name\n" * 9])
def test_files_that_are_garbage_further_on(garbage):
    half = len(MAP) // 2
    known = SystemMap("System.map", MAP[:half] + garbage + MAP[half:])
    assert known.lookup("_stext") == [TEXT]
    known.lookup("entry_SYSCALL_64")
    for gva, _, _ in ROWS:
        known.around(gva + 1)


class Vm:
    name = "linux"
    starts = 1

    def __init__(self, lstar):
        self.memory = self.msrs = self
        self.vcpus = [self]
        self.size = 1
        self.config = {"symbols": "linux/symbols"}
        self.blobs = {"linux/symbols": MAP}
        self.lstar = lstar

    @property
    def kernel(self):
        raise ValueError("no kernel here")

    def read(self, _vcpu, _index):
        return self.lstar


@pytest.mark.parametrize("by", [0, 0x9A00000])
def test_a_kernel_that_kaslr_has_moved(by):
    known = Symbols(Vm(TEXT + 0xC00080 + by))
    assert known["function_3"] == TEXT + 0x1C0 + by
    assert known["cpu_number"] == 0x40
    assert known.at(TEXT + 0x1C1 + by) == "function_3+0x1"
    assert known.search("*SYSCALL*") == [("entry_SYSCALL_64", TEXT + 0xC00080 + by)]
    with pytest.raises(KeyError, match="no symbol function_x; there are function_"):
        known["function_x"]


def test_a_file_of_another_kernel():
    with pytest.raises(ValueError, match="guest linux runs another kernel than linux/symbols is of"):
        Symbols(Vm(TEXT + 0xC00084))["_stext"]
    with pytest.raises(ValueError, match="guest linux has only begun to boot"):
        Symbols(Vm(0))["_stext"]
