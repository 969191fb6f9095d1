"""The ends of a run of the guest: a triple fault, and a reset that the guest requests.

They have slots of their own, but no exit reason: vmm/life.py calls the policies before it does what the guest's file
says.
"""

from vmm import verdict
from vmm.policies.event import Event
from vmm.vtx import reasons


class TripleFault(Event):
    """HANDLED and RETRY let the guest go on from the registers that the policy leaves."""

    name = "triple_fault"
    text = (
        "the guest has shut down, its registers are those before the instruction. HANDLED: it goes on with those that "
        'the policy has set. No value. SDM Vol. 3C, "Other Causes of VM Exits"'
    )
    reasons = (reasons.SHUTDOWN,)
    plain = False

    def skip(self, vcpu):
        return verdict.RESUME


class Reset(Event):
    name = "reset"
    text = (
        "the guest resets itself, by ports 64H, 92H or CF9H or by an INIT of its first processor. HANDLED, or PAUSED "
        'and resume(): it goes on without. No value. SDM Vol. 3A, "Processor State After Reset"'
    )
    reasons = (reasons.RESET_REQUEST,)
    plain = False
    repeats = False

    def skip(self, vcpu):
        return verdict.RESUME


TRIPLE_FAULT = TripleFault()
RESET = Reset()
