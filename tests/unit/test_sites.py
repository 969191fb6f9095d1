"""vmm/emulation/sites.py: what is kept of an instruction serves it again only while nothing of it has changed."""

import struct

import pytest
import uctypes
from realcpu import assemble
from site_machine import CR3, GPA, PAGE, READ, RIP_GVA, SIZE, SLOW, WRITE, Machine

from vmm.emulation import sites
from vmm.verdict import ADVANCE, RESET
from vmm.vtx import frame as f


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
    for text, wanted in (
        ("mov [rdi], ah", (0x10, 1, 0x56)),
        ("mov dword ptr [rdi], 0xcafe", (0x10, 4, 0xCAFE)),
        ("mov qword ptr [rdi], -2", (0x10, 8, 2**64 - 2)),
    ):
        machine.place(text)
        machine.put(f.QUALIFICATION, WRITE)
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


def page_tables(machine):
    machine.put(f.QUALIFICATION, 0x81)


def fetch(machine):
    machine.put(f.QUALIFICATION, 0x184)


def breakpoints(machine):
    machine.put(f.DR7, 0x401)


def in_delivery(machine):
    machine.put(f.VECTORING_INFO, 0x80000030)


def across_the_page(machine):
    machine.put(f.GPA, 0xFEC00FFE)


def other_instruction(machine):
    machine.place("push qword ptr [rdi]")


def code_to_the_next_page(machine):
    machine.place("mov eax, [rdi + 0x10]", 0xFFE)


def beyond_4g(machine):
    machine.put(f.GPA, GPA + (1 << 32))


