"""Where a guest spends its time, by function: RIP is sampled every so many ticks of the guest's clock.

    from vmm.recipes.profile import Profile
    p = Profile(vms['linux'], ticks=200000)    # before start(): the boot
    ...
    p                                          # the table; p.stop()

A sample is a policy's call, some 3,000 ticks; counts lie in a dict of at most MOST addresses. Symbols are looked up
when the table is made, so the profile can begin before the kernel has any.
"""

from micropython import const

from vmm.insight.table import Table
from vmm.policies.events.time import TIME

MOST = const(20000)
_ROWS = const(30)
_USER = const(1 << 47)


class Profile:
    """Samples of one VM. counts: {RIP: samples}; idle: samples at HLT; others: those beyond MOST addresses."""

    def __init__(self, vm, ticks=200000, **filters):
        """filters: of every event, such as cpl=0."""
        self.vm = vm
        self.ticks = ticks
        self.counts = {}
        self.idle = 0
        self.others = 0
        self._policy = vm.on(TIME, ticks=ticks, **filters)(self._sample)

    def _sample(self, vcpu):
        if vcpu.scheduled.state != "running":
            self.idle += 1
            return
        rip = vcpu.rip
        counts = self.counts
        if rip in counts:
            counts[rip] += 1
        elif len(counts) < MOST:
            counts[rip] = 1
        else:
            self.others += 1

    def stop(self):
        """Sample no longer; what was counted stays."""
        self._policy.detach()

    @property
    def samples(self):
        """How many there are, those at HLT among them."""
        return sum(self.counts.values()) + self.idle + self.others

    def functions(self):
        """{function: samples}. Addresses of programs are one entry, those without a symbol one entry for each page."""
        vm = self.vm
        found = {}
        named = True
        for rip, count in self.counts.items():
            if rip < _USER and vm.vcpus[0].bits == 64:
                name = "(programs)"
            else:
                name = None
                if named:
                    try:
                        around = vm.symbols.around(rip)
                        name = around[0] if around else None
                    except ValueError:
                        named = False
                name = name or "%#x" % (rip & ~0xFFF)
            found[name] = found.get(name, 0) + count
        if self.idle:
            found["(at HLT)"] = self.idle
        if self.others:
            found["(others)"] = self.others
        return found

    def table(self, most=_ROWS):
        """Functions by their samples, the most first."""
        total = max(self.samples, 1)
        rows = sorted([(-count, name) for name, count in self.functions().items()])
        return Table(
            ("samples", "share", "function"),
            [(-count, "%5.1f%%" % (-100 * count / total), name) for count, name in rows[:most]],
        )

    def __repr__(self):
        return "%d samples, one every %d ticks\n%r" % (self.samples, self.ticks, self.table())
