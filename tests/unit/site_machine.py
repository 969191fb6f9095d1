"""A frame, RAM with page tables and a device for the tests of vmm/emulation/sites.py."""

import struct

import uctypes
from realcpu import assemble

from vmm.emulation import sites
from vmm.emulation.decode import DecodeError, Instruction
from vmm.emulation.fastops import encode
from vmm.vtx import frame as f

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
        remember = sites.remember

        def counted(*arguments):
            self.kept += 1
            return remember(*arguments)

        monkeypatch.setattr(sites, "remember", counted)
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
