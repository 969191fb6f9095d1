"""Reads and writes of bytes of RAM, by address or symbol: MEMORY to the byte, with the value before and after."""

import micropython
from micropython import const

from vmm.memory.ept import R, W
from vmm.policies.event import Needs
from vmm.policies.events.memory import KEYS, Memory
from vmm.policies.filters import Number, Place
from vmm.policies.link import differs, within
from vmm.vtx.frame import GPA, QUALIFICATION
from vmm.vtx.x86 import MASK64, PAGE

_WIDEST = const(64)  # bytes of an operand
_MOST = const(1 << 20)  # bytes of one policy


class Watch(Memory):
    """Base of READ and WRITE. pieces: [(gpa, bytes), ...] of this VM, set by of(). access: R or W."""

    access = 0
    pieces = ()
    filters = (
        Place("at", "the first byte: its address, or a symbol"),
        Number("size", _MOST, "bytes, 1 by default", low=1),
        Number("gpa", (1 << 52) - 1, "the first byte by its guest-physical address, in place of at="),
        Number("cr3", MASK64, "of the process in whose memory it is"),
    )

    def check(self, chosen):
        super(Memory, self).check(chosen)
        check_place(self, chosen)

    def of(self, vm, chosen):
        placed = type(self)()
        placed.pieces, placed.paged = pieces_of(vm, chosen)
        for gpa, size in placed.pieces:
            if not vm.memory.has(gpa, size):
                raise ValueError("gpa %#x: there is no RAM; MEMORY watches devices" % gpa)
        return placed

    def _pages(self):
        return [gpa >> 12 for gpa, _ in self.pieces]

    def tests(self, chosen):
        """The access begins in the range, or so little before it that it may reach into it."""
        first = min([gpa for gpa, _ in self.pieces] or [0])
        last = max([gpa + size for gpa, size in self.pieces] or [0])
        before = min(first, _WIDEST - 1)
        return [differs(QUALIFICATION, self.access), within(GPA, first - before, last - first + before)]

    def keys(self, chosen):
        pages = self._pages()
        return [page << 12 & 0xFFFFFFFF for page in pages] if len(pages) <= KEYS else None

    def needs(self, chosen):
        return Needs(pages=self._pages(), rights=self.access)

    def gate(self, vm):
        if not self.pieces:
            return None
        if len(self.pieces) == 1:
            gpa, size = self.pieces[0]
            return reaches, gpa, size, vm.mmio.size, self._decoded
        return anywhere, self._touches

    def _decoded(self, vcpu):
        """Whether an access whose size is not known at once reaches the bytes."""
        return int(self._touches(vcpu))

    def _touches(self, vcpu):
        size = vcpu.vm.mmio.operand_size(vcpu) or _WIDEST
        gpa = vcpu.gpa
        return any([gpa < first + count and first < gpa + size for first, count in self.pieces])


class Read(Watch):
    name = "read"
    text = (
        "bytes of RAM are read: vcpu.old is their value. Value(number): it is read instead. HANDLED: nothing is read. "
        'SDM Vol. 3C, "EPT Violations"'
    )
    access = R


class Write(Watch):
    name = "write"
    text = (
        "bytes of RAM are written: vcpu.old and vcpu.new are the operand before and after. Value(number): it is "
        'written instead. HANDLED: nothing is written. SDM Vol. 3C, "EPT Violations"'
    )
    access = W


def check_place(event, chosen):
    """ValueError unless at= or gpa= is there, and not both."""
    if ("at" in chosen) == ("gpa" in chosen):
        raise ValueError("a policy on %s names at= or gpa=, one of them" % event.name)
    if "cr3" in chosen and "gpa" in chosen:
        raise ValueError("cr3= goes with at=: a gpa is in no address space")


def pieces_of(vm, chosen, code=False):
    """([(gpa, bytes), ...] page by page, whether page tables led there) of at=, gpa=, size=, cr3=. code: to execute."""
    size = chosen.get("size", 1)
    if "gpa" in chosen:
        return _split(chosen["gpa"], size, lambda gpa: gpa), False
    from vmm.debug import where  # loaded on first use

    found = where.find(vm, chosen["at"], chosen.get("cr3"), chosen.get("pid"), code)
    return _split(found.gva, size, found.space.translate), found.paged


def _split(start, size, translate):
    pieces = []
    while size:
        piece = min(size, PAGE - (start & (PAGE - 1)))
        pieces.append((translate(start), piece))
        start += piece
        size -= piece
    return pieces


@micropython.viper
def reaches(gpa: int, count: int, size_of, decoded, link, below, vcpu) -> int:
    """Go on to `link` where the operand reaches into [gpa, gpa + count), else to `below`."""
    f = ptr32(vcpu)
    at = int(f[GPA]) | int(f[GPA + 1]) << 32
    if at < gpa:
        size = int(size_of(vcpu))
        if size == 0:
            if int(decoded(vcpu)) == 0:
                return int(below(vcpu))
        elif at + size <= gpa:
            return int(below(vcpu))
    return int(link(vcpu))


@micropython.viper
def anywhere(touches, link, below, vcpu) -> int:
    """The same for several pieces."""
    if touches(vcpu):
        return int(link(vcpu))
    return int(below(vcpu))


READ = Read()
WRITE = Write()
