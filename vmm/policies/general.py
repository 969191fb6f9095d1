"""Filters that every event has: cpl=, pid=, comm=, when=, once=, every=, limit=.

An exit meets them in this order, after the event's own: the privilege level, the task, when=, and then those that
count, so that every= and limit= count the exits that are left.
"""

from micropython import const

from vmm.policies.filters import Function, Number, OneOf, Text
from vmm.policies.link import equal
from vmm.vtx.frame import SS_RIGHTS, WANT_SS_RIGHTS
from vmm.vtx.reasons import ATTENTION
from vmm.vtx.vmcs_bits import RIGHTS_DPL, RIGHTS_DPL_SHIFT
from vmm.vtx.x86 import MASK32

_PIDS = const(1 << 22)
_COMM = const(15)  # bytes

FILTERS = (
    Number("cpl", 3, "the privilege level at which it happens"),
    Number("pid", _PIDS, "Linux: the process that runs, all its threads"),
    Text("comm", _COMM, "Linux: the name of the task that runs"),
    Function("when", "when(vcpu): whether the policy is asked; within the limits of the policy"),
    OneOf("once", (True,), "the policy is asked once and then detached; as limit=1"),
    Number("every", MASK32, "only each N-th of them", low=1),
    Number("limit", MASK32, "the policy is asked N times and then detached", low=1),
)


def check(chosen):
    """ValueError for filters that contradict each other."""
    if "once" in chosen and "limit" in chosen:
        raise ValueError("once= and limit= exclude each other")


def tests(event, chosen):
    """The tests of words (vmm/policies/link.py)."""
    if "cpl" not in chosen or not _exits(event) or event.levels:
        return []
    return [equal(SS_RIGHTS, RIGHTS_DPL, chosen["cpl"] << RIGHTS_DPL_SHIFT)]


def _exits(event):
    """Whether the words of the frame are those of the event: it is a VM exit."""
    return max(event.reasons) < ATTENTION


def wants(event, chosen):
    """Return ((reason, bits of frame.WANTS), ...) that tests() need."""
    return tuple([(reason, WANT_SS_RIGHTS) for reason in event.reasons]) if tests(event, chosen) else ()


def task(vm, chosen):
    """Return filter(link, below) -> the handler that goes on to `link` for the tasks that the filters name, or None.

    ValueError where the guest runs something else than Linux.
    """
    if "pid" not in chosen and "comm" not in chosen:
        return None
    from vmm.insight.linux import current

    return current.of(vm).filter(chosen)


def condition(event, chosen):
    """Return the function of the vCPU that says whether the policy is asked, or None."""
    found = [f for f in (event.accepts(chosen), chosen.get("when")) if f is not None]
    if "cpl" in chosen and not _exits(event):
        found.insert(0, lambda vcpu: vcpu.cpl == chosen["cpl"])
    if len(found) < 2:
        return found[0] if found else None
    return lambda vcpu: all(f(vcpu) for f in found)


def limit(chosen):
    """The number of calls after which the policy is detached; 0: never."""
    return 1 if "once" in chosen else chosen.get("limit", 0)
