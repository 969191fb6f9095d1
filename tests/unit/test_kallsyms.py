"""vmm/insight: VMCOREINFO and kallsyms of small kernels made here, in each layout, whole and damaged."""

import struct

import pytest
from support import Memory

from vmm.insight import kallsyms, kallsyms_search, symbols, vmcoreinfo
from vmm.memory import look
from vmm.vtx.x86 import CR0_PG, EFER_LMA

RELEASE = "6.1.0-test"
PHYS_BASE = -0xF00000
MAP = 0xFFFFFFFF80000000
TEXT = 0xFFFFFFFF81000000
RODATA = 0x200000  # from TEXT on
NOTE = 0x5000  # gpa
LONG = "_R" + "x" * 180  # longer than one byte of length can say


def functions():
    """(gva, type, name) by address: 700 of them, two static ones of one name, two names of one address."""
    rows = [(TEXT + 0x40 * i, "t", "handler_%03d" % (i * 7 % 700)) for i in range(700)]
    rows[0] = (TEXT, "T", "_stext")
    rows[699] = (rows[699][0], "B", "_end")
    rows[30] = (rows[30][0], "R", "linux_banner")
    rows[3] = (rows[3][0], "t", "init_once")
    rows[600] = (rows[600][0], "t", "init_once")
    rows[10] = (rows[10][0], "T", "do_sys_openat2")
    rows[11] = (rows[10][0], "T", "an_alias")
    rows[20] = (rows[20][0], "T", LONG)
    return rows


class Kernel:
    """A kernel in guest memory. layout: "6.1", "6.1 without seqs", "6.4", "6.15" or "7.0"."""

    def __init__(self, layout, rows=None):
        self.memory = Memory(4 << 20)
        self.memory.segments = ((0, self.memory.size, 0),)
        self.layout = layout
        self.rows = functions() if rows is None else rows
        if layout in ("6.1", "6.4"):
            self.rows = [(0x40, "A", "percpu_one")] + self.rows
        self.at = TEXT + RODATA
        self.places = {}
        self._tables()
        self._note()

    def gpa(self, gva):
        return gva - MAP + PHYS_BASE

    def put(self, name, data, align=8):
        self.at += -self.at % align
        self.places[name] = self.at
        self.memory.write(self.gpa(self.at), data)
        self.at += len(data)

    def _tables(self):
        align = 4 if self.layout == "7.0" else 8
        tokens = [bytes((i,)) if 32 < i < 127 else b"%02x_" % i for i in range(256)]
        tokens[1], tokens[2] = b"handler_", b"do_sys_"
        entries, markers = [], []
        names = bytearray()
        for i, (_, kind, name) in enumerate(self.rows):
            text = (kind + name).encode().replace(b"handler_", b"\1").replace(b"do_sys_", b"\2")
            if not i % 256:
                markers.append(len(names))
            size = len(text)
            names += bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))
            names += text
            entries.append(text)
        order = sorted(range(len(self.rows)), key=lambda i: (self.rows[i][2], self.rows[i][0]))
        seqs = b"".join(i.to_bytes(3, "big") for i in order)
        table = b"".join(token + b"\0" for token in tokens)
        index = [sum(len(token) + 1 for token in tokens[:i]) for i in range(256)]
        parts = {
            "num_syms": struct.pack("<I", len(self.rows)),
            "names": bytes(names),
            "markers": struct.pack("<%dI" % len(markers), *markers),
            "seqs": seqs,
            "token_table": table,
            "token_index": struct.pack("<256H", *index),
            "relative_base": struct.pack("<Q", TEXT),
        }
        old = self.layout.startswith("6.1 ") or self.layout == "6.1"
        if old:
            rest = ("offsets", "relative_base", "num_syms", "names", "markers", "seqs", "token_table", "token_index")
        else:
            rest = ("num_syms", "names", "markers", "token_table", "token_index", "offsets", "relative_base", "seqs")
        for name in rest:
            if name == "offsets":
                self.at += -self.at % align
                self.put(name, self._offsets(), align)
            elif not (name == "relative_base" and self.layout == "7.0") and not (
                name == "seqs" and self.layout.endswith("without seqs")
            ):
                self.put(name, parts[name], align)

    def _offsets(self):
        def offset(i, gva):
            if self.layout == "7.0":
                return (gva - self.at - 4 * i) & 0xFFFFFFFF
            if self.layout == "6.15":
                return gva - TEXT
            return gva if gva < 1 << 31 else (TEXT - 1 - gva) & 0xFFFFFFFF

        return b"".join(struct.pack("<I", offset(i, row[0])) for i, row in enumerate(self.rows))

    def _note(self):
        self.memory.write(self.gpa(TEXT + 0x40 * 30), b"Linux version " + RELEASE.encode() + b" (x@y)")
        uts = self.at + 0x100
        self.memory.write(
            self.gpa(uts), b"Linux\0".ljust(65, b"\0") + b"host\0".ljust(65, b"\0") + RELEASE.encode() + b"\0"
        )
        lines = ["OSRELEASE=" + RELEASE, "NUMBER(phys_base)=%d" % PHYS_BASE]
        for name, gva in [("init_uts_ns", uts), ("_stext", TEXT)]:
            lines.append("SYMBOL(%s)=%x" % (name, gva))
        for name, gva in self.places.items():
            if name not in ("markers", "seqs"):
                lines.append("SYMBOL(kallsyms_%s)=%x" % (name, gva))
        self.note("\n".join(lines).encode() + b"\n")

    def note(self, text, gpa=NOTE):
        self.memory.write(gpa, struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text)

    def kallsyms(self):
        return kallsyms.Kallsyms(vmcoreinfo.find(self.memory, TEXT + 0x40))


