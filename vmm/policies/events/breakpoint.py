"""Hidden breakpoints (vmm/debug/hidden.py) as an event: for parts of the monitor, and the base of CALL and RETURN."""

from vmm.emulation import length
from vmm.fault import BP
from vmm.policies.event import Event, Needs
from vmm.vtx import reasons


class Breakpoint(Event):
    """gpa: the breakpoint's place. paged: it was found through the guest's page tables."""

    name = "breakpoint"
    text = "a hidden breakpoint: RIP is the instruction's, which has not been executed. HANDLED skips it. No value"
    reasons = (reasons.EXCEPTION_OR_NMI,)
    plain = False
    gpa = None
    paged = False
    tells = False

    def at(self, gpa, paged=False):
        """The same event at a place."""
        placed = type(self)()
        placed.gpa = gpa
        placed.paged = paged
        return placed

    def chains(self, vm):
        return [vm.hidden.at(self.gpa)]

    def needs(self, chosen):
        return Needs(exceptions=1 << BP)

    def skip(self, vcpu):
        return length.skip(vcpu)


BREAKPOINT = Breakpoint()
