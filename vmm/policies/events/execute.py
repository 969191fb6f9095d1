"""Instructions at an address, a symbol, or in a range of bytes, by hidden breakpoints (vmm/debug/hidden.py)."""

from micropython import const

from vmm.policies.events.breakpoint import Breakpoint
from vmm.policies.events.watch import check_place, pieces_of
from vmm.policies.filters import Number, Place
from vmm.vtx.x86 import MASK64

_MOST = const(1024)


class Execute(Breakpoint):
    """Each byte of a range has a breakpoint of its own: other code on the page runs at full speed."""

    name = "execute"
    text = (
        "an instruction that begins in the range is about to execute, RIP is its address. HANDLED skips it. No value. "
        'SDM Vol. 3C, "EPT Violations", and a hidden INT3'
    )
    filters = (
        Place("at", "the first byte: its address, or a symbol"),
        Number("size", _MOST, "bytes, 1 by default", low=1),
        Number("gpa", (1 << 52) - 1, "the first byte by its guest-physical address, in place of at="),
        Number("cr3", MASK64, "of the process in whose memory it is"),
    )
    tells = True
    pieces = ()

    def check(self, chosen):
        super().check(chosen)
        check_place(self, chosen)

    def of(self, vm, chosen):
        placed = type(self)()
        placed.pieces, placed.paged = pieces_of(vm, chosen, True)
        return placed

    def chains(self, vm):
        return [vm.hidden.at(gpa + i) for gpa, size in self.pieces for i in range(size)]


EXECUTE = Execute()
