"""Exceptions that the monitor injects into a guest, one by one, for policies on INJECTION.

The entry fields have the exception already when its policies are asked, so that an answer drops or keeps it.
What a policy injects in answer to that causes no further event.
"""

from vmm.vtx import reasons
from vmm.vtx.frame import DATUM

_EVENT = 0x7FF  # of the information on an event: its type and vector


class Injections:
    """Of one VM."""

    def __init__(self, vm):
        self._vm = vm
        self._users = 0
        self._asks = False

    def change(self, count):
        """`count` more policies, or less, are asked about injected exceptions."""
        self._users += count
        for vcpu in self._vm.vcpus:
            vcpu.injections = self._ask if self._users else None

    def _ask(self, vcpu):
        if self._asks:
            return 0
        vcpu.scheduled.put(DATUM, vcpu.injecting() & _EVENT)
        self._asks = True
        try:
            return self._vm.exits.handler(reasons.INJECTION, vcpu)(vcpu)
        finally:
            self._asks = False