LAYOUTS = ("6.1", "6.1 without seqs", "6.4", "6.15", "7.0")


@pytest.fixture(params=LAYOUTS)
def kernel(request):
    return Kernel(request.param)


def test_each_symbol_is_found_by_its_name(kernel):
    table = kernel.kallsyms()
    assert len(table) == len(kernel.rows)
    assert (table._seqs is None) == kernel.layout.endswith("without seqs")
    for gva, _, name in kernel.rows[:40] + kernel.rows[-40:] + kernel.rows[250:262]:
        wanted = sorted(row[0] for row in kernel.rows if row[2] == name)
        assert table.lookup(name) == wanted and gva in wanted
    assert len(table.lookup("init_once")) == 2
    for absent in ("", "a", "do_sys_openat", "do_sys_openat22", "zzz"):
        assert table.lookup(absent) == []


def test_data_is_told_from_code(kernel):
    known = kernel.kallsyms()
    for gva, kind, name in kernel.rows:
        assert known.is_data(name, gva) == (kind in "BR"), name
        assert not known.is_data(name, gva + 1)


def test_each_address_has_its_name(kernel):
    table = kernel.kallsyms()
    assert table.around(TEXT + 0x40 * 10 + 0x1C) == ("do_sys_openat2", TEXT + 0x40 * 10, TEXT + 0x40 * 12)
    assert table.around(TEXT + 0x40 * 20)[0] == LONG
    for gva, _, name in kernel.rows[-300:-1]:
        assert table.around(gva + 0x3F) == (name, gva, gva + 0x40)
    for outside in (0, 0x40, TEXT - 1, MAP, (1 << 64) - 1, 1 << 63):
        assert table.around(outside) is None


def test_patterns(kernel):
    table = kernel.kallsyms()
    gva = TEXT + 0x40 * 10
    assert list(table.starting("do_sys_")) == [("do_sys_openat2", gva)]
    assert list(table.containing("openat")) == [("do_sys_openat2", gva)]
    assert len(list(table.starting(""))) == len(kernel.rows)
    assert "do_sys_openat2" in symbols.nearest("do_sys_opnat2", table.similar("do_sys_opnat2"))


