"""HLT."""

from vmm.policies.event import Event
from vmm.vtx import reasons


class Hlt(Event):
    """Without a policy, or with DEFAULT, the guest waits for an event; HANDLED and SKIP advance past it at once."""

    name = "hlt"
    text = 'an instruction HLT. No value. SDM Vol. 2A, "HLT"'
    reasons = (reasons.HLT,)


HLT = Hlt()