@pytest.mark.parametrize(
    "spoil",
    [
        not_present, outside, page_tables, fetch, breakpoints, in_delivery, across_the_page, other_instruction,
        code_to_the_next_page, beyond_4g,
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
    machine.place("push qword ptr [rdi]")
    assert machine.access() == SLOW
    machine.place("mov eax, [rdi]")
    assert machine.access() == 1
    assert machine.log == [(0x10, 4)] * 2


def test_what_the_device_asks_for(machine):
    machine.put(f.OUTCOME, ADVANCE | RESET)
    machine.place("mov [rdi], ecx")
    assert machine.access() == ADVANCE | RESET


def test_what_goes_the_longer_way_is_decoded_once(machine):
    machine.place("movups xmm0, [rdi]")
    for _ in range(3):
        assert machine.access() == SLOW
    assert machine.learnt == 1 and machine.slow == 3
    machine.place("mov eax, [rdi]")
    assert machine.access() == 1


MODIFY = [
    ("or dword ptr [rdi], 0x10", [(0x10, 4), (0x10, 4, 0x89ABCDFF)]),
    ("lock or byte ptr [rdi], al", [(0x10, 1), (0x10, 1, 0xFF)]),
    ("xchg [rdi], eax", [(0x10, 4), (0x10, 4, 0x12345678)]),
    ("lock cmpxchg [rdi], ecx", [(0x10, 4), (0x10, 4, 0x89ABCDEF)]),
    ("lock bts dword ptr [rdi], 4", [(0x10, 4), (0x10, 4, 0x89ABCDFF)]),
    ("not word ptr [rdi]", [(0x10, 2), (0x10, 2, 0x3210)]),
]


@pytest.mark.parametrize("text, wanted", MODIFY)
def test_read_modify_write(machine, text, wanted):
    machine.put(f.RAX, 0x12345678)
    code = machine.place(text)
    machine.put(f.QUALIFICATION, READ | WRITE)
    for _ in range(2):
        machine.put(f.RAX, 0x12345678)
        machine.log.clear()
        assert machine.access() == 1
        assert machine.log == wanted and machine.get(f.LENGTH) == len(code)
    assert machine.kept == machine.learnt == 1


def test_a_page_that_was_looked_at_for_a_read_only_is_not_written(machine):
    machine.place("or dword ptr [rdi], 1")
    assert machine.access() == SLOW and machine.log == []


def test_an_operand_that_begins_on_the_page_before(machine):
    """The exit names the second page, from its first byte on: the device's part is not all of the operand."""
    for text in ("mov eax, [rdi + 8]", "mov eax, [rdi + rsi * 4]", "xchg [rdi + 8], eax"):
        machine.place(text)
        machine.put(f.QUALIFICATION, READ | WRITE)
        machine.put(f.GPA, 0xFEC00000)
        machine.put(f.RSI, 2)
        for rdi, answer in ((0x5000FF8, 1), (0x5000FF6, SLOW), (0x5000FF8, 1)):
            machine.put(f.RDI, rdi)
            machine.log.clear()
            assert machine.access() == answer
            assert bool(machine.log) == (answer == 1)


def test_an_operand_without_registers_that_begins_on_the_page_before(machine):
    for text, first in (
        ("mov eax, [rip + %d]", 0x1000 - 0x26),  # the instruction ends at offset 26H of its page
        ("mov eax, dword ptr [%d]", 0x5000000),
        (".byte 0x8B, 0x0C, 0x25; .long %d", 0x5000000),  # mov ecx, [disp32]
        (".byte 0x87, 0x0C, 0x25; .long %d", 0x5000000),  # xchg [disp32], ecx
    ):
        for at, answer in ((first, 1), (first - 2, SLOW), (first, 1)):
            machine.place(text % at)
            machine.put(f.QUALIFICATION, READ | WRITE)
            machine.put(f.GPA, 0xFEC00000)
            machine.log.clear()
            assert machine.access() == answer
            assert bool(machine.log) == (answer == 1)


class Everywhere:
    """The handler for any page, with one device's page, nobody's and RAM."""

    def __init__(self, machine):
        self.machine = machine
        self.missed = []
        others = [(machine.sites.peek, machine.sites.poke), machine.sites.unclaimed(self.missed.append)]
        device = {GPA >> 12: (machine.read, machine.write)}
        self.handler = machine.sites.general({}, device, others, machine.otherwise)

    def access(self, text, gpa, qualification):
        machine = self.machine
        machine.place(text)
        machine.put(f.QUALIFICATION, qualification)
        machine.put(f.GPA, gpa)
        return self.handler(machine.frame)


def test_nobody_answers(machine):
    anywhere = Everywhere(machine)
    for text, wanted in (
        ("mov rcx, [rdi]", 2**64 - 1),
        ("mov ecx, [rdi]", 2**32 - 1),
        ("movzx ecx, byte ptr [rdi]", 0xFF),
    ):
        assert anywhere.access(text, 0xFED40010, READ) == 1
        assert machine.get(f.RCX) == wanted
    assert anywhere.access("lock or dword ptr [rdi], 1", 0xFED41010, READ | WRITE) == 1
    assert anywhere.missed == [0xFED40000] * 3 + [0xFED41000] * 2


def test_a_device_by_the_handler_for_any_page(machine):
    assert Everywhere(machine).access("mov eax, [rdi]", GPA, READ) == 1
    assert machine.log == [(0x10, 4)]


def test_watched_ram_is_accessed(machine):
    anywhere = Everywhere(machine)
    machine.ram[0x30010:0x30018] = bytes(range(1, 9))
    for size, register in ((1, "cl"), (2, "cx"), (4, "ecx"), (8, "rcx")):
        machine.put(f.RCX, 0)
        assert anywhere.access(f"mov {register}, [rdi]", 0x30010, READ) == 1
        assert machine.get(f.RCX).to_bytes(8, "little")[:size] == bytes(range(1, size + 1))
        machine.put(f.RCX, 0x1817161514131211)
        assert anywhere.access(f"mov [rdi], {register}", 0x30020, WRITE) == 1
        assert machine.ram[0x30020 : 0x30020 + size] == bytes(range(0x11, 0x11 + size))
    assert anywhere.access("inc dword ptr [rdi]", 0x30010, READ | WRITE) == 1
    assert machine.ram[0x30010:0x30014] == b"\x02\x02\x03\x04"
    assert machine.slow == 0


def test_ram_that_is_not_open(machine):
    """Where pages wait for their first touch, RAM is the slow handler's."""
    machine.sites = sites.Sites(uctypes.addressof(machine.ram), SIZE, False, machine.learn)
    anywhere = Everywhere(machine)
    assert anywhere.access("mov eax, [rdi]", 0x30010, READ) == SLOW
    assert anywhere.access("mov eax, [rdi]", SIZE + 0x10, READ) == 1


def test_length(machine):
    length = machine.sites.lengths()
    for text in ("mov eax, [rdi + 0x10]", "lock or dword ptr [rdi], 1"):
        code = machine.place(text)
        assert length(machine.frame) == len(code)
    machine.place("movups xmm0, [rdi]")
    assert length(machine.frame) == 0
    assert machine.log == []


def test_answers(machine):
    """A value in place of what is read, or written: in RAM and elsewhere."""
    stored = []
    answer = machine.sites.answers(lambda *store: stored.append(store))
    numbers = bytearray(struct.pack("<4I", 1, 0, 0xA3A2A1A0, 0xA7A6A5A4))  # port/value.c

    def access(text, gpa):
        machine.place(text)
        machine.put(f.QUALIFICATION, READ | WRITE)
        machine.put(f.GPA, gpa)
        return answer(machine.frame, uctypes.addressof(numbers), None)

    machine.put(f.RCX, 0)
    for register, wanted in (("cl", 0xA0), ("cx", 0xA1A0), ("ecx", 0xA3A2A1A0), ("rcx", 0xA7A6A5A4A3A2A1A0)):
        assert access(f"mov {register}, [rdi]", 0x30010) == 1
        assert machine.get(f.RCX) == wanted
        size = {"cl": 1, "cx": 2, "ecx": 4, "rcx": 8}[register]
        machine.ram[0x30010:0x30018] = bytes(8)
        assert access(f"mov [rdi], {register}", 0x30010) == 1
        assert machine.ram[0x30010:0x30018] == wanted.to_bytes(8, "little")
        assert access(f"mov [rdi], {register}", 0xFED40010) == 1
        assert stored.pop() == (0x10, size, wanted)
    assert access("movups xmm0, [rdi]", 0x30010) == -1
    struct.pack_into("<I", numbers, 0, 2)
    assert access("mov ecx, [rdi]", 0x30010) == -1
    assert machine.log == [] and machine.slow == 0