def test_note_of_another_kernel_is_passed_over(kernel):
    words = bytes(kernel.memory.read(NOTE + 24, 2000)).rstrip(b"\0")
    kernel.note(words.replace(b"6.1.0-test", b"5.5.5-old"), 0x3000)
    assert len(kernel.kallsyms()) == len(kernel.rows)
    with pytest.raises(ValueError, match="another kernel runs"):
        vmcoreinfo.find(kernel.memory, TEXT - (1 << 30))
    kernel.memory.write(NOTE, bytes(4096))
    with pytest.raises(ValueError, match="Linux 5.5.5-old, which is not there"):
        kernel.kallsyms()
    kernel.memory.write(0x3000, bytes(4096))
    with pytest.raises(ValueError, match="no VMCOREINFO"):
        kernel.kallsyms()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"SYMBOL(kallsyms_names)=", b"SYMBOL(kallsyms_names)=z", "where a number belongs"),
        (b"SYMBOL(kallsyms_names)=", b"SYMBOL(kallsyms_other)=", "does not say in VMCOREINFO"),
        (b"SYMBOL(kallsyms_names)=ffffffff8", b"SYMBOL(kallsyms_names)=ffffffffc", "outside its memory"),
        (b"NUMBER(phys_base)=-", b"NUMBER(phys_base)=9", "outside its memory"),
        (b"SYMBOL(_stext)=", b"SYMBOL(_stext=", "has no SYMBOL"),
    ],
)
def test_note_that_lies(old, new, why):
    kernel = Kernel("6.4")
    text = bytes(kernel.memory.read(NOTE + 24, 2000)).rstrip(b"\0")
    assert old in text
    kernel.note(text.replace(old, new))
    with pytest.raises(ValueError, match=why):
        kernel.kallsyms()


@pytest.mark.parametrize("layout", ["6.1", "6.4", "7.0"])
def test_tables_that_lie_end_in_value_error(layout):
    """Each table overwritten with each of some patterns, before and after the first look: no other error, no hang."""
    kernel = Kernel(layout)
    whole = bytes(kernel.memory.data)
    for name in kernel.places:
        for pattern in (b"\0", b"\xff", b"\x7f", b"\x80\x01", b"\x01\0\0\0"):
            for late in (False, True):
                kernel.memory.data[:] = whole
                table = kernel.kallsyms() if late else None
                gpa = kernel.gpa(kernel.places[name])
                kernel.memory.write(gpa, (pattern * 2000)[:600])
                try:
                    table = table or kernel.kallsyms()
                    table.lookup("do_sys_openat2")
                    table.around(TEXT + 0x1000)
                    table.similar("do_sys")
                    assert len(list(table.containing("open"))) <= len(kernel.rows)
                except ValueError:
                    pass


def test_number_of_symbols_is_bounded():
    for count, why in ((0, "0 symbols"), (1 << 31, "symbols"), (5000, "are invalid")):
        kernel = Kernel("6.4")
        kernel.memory.write_u32(kernel.gpa(kernel.places["num_syms"]), count)
        with pytest.raises(ValueError, match=why):
            kernel.kallsyms()


def test_names_are_clean_text():
    kernel = Kernel("7.0", [(TEXT, "T", "a\x1b[2Jb"), (TEXT + 8, "T", "c")])
    assert "\x1b" not in kernel.kallsyms().around(TEXT)[0]


class Vm:
    name = "linux"
    starts = 1

    def __init__(self, memory):
        self.memory = memory
        self.config = {"protocol": "linux", "kernel": "vmlinux"}
        self.blobs = {"vmlinux": b"no ELF"}
        self.msrs = self
        self.vcpus = [self]
        self.entry = self.rip = TEXT + 0x40
        self.cr0, self.efer = CR0_PG, EFER_LMA

    @property
    def kernel(self):
        raise ValueError("no kernel here")

    def read(self, _vcpu, _index):
        return self.entry


def test_vm_symbols():
    kernel = Kernel("6.4")
    known = symbols.Symbols(Vm(kernel.memory))
    assert known.behind(TEXT + 0x40 * 10) == ""  # nothing loaded yet
    gva = known["do_sys_openat2"]
    assert gva == TEXT + 0x40 * 10
    assert known.at(gva) == "do_sys_openat2" and known.at(gva + 0x1C) == "do_sys_openat2+0x1c" and known.at(0) is None
    assert known.behind(gva + 1) == " do_sys_openat2+0x1"
    assert "do_sys_openat2" in known and "nothing" not in known
    assert known.get("init_once") is None and known.get("nothing", 5) == 5
    with pytest.raises(KeyError, match="init_once is the name of 2 symbols: 0xffffffff810000c0, 0xffffffff81009600"):
        known["init_once"]
    with pytest.raises(KeyError, match="no symbol do_sys_opnat2; there are do_sys_openat2, "):
        known["do_sys_opnat2"]
    assert known.search("openat") == known.search("do_*at?") == [("do_sys_openat2", gva)]
    assert len(known.search("handler_*", 5)) == 5


