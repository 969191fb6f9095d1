"""Guest time: every so many ticks of the guest's clock."""

from micropython import const

from vmm import verdict
from vmm.policies.event import Event, Needs
from vmm.policies.filters import Number
from vmm.vtx import reasons

_LEAST = const(5000)  # below, the guest would hardly run in between
_MOST = const((1 << 48) - 1)


class Time(Event):
    """On each vCPU, running or at HLT; RIP is that of the next instruction."""

    name = "time"
    text = (
        "so many ticks of the guest's clock have passed, on each vCPU, also at HLT. HANDLED: as DEFAULT. No value. "
        'SDM Vol. 3C, "VMX-Preemption Timer"'
    )
    reasons = (reasons.TIME,)
    filters = (Number("ticks", _MOST, "how many (the host's TSC)", low=_LEAST, required=True),)
    plain = False
    repeats = False

    def accepts(self, chosen):
        period = chosen["ticks"]
        return lambda vcpu: vcpu.vm.arming.ticker.is_due(vcpu, period)

    def needs(self, chosen):
        return Needs(ticks=chosen["ticks"])

    def skip(self, vcpu):
        return verdict.RESUME


TIME = Time()
