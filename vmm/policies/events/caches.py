"""WBINVD and INVD."""

from vmm.policies.event import Event, Needs
from vmm.vtx import reasons


class Wbinvd(Event):
    name = "wbinvd"
    text = 'an instruction WBINVD. No value. SDM Vol. 2D, "WBINVD"; Vol. 3C, "WBINVD exiting"'
    reasons = (reasons.WBINVD,)

    def needs(self, chosen):
        return Needs(secondary=("WBINVD_EXITING",))


class Invd(Event):
    """INVD always exits; its default is WBINVD's."""

    name = "invd"
    text = 'an instruction INVD. No value. SDM Vol. 2A, "INVD"'
    reasons = (reasons.INVD,)


WBINVD = Wbinvd()
INVD = Invd()
