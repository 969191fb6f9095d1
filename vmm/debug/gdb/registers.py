"""A vCPU's registers as gdb has them: the rows of the target description (description.py), read and written.

Numbers and layout are those of a 64-bit CPU whatever mode it is in, since gdb cannot change them in a session; register
`mode` says 16, 32 or 64. `rip` is linear, CS base and RIP, so that breakpoints and disassembly are right in real mode;
`ip` is RIP itself. Values are little-endian bytes. Source: GDB manual, "i386 Features"; SDM Vol. 1, "Legacy Region of
an XSAVE Area".
"""

import struct

import cpu
from micropython import const

from vmm.devices.lapic_registers import TPR
from vmm.loaders.state import SEGMENTS
from vmm.vtx import vmcs as v
from vmm.vtx.x86 import CR0_PE, IA32_KERNEL_GS_BASE, MASK64, RFLAGS_FIXED, RFLAGS_VM, XSTATE_BV

_AVX = const(2)  # component of the XSAVE area, and its bit
_FCW = const(0x37F)

GENERAL = const(24)  # the first rows: those of a `g` packet

_GPRS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp") + tuple(["r%d" % i for i in range(8, 16)])
_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
# x87 control registers: offset in the FXSAVE image, and bytes there; the tag word is computed.
_X87 = (
    ("fctrl", 0, 2), ("fstat", 2, 2), ("ftag", 4, 1), ("fiseg", 12, 2), ("fioff", 8, 4), ("foseg", 20, 2),
    ("fooff", 16, 4), ("fop", 6, 2),
)  # fmt: skip
_CONTROL = ("cr0", "cr2", "cr3", "cr4")
_TABLES = (
    ("gdtr_base", v.GUEST_GDTR_BASE, 64), ("gdtr_limit", v.GUEST_GDTR_LIMIT, 32),
    ("idtr_base", v.GUEST_IDTR_BASE, 64), ("idtr_limit", v.GUEST_IDTR_LIMIT, 32),
)  # fmt: skip


class Row:
    """One register. bits: its width; type, group: as the description says; read(vcpu) -> int or bytes;
    write(vcpu, int) or None."""

    def __init__(self, name, bits, type, group, read, write=None):
        self.name = name
        self.bits = bits
        self.type = type
        self.group = group
        self._read = read
        self._write = write

    def read(self, vcpu):
        """Its bytes."""
        return _bytes(self._read(vcpu), self.bits >> 3)

    def write(self, vcpu, data):
        """ValueError where it cannot be set to that."""
        if len(data) != self.bits >> 3:
            raise ValueError("%s has %d bytes, not %d" % (self.name, self.bits >> 3, len(data)))
        if self._write is None:
            if data != self.read(vcpu):
                raise ValueError("%s cannot be written" % self.name)
        else:
            self._write(vcpu, int.from_bytes(data, "little"))


def _bytes(value, size):
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _attribute(name):
    return lambda vcpu: getattr(vcpu, name), lambda vcpu, value: setattr(vcpu, name, value)


def code_base(vcpu):
    """The base of CS, which is added to RIP for a linear address; 0 in 64-bit code."""
    return 0 if vcpu.bits == 64 else vcpu.cs[1]


def _rip(vcpu):
    base = code_base(vcpu)
    return vcpu.rip + base & (MASK64 if vcpu.bits == 64 else 0xFFFFFFFF)


def _set_rip(vcpu, value):
    if value != _rip(vcpu):
        vcpu.rip = value - code_base(vcpu) & (MASK64 if vcpu.bits == 64 else 0xFFFFFFFF)


pc = _rip  # of a vCPU, linear


def _set_rflags(vcpu, value):
    vcpu.rflags = vcpu.rflags & ~0xFFFFFFFF | value & 0x3F7FD5 | RFLAGS_FIXED


def _selector(name):
    def write(vcpu, value):
        selector, base, limit, rights = vcpu.segment(name)
        if value == selector:
            return
        if vcpu.cr0 & CR0_PE and not vcpu.rflags & RFLAGS_VM:
            raise ValueError("%s cannot be loaded in protected mode" % name)
        vcpu.set_segment(name, value & 0xFFFF, (value & 0xFFFF) << 4, limit, rights)

    return lambda vcpu: vcpu.segment(name)[0], write


def _area(vcpu, component):
    """The XSAVE area with one component in use: where it was not, with its initial values. Writing there is allowed."""
    area = vcpu.fpu()
    if not area[XSTATE_BV] >> component & 1:
        start, size = ((0, 160), (160, 256))[component] if component < _AVX else (_avx(), 256)
        for i in range(size):
            if component or not 24 <= i < 32:
                area[start + i] = 0
        if component == 0:
            struct.pack_into("<H", area, 0, _FCW)
        area[XSTATE_BV] |= 1 << component
    return area


