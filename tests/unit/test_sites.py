"""vmm/emulation/sites.py: what is kept of an instruction serves it again only while nothing of it has changed."""

import struct

import pytest
import uctypes
from realcpu import assemble

from vmm.emulation import sites
from vmm.vtx import frame as f

SIZE = 1 << 20
CR3 = 0x1000
RIP_GVA = 0xFFFFFFFF81234000
PAGE = 0x8000  # where RIP_GVA's page lies
GPA = 0xFEC00010
LONG = 0xA09B
SLOW = 99


class Machine:
    """RAM with page tables, a device's handler, a frame; how often an instruction was kept."""

    def __init__(self, monkeypatch):
        self.ram = bytearray(SIZE)
        for level, shift in enumerate((39, 30, 21, 12)):
            entry = PAGE | 0x27 if shift == 12 else 0x2000 + 0x1000 * level | 0x27
            struct.pack_into("<Q", self.ram, self.entry_at(level), entry)
        self.log = []
        self.frame = bytearray(0x1000)
        self.kept = 0
        remember = sites._remember

        def counted(*arguments):
            self.kept += 1
            return remember(*arguments)

        monkeypatch.setattr(sites, "_remember", counted)
        self.sites = sites.Sites(uctypes.addressof(self.ram), SIZE)
        self.handler = self.sites.handler(self.read, self.write, lambda vcpu: SLOW)
        self.put(f.GPA, GPA)
        self.put(f.CR3, CR3)
        self.put(f.CS_RIGHTS, LONG)

    @staticmethod
    def entry_at(level):
        return CR3 + 0x1000 * level + (RIP_GVA >> 39 - 9 * level & 511) * 8

    def put(self, word, value):
        struct.pack_into("<Q", self.frame, 4 * word, value)

    def get(self, word):
        return struct.unpack_from("<Q", self.frame, 4 * word)[0]

    def read(self, offset, size):
        self.log.append((offset, size))
        return 0x89ABCDEF

    def write(self, offset, size, value):
        self.log.append((offset, size, value))

    def place(self, text, offset=0x20):
        """The instruction, and RIP at it."""
        code = assemble(text)
        self.ram[PAGE + offset : PAGE + offset + len(code)] = code
        self.put(f.RIP, RIP_GVA + offset)
        return code

    def access(self):
        return self.handler(self.frame)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def test_kept_once_and_served_again(machine):
    code = machine.place("mov r9d, [rdi + 0x10]")
    for _ in range(3):
        machine.put(f.RAX + 18, 0)
        assert machine.access() == 1
        assert machine.get(f.RAX + 18) == 0x89ABCDEF
        assert machine.get(f.LENGTH) == len(code)
    assert machine.log == [(0x10, 4)] * 3
    assert machine.kept == 1


def test_writes_register_and_immediate(machine):
    machine.put(f.RAX, 0x1234_5678)
    for text, wanted in (("mov [rdi], ah", (0x10, 1, 0x56)), ("mov dword ptr [rdi], 0xcafe", (0x10, 4, 0xCAFE))):
        machine.place(text)
        for _ in range(2):
            machine.log.clear()
            assert machine.access() == 1
            assert machine.log == [wanted]


def test_neighbours_do_not_displace_each_other(machine):
    """Index and data register: a driver's two instructions stand side by side, 2 bytes apart."""
    machine.place("mov [rdi], eax", 0x22D)
    machine.place("mov edx, [rdi]", 0x22F)
    for _ in range(3):
        for offset in (0x22D, 0x22F):
            machine.put(f.RIP, RIP_GVA + offset)
            assert machine.access() == 1
    assert machine.kept == 2


@pytest.mark.parametrize("level", range(4))
def test_a_changed_table_is_seen(machine, level):
    """The same address, other code: the new code is executed."""
    machine.place("mov eax, [rdi]")
    assert machine.access() == 1
    for old in range(level, 4):  # a second tree of tables, from this level down
        table = 0x10000 + 0x1000 * old
        machine.ram[table : table + 0x1000] = machine.ram[CR3 + 0x1000 * old : CR3 + 0x1000 * (old + 1)]
    machine.ram[0x20000:0x21000] = machine.ram[PAGE : PAGE + 0x1000]
    write = assemble("mov [rdi], ecx")
    machine.ram[0x20020 : 0x20020 + len(write)] = write
    for old in range(level, 4):
        at = 0x10000 + machine.entry_at(old) - CR3
        struct.pack_into("<Q", machine.ram, at, 0x20027 if old == 3 else 0x11027 + 0x1000 * old)
    if level == 0:
        machine.put(f.CR3, 0x10000)
    else:
        struct.pack_into("<Q", machine.ram, machine.entry_at(level - 1), 0x10027 + 0x1000 * level)
    machine.log.clear()
    assert machine.access() == 1
    assert machine.log == [(0x10, 4, 0)]
    assert machine.kept == 2


def test_changed_code_is_seen(machine):
    machine.place("mov eax, [rdi]")
    assert machine.access() == 1
    machine.place("mov [rdi], eax")
    assert machine.access() == 1
    assert len(machine.log[-1]) == 3


def not_present(machine):
    struct.pack_into("<Q", machine.ram, machine.entry_at(2), 0x4026)


def outside(machine):
    struct.pack_into("<Q", machine.ram, machine.entry_at(1), SIZE | 0x27)


def other_mode(machine):
    machine.put(f.CS_RIGHTS, 0xC09B)


def in_delivery(machine):
    machine.put(f.VECTORING_INFO, 0x80000030)


def across_the_page(machine):
    machine.put(f.GPA, 0xFEC00FFE)


def other_instruction(machine):
    machine.place("or dword ptr [rdi], 1")


def code_to_the_next_page(machine):
    machine.place("mov eax, [rdi]", 0xFF8)


def beyond_4g(machine):
    machine.put(f.GPA, GPA + (1 << 32))


@pytest.mark.parametrize(
    "spoil",
    [
        not_present, outside, other_mode, in_delivery, across_the_page, other_instruction, code_to_the_next_page,
        beyond_4g,
    ],
)  # fmt: skip
@pytest.mark.parametrize("kept_before", [False, True])
def test_what_cannot_be_kept_goes_the_longer_way(machine, spoil, kept_before):
    machine.place("mov eax, [rdi]")
    if kept_before:
        assert machine.access() == 1
    machine.log.clear()
    spoil(machine)
    registers = bytes(machine.frame[:0x80])
    assert machine.access() == SLOW
    assert machine.log == []
    assert bytes(machine.frame[:0x80]) == registers


def test_a_site_is_never_half_of_an_old_one(machine):
    """A place that cannot be kept leaves nothing behind that would match the one before it in its slot."""
    machine.place("mov eax, [rdi]")
    assert machine.access() == 1
    machine.place("or dword ptr [rdi], 1")
    assert machine.access() == SLOW
    machine.place("mov eax, [rdi]")
    assert machine.access() == 1
    assert machine.log == [(0x10, 4)] * 2
