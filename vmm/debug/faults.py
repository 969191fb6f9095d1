"""A record of a guest's last exceptions: vm.record_faults().

Each exception exits and is delivered by the monitor, which costs some 3,000 ticks; the guest sees no difference.
Interrupts are not recorded.
"""

from vmm.debug.names import vector_name
from vmm.fault import PF
from vmm.insight.table import Table
from vmm.policies.events.exception import EXCEPTION
from vmm.vtx.events import ERROR_CODE, VALID


class FaultRecord:
    """stop() ends it. list(record): tuples (guest's microseconds, vCPU, rip, vector, error or None, address of #PF or
    None, the vector whose delivery it interrupted or None)."""

    def __init__(self, vm, most):
        if not isinstance(most, int) or not 1 <= most <= 10000:
            raise ValueError("record_faults: %r: a number from 1 to 10000" % (most,))
        self._vm = vm
        self._most = most
        self._kept = []
        self.count = 0
        self._policy = vm.on(EXCEPTION)(self._record)

    def _record(self, vcpu):
        info, first = vcpu.intr_info, vcpu.vectoring_info
        vector = info & 0xFF
        clock = vcpu.clock
        self.count += 1
        self._kept.append((
            clock.now() * 1000000 // clock.hz, vcpu.number, vcpu.rip, vector,
            vcpu.intr_error if info & ERROR_CODE else None, vcpu.qualification if vector == PF else None,
            first & 0xFF if first & VALID else None,
        ))  # fmt: skip
        if len(self._kept) > self._most:
            del self._kept[0]

    def stop(self):
        """Record no more; what was recorded stays."""
        self._policy.detach()

    def __iter__(self):
        return iter(list(self._kept))

    def __len__(self):
        return len(self._kept)

    def __repr__(self):
        from vmm.debug.machine import namer

        behind = namer(self._vm)
        rows = [
            (us, cpu, vector_name(vector, error), "%#x%s" % (rip, behind(rip)),
             "" if address is None else "%#x" % address, "" if during is None else vector_name(during))
            for us, cpu, rip, vector, error, address, during in self._kept
        ]  # fmt: skip
        title = "%d exceptions, the last %d:" % (self.count, len(rows))
        return "%s\n%r" % (title, Table(("US", "VCPU", "EXCEPTION", "RIP", "CR2", "DURING"), rows))
