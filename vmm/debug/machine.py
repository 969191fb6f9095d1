"""The state and tables of a vCPU that the CPU reads while it delivers an event: read without effects, to explain it.

Names of addresses are put in later: place() writes an address as a mark that named() replaces, since a text may be
made at a moment at which no symbols are loaded. Source: SDM Vol. 3A, "Interrupt Descriptor Table (IDT)", "Segment
Descriptors", "Task-State Segment (TSS)".
"""

import struct

from micropython import const

from vmm.debug import pagewalk
from vmm.memory import look
from vmm.memory.paging import WRITE
from vmm.vtx import segments
from vmm.vtx.segments import TI
from vmm.vtx.vmcs import GUEST_GDTR_BASE, GUEST_GDTR_LIMIT, GUEST_IDTR_BASE, GUEST_IDTR_LIMIT
from vmm.vtx.vmcs_bits import RIGHTS_CODE, RIGHTS_DPL_SHIFT, RIGHTS_P, RIGHTS_S, RIGHTS_UNUSABLE
from vmm.vtx.x86 import CR0_PE, MASK64, PAGE, RFLAGS_VM

TSS_RSP0 = const(0x04)
TSS_IST = const(0x1C)  # IST1 is at 0x24
TSS_ESP0 = const(0x04)


class Unreadable(ValueError):
    """A gva that the CPU itself cannot read: `walk` is the PageWalk that says why."""

    def __init__(self, walk):
        super().__init__("gva %#x: %s" % (walk.gva, walk.why))
        self.walk = walk


class Gate:
    """A gate of the IDT: selector, offset, type, dpl, present, ist."""

    def __init__(self, data, long, protected):
        self.raw = int.from_bytes(data, "little")
        self.ist = 0
        if not protected:
            self.offset, self.selector = struct.unpack("<HH", data)
            self.type, self.dpl, self.present = 14, 0, True
            return
        low, self.selector, rights, high = struct.unpack("<HHHH", data[:8])
        self.offset = low | high << 16
        self.type = rights >> 8 & 0x1F
        self.dpl = rights >> 13 & 3
        self.present = bool(rights & 1 << 15)
        if long:
            self.offset |= struct.unpack("<I", data[8:12])[0] << 32
            self.ist = rights & 7
        elif self.type in (6, 7):
            self.offset &= 0xFFFF


class Segment:
    """A descriptor: base, limit in bytes, rights in VMCS format."""

    def __init__(self, low, high, upper):
        self.raw = low | high << 32
        self.base, self.limit, self.rights = segments.fields(low, high)
        self.wide = upper is not None
        if self.wide:
            self.base |= upper << 32
        self.dpl = self.rights >> RIGHTS_DPL_SHIFT & 3
        self.present = bool(self.rights & RIGHTS_P)
        self.system = not self.rights & RIGHTS_S
        self.code = not self.system and bool(self.rights & RIGHTS_CODE)


class Machine:
    """The present state of a vCPU. behind(gva): the name of an address, where it is known already."""

    def __init__(self, vcpu, behind=None):
        self.vcpu = vcpu
        self._behind = behind
        self.vm = vcpu.vm
        self.memory = vcpu.vm.memory
        self.mode = pagewalk.mode_of(vcpu)
        self.protected = bool(vcpu.cr0 & CR0_PE)
        self.v8086 = bool(vcpu.rflags & RFLAGS_VM)
        self.long = self.mode.long
        self.cpl = vcpu.cpl if self.protected else 0
        self.idt_base, self.idt_limit = vcpu.read(GUEST_IDTR_BASE), vcpu.read(GUEST_IDTR_LIMIT)
        self.gdt_base, self.gdt_limit = vcpu.read(GUEST_GDTR_BASE), vcpu.read(GUEST_GDTR_LIMIT)
        self.gate_size = 16 if self.long else 8 if self.protected else 4

    # -- memory

    def walk(self, gva, access=0, cpl=0):
        """The PageWalk of a gva (vmm/debug/pagewalk.py)."""
        return pagewalk.walk(self.memory, self.mode, gva, access, cpl)

    def read(self, gva, size):
        """Bytes, as the CPU itself reads them (at CPL 0); Unreadable."""
        out = b""
        while size:
            done = self.walk(gva)
            piece = min(size, PAGE - (gva & PAGE - 1))
            if done.why:
                raise Unreadable(done)
            out += self.memory.read(done.gpa, piece)
            gva = gva + piece & MASK64
            size -= piece
        return out

    def look(self, gva, size):
        """Bytes without regard to the pages' rights: a program's, too. ValueError."""
        return look.holding(self.vcpu, gva).read(gva, size)

    def number(self, gva, size):
        """An unsigned number of `size` bytes, as read(); Unreadable."""
        return int.from_bytes(self.read(gva, size), "little")

    # -- tables

    def gate(self, vector):
        """The Gate of a vector, which is within the limit; Unreadable."""
        data = self.read(self.idt_base + vector * self.gate_size & MASK64, self.gate_size)
        return Gate(data, self.long, self.protected)

    def selector(self, name):
        """The selector of a segment register, "cs" say."""
        return self.vcpu.segment(name)[0]

    def descriptor(self, gva, offset=0):
        """The Segment at gva; Unreadable. One of a system segment has 16 bytes in IA-32e mode."""
        low, high = struct.unpack("<II", self.read(gva, 8))
        wide = self.long and not high & 1 << 12 and (low | high)
        upper = None
        if wide:
            upper = self.number(gva + 8, 4)
        return Segment(low, high, upper)

    def table(self, selector):
        """(name, base, limit) of the table that a selector refers to; limit -1: there is none."""
        if not selector & TI:
            return "GDT", self.gdt_base, self.gdt_limit
        _, base, limit, rights = self.vcpu.segment("ldtr")
        return "LDT", base, -1 if rights & RIGHTS_UNUSABLE else limit

    # -- words

    def place(self, gva):
        """An address and its name, or a mark that named() replaces by them."""
        gva &= MASK64
        return "\x01%x\x02" % gva if self._behind is None else "%#x%s" % (gva, self._behind(gva))

    def stack_note(self, sp):
        """Whether the 8 bytes below a stack pointer can be written."""
        done = self.walk(sp - 8 & MASK64, WRITE)
        return "cannot be written: %s" % done.why if done.why else ""


def namer(vm):
    """behind(gva) -> " name+offset" or "": symbols are read now, where the guest has any."""
    try:
        vm.symbols.around(0)
    except ValueError:
        pass
    return vm.name_of


def named(text, behind):
    """The text with a name behind each place(). behind(gva): as VM.name_of()."""
    parts = text.split("\x01")
    out = parts[0]
    for part in parts[1:]:
        digits, _, rest = part.partition("\x02")
        gva = int(digits, 16)
        out += "%#x%s%s" % (gva, behind(gva), rest)
    return out