def _avx():
    return cpu.cpuid(0xD, _AVX)[1]


def _at(component, offset, size):
    """Bytes of the XSAVE area; offset: of it, or for AVX of the component."""

    def place(vcpu):
        area = _area(vcpu, component)
        return area, offset + (_avx() if component == _AVX else 0)

    def read(vcpu):
        area, at = place(vcpu)
        return int.from_bytes(bytes(area[at : at + size]), "little")

    def write(vcpu, value):
        area, at = place(vcpu)
        area[at : at + size] = _bytes(value, size)

    return read, write


def _tags(vcpu):
    """The tag word: 3 for an empty register, 1 for zero, else 0."""
    area = _area(vcpu, 0)
    top = area[3] >> 3 & 7
    word = 0
    for register in range(8):
        tag = 3
        if area[4] >> register & 1:
            at = 32 + 16 * ((register - top) & 7)
            tag = 0 if any(area[at : at + 10]) else 1
        word |= tag << 2 * register
    return word


def _set_tags(vcpu, value):
    _area(vcpu, 0)[4] = sum([1 << i for i in range(8) if value >> 2 * i & 3 != 3])


def _field(field):
    return lambda vcpu: vcpu.read(field), lambda vcpu, value: vcpu.write(field, value)


def _control(name):
    read, write = _attribute(name)

    def change(vcpu, value):
        if value != read(vcpu):
            write(vcpu, value)
            vcpu.flush()

    return read, change


def _debug(number):
    def read(vcpu):
        return vcpu.dr7 if number == 7 else vcpu.debug()[min(number, 4)]

    return read


def _segment(name, index):
    return lambda vcpu: vcpu.segment(name)[index]


def make(xsave):
    """The rows in the order of their numbers. xsave: XCR0 of the machine, which says whether there is AVX."""
    rows = []

    def add(name, bits, type, access, group=None):
        rows.append(Row(name, bits, type, group, *access))

    for name in _GPRS:
        add(name, 64, "data_ptr" if name in ("rbp", "rsp") else "int64", _attribute(name))
    add("rip", 64, "code_ptr", (_rip, _set_rip))
    add("eflags", 32, "i386_eflags", (lambda vcpu: vcpu.rflags, _set_rflags))
    for name in _SELECTORS:
        add(name, 32, "int32", _selector(name))
    for i in range(8):
        add("st%d" % i, 80, "i387_ext", _at(0, 32 + 16 * i, 10))
    for name, offset, size in _X87:
        add(name, 32, "int", (_tags, _set_tags) if name == "ftag" else _at(0, offset, size), "float")
    for i in range(16):
        add("xmm%d" % i, 128, "vec128", _at(1, 160 + 16 * i, 16))
    add("mxcsr", 32, "i386_mxcsr", _at(0, 24, 4), "vector")
    if xsave >> _AVX & 1:
        for i in range(16):
            add("ymm%dh" % i, 128, "uint128", _at(_AVX, 16 * i, 16))
    add("fs_base", 64, "int", _field(v.GUEST_FS_BASE))
    add("gs_base", 64, "int", _field(v.GUEST_GS_BASE))
    _system(lambda name, bits, type, access: add(name, bits, type, access, "system"))
    return rows


def _system(add):
    """Registers that gdb does not know."""
    add("k_gs_base", 64, "int64", (
        lambda vcpu: vcpu.msr(IA32_KERNEL_GS_BASE), lambda vcpu, value: vcpu.msr(IA32_KERNEL_GS_BASE, value),
    ))  # fmt: skip
    for name in _CONTROL:
        add(name, 64, "cr0" if name == "cr0" else "cr4" if name == "cr4" else "int64", _control(name))
    add("cr8", 64, "int64", (_cr8,))
    add("efer", 64, "efer", _control("efer"))
    add("xcr0", 64, "int64", (lambda vcpu: vcpu.xcr0,))
    for number in (0, 1, 2, 3, 6, 7):
        add("dr%d" % number, 64, "int64", (_debug(number),))
    for name in SEGMENTS:
        if name in ("ldtr", "tr"):
            add(name, 32, "int32", (_segment(name, 0),))
        if name not in ("fs", "gs"):
            add(name + "_base", 64, "int64", (_segment(name, 1),))
        add(name + "_limit", 32, "int32", (_segment(name, 2),))
        add(name + "_rights", 32, "int32", (_segment(name, 3),))
    for name, field, bits in _TABLES:
        add(name, bits, "int%d" % bits, _field(field))
    add("ip", 64, "int64", _attribute("rip"))
    add("cpl", 32, "int32", (lambda vcpu: vcpu.cpl,))
    add("mode", 32, "int32", (lambda vcpu: vcpu.bits,))


def _cr8(vcpu):
    return vcpu.lapic.get(TPR) >> 4
