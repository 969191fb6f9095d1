"""vmm/emulation/sites.py: what is kept of an instruction serves it again only while nothing of it has changed."""

import struct

import pytest
import uctypes
from realcpu import assemble

from vmm.emulation import site_paging, sites
from vmm.emulation.decode import DecodeError, Instruction
from vmm.emulation.fastops import encode
from vmm.memory.paging import Walker
from vmm.verdict import ADVANCE, RESET
from vmm.vtx import frame as f
from vmm.vtx.vmcs import GUEST_DS_BASE, GUEST_PDPTE0

SIZE = 1 << 20
CR3 = 0x1000
RIP_GVA = 0xFFFFFFFF81234000
PAGE = 0x8000  # where RIP_GVA's page lies
GPA = 0xFEC00010
LONG, CODE32, CODE16 = 0xA09B, 0xC09B, 0x009B  # access rights of CS
READ, WRITE = 0x181, 0x182  # qualifications
SLOW = 99
PG, PSE, PAE, LONG_MODE = 1 << 31, 1 << 4, 1 << 5, 1 << 9


class Vcpu(bytearray):
    """A frame, and the VMCS fields beyond it."""

    def __init__(self):
        super().__init__(0x1000)
        self.fields = {}
        self.paging = {f.CS_BASE: 0, f.CR0: PG, f.CR4: PAE, f.ENTRY_CONTROLS: LONG_MODE}

    def read(self, field):
        return self.fields.get(field, 0)

    def want(self, bits):
        assert bits == f.WANT_PAGING
        for word, value in self.paging.items():
            struct.pack_into("<Q", self, 4 * word, value)


class Machine:
    """RAM with page tables, a device's handler, a frame; how often an instruction was kept."""

    def __init__(self, monkeypatch):
        self.ram = bytearray(SIZE)
        for level, shift in enumerate((39, 30, 21, 12)):
            entry = PAGE | 0x27 if shift == 12 else 0x2000 + 0x1000 * level | 0x27
            struct.pack_into("<Q", self.ram, self.entry_at(level), entry)
        self.log = []
        self.frame = Vcpu()
        self.kept = self.learnt = self.slow = 0
        self.bits = 64
        self.value = 0x89ABCDEF
        remember = sites._remember

        def counted(*arguments):
            self.kept += 1
            return remember(*arguments)

        monkeypatch.setattr(sites, "_remember", counted)
        self.sites = sites.Sites(uctypes.addressof(self.ram), SIZE, True, self.learn)
        self.handler = self.sites.one_page(self.read, self.write, self.otherwise)
        self.put(f.GPA, GPA)
        self.put(f.CR3, CR3)
        self.put(f.CS_RIGHTS, LONG)
        self.put(f.OUTCOME, 1)

    @staticmethod
    def entry_at(level):
        return CR3 + 0x1000 * level + (RIP_GVA >> 39 - 9 * level & 511) * 8

    def put(self, word, value):
        struct.pack_into("<Q", self.frame, 4 * word, value)

    def get(self, word):
        return struct.unpack_from("<Q", self.frame, 4 * word)[0]

    def otherwise(self, vcpu):
        self.slow += 1
        return SLOW

    def learn(self, vcpu):
        self.learnt += 1
        try:
            instruction = Instruction().decode(self.code, self.bits)
        except DecodeError:
            return 0
        number, immediate, operand = encode(instruction)
        self.sites.told(immediate, operand)
        return number

    def read(self, offset, size):
        self.log.append((offset, size))
        return self.value

    def write(self, offset, size, value):
        self.log.append((offset, size, value))

    def place(self, text, offset=0x20):
        """The instruction, and RIP at it."""
        self.code = assemble(text, self.bits)
        self.ram[PAGE + offset : PAGE + offset + len(self.code)] = self.code
        self.put(f.RIP, RIP_GVA + offset)
        self.put(f.QUALIFICATION, READ)
        return self.code

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


# -- other modes


def in_32_bit(machine, text, rights=CODE32):
    """Code at 0x20 of linear page 0x5000000, which PAGE or its tables map."""
    machine.bits = 32 if rights == CODE32 else 16
    machine.put(f.CS_RIGHTS, rights)
    machine.place(text)
    machine.put(f.RIP, 0x5000020)


def no_paging(machine):
    machine.frame.paging.update({f.CR0: 0, f.CS_BASE: (PAGE - 0x5000000) & 0xFFFFFFFF})
    return PAGE + 0x20, None


def two_levels(machine):
    machine.frame.paging.update({f.CR4: 0, f.ENTRY_CONTROLS: 0})
    struct.pack_into("<I", machine.ram, CR3 + 4 * (0x5000000 >> 22), 0x3007)
    struct.pack_into("<I", machine.ram, 0x3000 + 4 * (0x5000000 >> 12 & 1023), PAGE | 7)
    return CR3 + 4 * (0x5000000 >> 22), 0x3000 + 4 * (0x5000000 >> 12 & 1023)


def three_levels(machine):
    machine.frame.paging.update({f.CR4: PAE, f.ENTRY_CONTROLS: 0})
    machine.frame.fields[GUEST_PDPTE0] = 0x3001
    struct.pack_into("<Q", machine.ram, 0x3000 + 8 * (0x5000000 >> 21), 0x4007)
    struct.pack_into("<Q", machine.ram, 0x4000 + 8 * (0x5000000 >> 12 & 511), PAGE | 7)
    return 0x3000 + 8 * (0x5000000 >> 21), 0x4000 + 8 * (0x5000000 >> 12 & 511)