def test_a_guest_that_starts_anew_is_read_anew():
    vm = Vm(Kernel("6.4").memory)
    known = symbols.Symbols(vm)
    assert "do_sys_openat2" in known
    vm.starts = 2
    vm.memory = Kernel("7.0", [(TEXT, "T", "other")]).memory
    assert known.behind(TEXT) == ""
    assert known["other"] == TEXT
    vm.starts = 3
    vm.entry = vm.rip = 0
    vm.memory = Memory(1 << 20)
    vm.memory.segments = ((0, 1 << 20, 0),)
    with pytest.raises(
        ValueError, match="guest linux has no symbols: there is no VMCOREINFO .*; vmlinux is no ELF file"
    ):
        known["other"]


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("do_sys_open", "do_*", True),
        ("do_sys_open", "*open", True),
        ("do_sys_open", "d?_*_o*n", True),
        ("do_sys_open", "do_sys", False),
        ("do_sys_open", "*x*", False),
        ("", "**", True),
        ("a", "", False),
        ("aab", "*ab", True),
    ],
)
def test_matches(name, pattern, fits):
    assert symbols.matches(name, pattern) == fits


# -- kernels that do not say where their tables are


class Straight:
    """An address space in which the kernel's image lies where it does."""

    def __init__(self, kernel):
        self.translate = kernel.gpa


ENTRY = TEXT + 0x40 * 600


def searched(kernel, monkeypatch):
    """A Vm without VMCOREINFO."""
    kernel.memory.write(NOTE, bytes(24))
    monkeypatch.setattr(look, "holding", lambda _vcpu, _gva: Straight(kernel))
    vm = Vm(kernel.memory)
    vm.entry = ENTRY
    return vm


def test_tables_are_found_without_vmcoreinfo(kernel, monkeypatch):
    vm = searched(kernel, monkeypatch)
    known = symbols.Symbols(vm)
    assert len(known) == len(kernel.rows)
    for gva, _, name in kernel.rows[1:40] + kernel.rows[-40:] + kernel.rows[250:262]:
        assert gva in known.all(name)
    assert known.at(TEXT + 0x40 * 10 + 0x1C) == "do_sys_openat2+0x1c"
    assert known._source._image.release == RELEASE


def test_tables_are_found_early_in_the_boot(monkeypatch):
    """LSTAR is not set yet: RIP tells where the kernel is, once it is at its addresses."""
    vm = searched(Kernel("6.4"), monkeypatch)
    vm.entry, vm.rip = 0, 0x1000200
    known = symbols.Symbols(vm)
    with pytest.raises(ValueError, match="no VMCOREINFO in guest memory: no Linux, or one that has only begun to boot"):
        known["do_sys_openat2"]
    vm.rip = ENTRY
    assert known["do_sys_openat2"] == TEXT + 0x40 * 10


@pytest.mark.parametrize("layout", ["6.1", "6.1 without seqs"])
def test_vmcoreinfo_that_says_nothing_of_kallsyms(layout):
    """As before Linux 6.0: it says where the image is."""
    kernel = Kernel(layout)
    text = bytes(kernel.memory.read(NOTE + 24, 2000)).rstrip(b"\0")
    kernel.note(text.replace(b"SYMBOL(kallsyms_", b"SYMBOL(hallsyms_"))
    vm = Vm(kernel.memory)
    vm.entry = ENTRY
    assert symbols.Symbols(vm)["do_sys_openat2"] == TEXT + 0x40 * 10


@pytest.mark.parametrize("table", ["names", "token_table", "markers", "offsets"])
def test_search_of_broken_tables_ends_in_a_line(table):
    kernel = Kernel("6.4")
    kernel.memory.write(kernel.gpa(kernel.places[table]), b"\x81\xff" * 200)
    image = kallsyms_search.Mapped(kernel.memory, ENTRY, kernel.gpa(ENTRY))
    with pytest.raises(ValueError, match="no symbols are found in the memory of a Linux"):
        kallsyms_search.find(image, ENTRY)


def test_kernel_that_does_not_run_is_not_told_of():
    """A guest that starts anew has the memory of before: its loader's RIP is not the kernel's."""
    kernel = Kernel("6.4")
    with pytest.raises(ValueError, match="6.1.0-test is in guest memory, but no kernel runs at its addresses yet"):
        vmcoreinfo.find(kernel.memory, 0)
