"""The short way of a policy: one key, one policy, nothing to look at but its answer.

It stands in the dispatch table for the policy's keys (vmm/vtx/keys.py), so that exits with other
keys do not know of it. Answers beyond HANDLED, and errors, are the Hook's (policy.py).
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.policies.filters import CPUID, IO, MEMORY, RDMSR, VMCALL, WRMSR
from vmm.scheduling.states import RUNS
from vmm.verdict import HANDLED
from vmm.vtx import reasons
from vmm.vtx.frame import EXIT_TSC, STARTS, STATE

_PLAIN = (CPUID, RDMSR, WRMSR, IO, VMCALL)  # past the instruction is all that HANDLED means
_IN = const(8)  # of the key of an I/O instruction
_REASONS = {
    CPUID: reasons.CPUID, RDMSR: reasons.RDMSR, WRMSR: reasons.WRMSR, IO: reasons.IO_INSTRUCTION,
    VMCALL: reasons.VMCALL, MEMORY: reasons.EPT_VIOLATION,
}  # fmt: skip

# Words of Account.
_HITS = const(0)
_TICKS = const(2)
_LIMIT = const(4)
_PASSES = const(6)
_HEAP = const(8)  # bytes


# Looked up here: in a module of C a name that does not lie in the interpreter's cache is searched from the first on.
_watch = cpu.watch
_attempt = cpu.attempt
_rdtsc = cpu.rdtsc


class Account:
    """What a policy has cost so far, and what a call may take: time, and bytes of the heap."""

    HITS = _HITS
    TICKS = _TICKS
    LIMIT = _LIMIT
    PASSES = _PASSES
    HEAP = _HEAP

    def __init__(self):
        self.words = array("I", [0] * 10)

    def get(self, word):
        return self.words[word] | self.words[word + 1] << 32

    def put(self, word, value):
        self.words[word] = value & 0xFFFFFFFF
        self.words[word + 1] = value >> 32

    def add(self, word, value):
        self.put(word, self.get(word) + value)


def keys_of(event, key, policies):
    """Return {key of the dispatch: those of `policies` that it concerns} for an event's key, or None where its
    reason has no such keys."""
    if event == IO:
        found = {}
        for direction in (0, _IN):
            for size in (1, 2, 4):
                matching = [policy for policy in policies if _accepts_io(policy.filters, direction, size)]
                if matching:
                    found[key << 16 | direction | size - 1] = matching
        return found
    if event == MEMORY:
        return None if key >> 20 else {key << 12: policies}
    return {key: policies} if event in _REASONS else None


def _accepts_io(filters, direction, size):
    """As filters.accepts(), for all but string instructions."""
    return filters.get("size", size) == size and ("write" not in filters or bool(direction) != bool(filters["write"]))


def handler(hook, policies):
    """Return the handler for a policy that is alone on a key, or None where there is more to look at."""
    if len(policies) != 1 or hook.event not in _PLAIN:
        return None
    policy = policies[0]
    if hook.event != IO and len(policy.filters) != 1:
        return None
    return bind(_ask, uctypes.addressof(policy.account.words), policy.function, policy, hook)


@micropython.viper
def _ask(words: int, function, policy, hook, vcpu) -> int:
    w = ptr32(words)
    f = ptr32(vcpu)
    if w[_PASSES]:
        return int(hook.ask(vcpu, (policy,)))
    w[_HITS] += 1
    if w[_HITS] == 0:
        w[_HITS + 1] += 1
    starts = int(f[STARTS])
    start = int(f[EXIT_TSC]) | int(f[EXIT_TSC + 1]) << 32
    watch = _watch
    watch(start + (int(w[_LIMIT]) | int(w[_LIMIT + 1]) << 32))
    answer = _attempt(function, vcpu, int(w[_HEAP]))
    watch(0)
    ticks = int(w[_TICKS]) | int(w[_TICKS + 1]) << 32
    ticks += int(_rdtsc()) - start
    w[_TICKS] = ticks
    w[_TICKS + 1] = ticks >> 32
    if answer:
        if answer == HANDLED:
            if int(f[STARTS]) == starts:
                if f[STATE] == RUNS:
                    return 1
                return 3
    return int(hook.answered(vcpu, policy, answer, starts))