def compatibility(machine):
    machine.frame.paging.update({f.CR4: PAE, f.ENTRY_CONTROLS: LONG_MODE})
    struct.pack_into("<Q", machine.ram, CR3, 0x12007)
    struct.pack_into("<Q", machine.ram, 0x12000, 0x3007)
    struct.pack_into("<Q", machine.ram, 0x3000 + 8 * (0x5000000 >> 21), 0x4007)
    struct.pack_into("<Q", machine.ram, 0x4000 + 8 * (0x5000000 >> 12 & 511), PAGE | 7)
    return CR3, 0x4000 + 8 * (0x5000000 >> 12 & 511)


MODES = [no_paging, two_levels, three_levels, compatibility]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "rights, text", [(CODE32, "mov ecx, [edi]"), (CODE16, "mov ecx, [bx]"), (CODE16, "or cx, [di]")]
)
def test_other_modes(machine, mode, rights, text):
    mode(machine)
    in_32_bit(machine, text, rights)
    for _ in range(3):
        machine.put(f.RCX, 0)
        assert machine.access() == 1
        assert machine.get(f.RCX) & 0xFFFF == 0xCDEF
    assert machine.kept == 1 and machine.slow == 0


@pytest.mark.parametrize("mode", [two_levels, three_levels, compatibility])
@pytest.mark.parametrize("which", [0, 1])
def test_other_modes_see_changed_tables(machine, mode, which):
    at = mode(machine)[which]
    in_32_bit(machine, "mov ecx, [edi]")
    assert machine.access() == 1
    machine.ram[at] &= 0xFE
    assert machine.access() == SLOW


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", [{f.CR0: 0}, {f.CR4: PSE}, {f.CS_BASE: 0x1000}])
def test_other_modes_see_what_the_mode_is(machine, mode, change):
    """Where the same RIP leads somewhere else, nothing is executed by what was kept."""
    mode(machine)
    in_32_bit(machine, "mov ecx, [edi]")
    assert machine.access() == 1
    kept = machine.kept
    before = dict(machine.frame.paging)
    machine.frame.paging.update(change)
    if machine.frame.paging != before and not (mode is no_paging and f.CS_BASE not in change):
        machine.access()
        assert machine.kept == kept + 1


def test_the_pdpte_is_the_registers(machine):
    three_levels(machine)
    in_32_bit(machine, "mov ecx, [edi]")
    assert machine.access() == 1
    machine.frame.fields[GUEST_PDPTE0] = 0
    assert machine.access() == SLOW


def test_a_segment_that_does_not_begin_at_0(machine):
    """The operand's place in its page goes by the segment's base."""
    no_paging(machine)
    in_32_bit(machine, "mov ecx, [edi]")
    machine.put(f.GPA, 0xFEC00000)
    machine.put(f.RDI, 0x5000FFE)
    assert machine.access() == SLOW
    machine.frame.fields[GUEST_DS_BASE] = 2
    assert machine.access() == 1


@pytest.mark.parametrize("mode, levels", [(32, (22, 12)), (36, (21, 12)), (48, (39, 30, 21, 12))])
@pytest.mark.parametrize("large", [0, 1, 2, 3])
def test_as_the_walker_has_it(machine, mode, levels, large):
    """Large pages at each level, and where the tables end."""

    class Ram:
        def read_u32(self, gpa):
            return struct.unpack_from("<I", machine.ram, gpa)[0]

        def write_u8(self, gpa, value):
            machine.ram[gpa] = value

    if large >= len(levels):
        return
    shift = levels[large]
    linear = RIP_GVA + 0x123 if mode == 48 else 0x5034123
    form, width = ("<I", 1023) if mode == 32 else ("<Q", 511)
    table = CR3 if mode != 36 else 0x2000
    for level, at in enumerate(levels):
        entry = table + 0x1000 | 7 if level < large else 0xE7 if shift > 12 else PAGE | 7
        struct.pack_into(form, machine.ram, table + (linear >> at & width) * struct.calcsize(form), entry)
        table += 0x1000
    walker = Walker(Ram())
    cr4 = {32: PSE, 36: PAE, 48: PAE}[mode]
    walker.load(0x80000001, CR3, cr4, 0xD00 if mode == 48 else 0, [0x2001] * 4 if mode == 36 else None)
    want = walker.translate(linear, 0)
    site = bytearray(1024)
    table = 0x2000 if mode == 36 else CR3
    kind = site_paging.PAGING_32_PSE if mode == 32 else mode
    got = site_paging.walk(machine.sites.words, uctypes.addressof(site), table, linear, kind)
    assert got == (want if want >= 0 else -1)


# -- any page


class Everywhere:
    """The handler for any page, with one device's page, nobody's and RAM."""

    def __init__(self, machine):
        self.machine = machine
        self.missed = []
        others = [(machine.sites.peek, machine.sites.poke), machine.sites.nobody(self.missed.append)]
        self.handler = machine.sites.general({GPA >> 12: (machine.read, machine.write)}, others, machine.otherwise)

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
