"""vmm/emulation/fastmmio.py: a MOV on a device's register, found through the guest's page tables."""

import struct

import pytest
import uctypes
from realcpu import assemble

from vmm.emulation.fastmmio import MISS, FastMmio, code_at
from vmm.memory.paging import Walker
from vmm.verdict import ADVANCE, RESET
from vmm.vtx.frame import LENGTH, RAX, RIP, VECTORING_INFO
from vmm.vtx.vmcs import GUEST_CR3, GUEST_CS_ACCESS_RIGHTS

SIZE = 1 << 20
CR3 = 0x1000
RIP_GVA = 0xFFFFFFFF81234000
IO_APIC = 0xFEC00000


class Device:
    def __init__(self):
        self.log = []

    def read(self, offset, size):
        self.log.append((offset, size))
        return 0x89ABCDEF

    def write(self, offset, size, value):
        self.log.append((offset, size, value))


class Ports:
    outcome = ADVANCE


class Vcpu(bytearray):
    """A frame, and the two VMCS fields."""

    rights = 0xA09B

    def read(self, field):
        return {GUEST_CS_ACCESS_RIGHTS: self.rights, GUEST_CR3: CR3}[field]

    def words(self):
        return memoryview(self).cast("I")


class Machine:
    """RAM with page tables that map RIP_GVA's page to 0x8000, a device, a vCPU."""

    def __init__(self, text):
        self.ram = bytearray(SIZE)
        for level, shift in enumerate((39, 30, 21, 12)):
            last = shift == 12
            entry = 0x8000 | 1 << 63 | 0x27 if last else 0x2000 + 0x1000 * level | 0x27
            at = CR3 + 0x1000 * level + (RIP_GVA >> shift & 511) * 8
            struct.pack_into("<Q", self.ram, at, entry)
        self.code = assemble(text)
        self.device = Device()
        self.vcpu = Vcpu(0x1000)
        for n in range(16):
            struct.pack_into("<Q", self.vcpu, 8 * n, 0x1111111122222200 + n)
        self.place(RIP_GVA + 0x20)
        self.fast = FastMmio({IO_APIC >> 12: self.device}, uctypes.addressof(self.ram), SIZE, Ports())

    def place(self, rip):
        at = 0x8000 + (rip & 0xFFF)
        self.ram[at : at + len(self.code)] = self.code
        struct.pack_into("<Q", self.vcpu, 4 * RIP, rip)

    def access(self, gpa=IO_APIC + 0x10):
        return self.fast.access(self.vcpu, gpa)


def test_read():
    machine = Machine("mov r9d, [rdi + 0x10]")
    assert machine.access() == ADVANCE
    assert machine.device.log == [(0x10, 4)]
    assert struct.unpack_from("<Q", machine.vcpu, 4 * RAX + 72)[0] == 0x89ABCDEF
    assert machine.vcpu.words()[LENGTH] == len(machine.code)
    machine = Machine("movzx eax, byte ptr [rdi]")
    assert machine.access() == ADVANCE and struct.unpack_from("<Q", machine.vcpu)[0] == 0xEF


def test_write_and_what_the_device_asks():
    machine = Machine("mov [rdi], ecx")
    machine.fast._ports.outcome = ADVANCE | RESET
    assert machine.access() == ADVANCE | RESET
    assert machine.device.log == [(0x10, 4, 0x22222201)]


def spoil_device(machine):
    machine.fast.devices.clear()


def spoil_mode(machine):
    machine.vcpu.rights = 0xC09B


def spoil_vectoring(machine):
    machine.vcpu.words()[VECTORING_INFO] = 0x80000030


def spoil_place(machine):
    machine.place(RIP_GVA + 0xFF8)


def spoil_table(machine):
    struct.pack_into("<Q", machine.ram, CR3 + 511 * 8, SIZE | 0x27)


def spoil_present(machine):
    struct.pack_into("<Q", machine.ram, CR3 + 511 * 8, 0x2026)


@pytest.mark.parametrize("spoil", [spoil_device, spoil_mode, spoil_vectoring, spoil_place, spoil_table, spoil_present])
def test_misses_change_nothing(spoil):
    machine = Machine("mov eax, [rdi]")
    spoil(machine)
    before = bytes(machine.vcpu)
    assert machine.access() == MISS
    assert bytes(machine.vcpu) == before and not machine.device.log


@pytest.mark.parametrize("text", ["mov rax, [rdi]", "or dword ptr [rdi], 1", "push qword ptr [rdi]", "stosd"])
def test_other_instructions_miss(text):
    machine = Machine(text)
    assert machine.access() == MISS and not machine.device.log


def test_access_across_the_page_misses():
    assert Machine("mov eax, [rdi]").access(IO_APIC + 0xFFE) == MISS


@pytest.mark.parametrize("level, shift", [(0, 39), (1, 30), (2, 21), (3, 12)])
def test_large_pages_as_the_walker_has_them(level, shift):
    machine = Machine("nop")
    at = CR3 + 0x1000 * level + (RIP_GVA >> shift & 511) * 8
    struct.pack_into("<Q", machine.ram, at, 0xA7 if shift in (30, 21) else 0x90A7)

    class Ram:
        def read_u32(self, gpa):
            return struct.unpack_from("<I", machine.ram, gpa)[0]

        def write_u8(self, gpa, value):
            machine.ram[gpa] = value

    walker = Walker(Ram())
    walker.load(0x80000001, CR3, 0x20, 0xD00)
    ram = uctypes.addressof(machine.ram)
    for rip in (RIP_GVA + 0x20, (RIP_GVA & ~((1 << shift) - 1)) + 0x123):
        gpa = walker.translate(rip, 0)
        want = ram + gpa if 0 <= gpa <= SIZE - 15 else 0
        assert code_at(rip - (1 << 64), CR3, ram, SIZE) == want
