"""Exceptions that the monitor injects into a guest, one by one, for policies on INJECTION.

The entry fields have the exception already when its policies are asked, so that an answer drops or keeps it.
What a policy injects in answer to that causes no further event.
"""

from vmm.vtx import reasons
from vmm.vtx.events import TYPE_VECTOR
from vmm.vtx.frame import DATUM


class Injections:
    """The caller of one VM's policies on INJECTION."""

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
        vcpu.scheduled.put(DATUM, vcpu.injecting() & TYPE_VECTOR)
        self._asks = True
        try:
            return self._vm.exits.handler(reasons.INJECTION, vcpu)(vcpu)
        finally:
            self._asks = False
