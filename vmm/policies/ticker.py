"""Guest time every N ticks, for policies on TIME: a timer of each vCPU's clock.

Policies with the same period are asked together, by slot reasons.TIME; an answer other than RESUME ends the vCPU's
turn. Periods that pass during a long call are skipped. Times are ticks of the guest's clock, which is the host's TSC.
"""

from vmm.scheduling.clock import AT_ONCE, cut
from vmm.vtx import reasons


class _Timer:
    """The timer of one vCPU. periods: {ticks: number of policies}, shared by all."""

    def __init__(self, vm, vcpu, periods):
        self._vm = vm
        self._vcpu = vcpu
        self._periods = periods
        self._next = {}  # period: when it is due
        self.due = ()  # periods that policies are asked for now
        self._timer = vcpu.clock.timer(self._expired)

    def arm(self):
        """Arm the timer for the periods as they are now."""
        now = self._vcpu.clock.now()
        self._next = {period: self._next.get(period, now + period) for period in self._periods}
        self._timer.arm(min(self._next.values()) if self._next else 0)

    def _expired(self, now):
        due = [period for period in self._next if self._next[period] <= now]
        vcpu = self._vcpu
        if due:
            self.due = due
            answer = self._vm.exits.handler(reasons.TIME, vcpu)(vcpu)
            self.due = ()
            if answer:
                self._vm.apply(answer, vcpu)
                cut(vcpu.frame_hpa, AT_ONCE)
        after = vcpu.clock.now()
        for period in due:
            if period in self._next:
                then = self._next[period] + period
                self._next[period] = then if then > after else after + period
        self._timer.arm(min(self._next.values()) if self._next else 0)


class Ticker:
    """The timers of one VM's policies on TIME."""

    def __init__(self, vm, vcpus):
        self._periods = {}  # ticks: how many policies
        self._timers = {vcpu.number: _Timer(vm, vcpu, self._periods) for vcpu in vcpus}

    def change(self, period, count):
        """`count` more policies, or less, are asked every `period` ticks."""
        users = self._periods[period] = self._periods.get(period, 0) + count
        if not users:
            del self._periods[period]
        for timer in self._timers.values():
            timer.arm()

    def is_due(self, vcpu, period):
        """Whether policies of a period are asked now."""
        return period in self._timers[vcpu.number].due
