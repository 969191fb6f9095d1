"""PAUSE."""

from vmm.policies.event import Event, Needs
from vmm.vtx import reasons


class Pause(Event):
    """Without an answer the vCPU yields to others."""

    name = "pause"
    text = 'an instruction PAUSE. No value. SDM Vol. 2B, "PAUSE"; Vol. 3C, "PAUSE exiting"'
    reasons = (reasons.PAUSE,)

    def needs(self, chosen):
        return Needs(primary=("PAUSE_EXITING",))


PAUSE = Pause()
