"""vm.exits at the prompt: the dispatch tables, and where the exits' time goes.

    vm.exits.top()          which exits cost how much
    vm.exits.trace(20)      the last exits
    vm.exits.measure(False), vm.exits.record(0)   stop that

Nothing of this is imported or takes memory before its first use. docs/tracing.md.
"""

from vmm.vtx import exits

_RING = 1024  # records, where nothing else is said


class Exits(exits.Exits):
    """vmm.vtx.exits.Exits with the tables that users ask for."""

    _recording = None

    @property
    def recording(self):
        """The Recording that writes records and measures (vmm/vtx/recording.py)."""
        if self._recording is None:
            from vmm.vtx.recording import Recording

            vm = self._vcpus[0].vm
            self._recording = Recording(self._vcpus, vm.take, vm.give)
        return self._recording

    def measure(self, on=True):
        """Begin or stop measuring how long exits take. It costs each exit some 30 ticks."""
        self.recording.measure(on)

    def record(self, size=_RING):
        """Keep the last `size` exits of each vCPU, rounded up to a power of two; 0 stops that.

        It costs each exit some 45 ticks.
        """
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError("record(%r): how many exits are kept, or 0" % (size,))
        rounded = 64 if size else 0
        while rounded < size:
            rounded *= 2
        self.recording.rings(rounded)

    def top(self, most=None):
        """A table of what exits cost, by reason, handler and policy: count, ticks, share, median, 99 %, maximum.

        The first call begins to measure, and shows counts and sums since the guest was created. most: rows.
        """
        from vmm.insight.exits import top

        if most is not None and not (isinstance(most, int) and most > 0):
            raise ValueError("top(%r): how many rows" % (most,))
        if self.recording.measures:
            return top.measured(self, most)
        self.measure()
        return top.counted(self, most)

    def trace(self, count=20, reason=None):
        """The last `count` exits, oldest first, as records: time, vcpu, rip, symbol, reason, detail, verdict, ticks.

        reason: only those of one ("CPUID", 10) or of several in a list. The first call begins to record.
        """
        from vmm.insight.exits import records

        if not isinstance(count, int) or count < 1:
            raise ValueError("trace(%r): how many of the last exits" % (count,))
        numbers = records.numbers(reason)
        if not self.recording.size:
            self.record(max(count, _RING))
        return records.last(self, count, numbers)

    def gave_back(self, slot, reason):
        """Add what a policy's slot has measured to its reason: the slot may serve another one from now on."""
        if self._recording is not None and self._recording.measures:
            from vmm.insight.exits import top

            for vcpu in self._vcpus:
                top.merge(self._recording, vcpu, slot, reason)
