"""The exit loop and its table: what happens when a guest comes back to the monitor.

`vmx.enter` runs the guest and answers with the handler of the exit (port/vcpu.c keeps
counts and times while it is there). The handler's verdict stays in the frame: bit 0 makes
the next entry advance RIP. See vmm/handlers/__init__.py for the table's contents.
"""

import micropython
from micropython import const

from vmm import reasons, verdict
from vmm.frame import COUNT, TICKS, WANTS

_VERDICT = const(0x100 // 4)
_LAST_LOOPING = const(1)  # RESUME, ADVANCE


@micropython.viper
def run(vcpu, enter) -> int:
    """Enter the guest until a handler gives a verdict beyond RESUME and ADVANCE; return it.

    enter: vmx.enter. A handler's exception passes through; the guest then stands at the
    instruction that exited.
    """
    f = ptr32(vcpu)  # noqa: F821
    while True:
        answer = int(enter(vcpu)(vcpu))
        f[_VERDICT] = answer
        if answer > _LAST_LOOPING:
            return answer


class Unhandled:
    """The handler of every reason that has none: dumps, and stops that guest."""

    def __init__(self, report):
        self._report = report

    def exit(self, vcpu):
        self._report(vcpu, "no handler for this exit")
        return verdict.STOP


class Exits:
    """A vCPU's dispatch table: table[reason](vcpu) -> verdict, and the words each needs."""

    def __init__(self, report):
        """report(vcpu, text): dump the guest's state for the user."""
        self.unhandled = Unhandled(report).exit
        self.table = [self.unhandled] * reasons.SLOTS
        self.wants = [0] * reasons.SLOTS
        self._taken = {}
        self._current = list(self.table)
        self._diversion = None

    def add(self, reason, handler, wants=0):
        """Set the handler of a reason; ValueError where there is one already."""
        if reason in self._taken:
            raise ValueError("exit reason %d has a handler already" % reason)
        self._taken[reason] = handler
        self.wants[reason] = wants
        self.put(reason, handler)

    def default(self, reason):
        """The handler that was added, whatever policy sits in front of it now."""
        return self._taken[reason] if reason in self._taken else self.unhandled

    def put(self, reason, handler):
        """Let `handler` stand in the table for a reason: a policy's hook, or default(reason)."""
        self._current[reason] = handler
        if self._diversion is None or self.table[reason] is not self._diversion:
            self.table[reason] = handler

    def handler(self, reason):
        """What put() named last."""
        return self._current[reason]

    def divert(self, handler, passing):
        """Until restore(), all reasons but those in `passing` go to `handler`."""
        self._diversion = handler
        table = [handler] * reasons.SLOTS
        for reason in passing:
            table[reason] = self._current[reason]
        self.table[:] = table  # in place: the shim holds the list's items

    def restore(self):
        self._diversion = None
        self.table[:] = self._current

    def arm(self, vcpu):
        """Write `wants` into the vCPU's frame."""
        _arm(vcpu, self.wants)


@micropython.viper
def _arm(vcpu, wants):
    f = ptr32(vcpu)  # noqa: F821
    for i in range(int(len(wants))):
        f[int(WANTS) + i] = int(wants[i])


@micropython.viper
def _word(vcpu, index: int) -> int:
    f = ptr32(vcpu)  # noqa: F821
    return f[index] | f[index + 1] << 32


def statistics(vcpu):
    """Return {reason name: (exits, host ticks)} of the reasons that occurred."""
    out = {}
    for reason, name in reasons.names().items():
        count = _word(vcpu, COUNT + 2 * reason)
        if count:
            out[name] = (count, _word(vcpu, TICKS + 2 * reason))
    return out
