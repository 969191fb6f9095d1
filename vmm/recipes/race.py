"""Find a schedule of vCPUs that breaks a guest, and replay it.

    from vmm.recipes.race import find
    race = find(vms['race'])          # guests/race.toml: a lock with a hole
    race                              # the seed, and the schedule that breaks it
    race.replay()                     # True: it breaks again

The guest plays rounds. After each it executes VMCALL with RAX = 1000H and RBX not 0 where the round has broken
something; the answer 0 in RAX is one more round, any other the end. Each round has an order of its own, by the next
seed; it begins when the other vCPUs are at HLT, so that it depends on nothing before it.
"""

import time

from micropython import const

from vmm.scheduling.interleave import Random, Replay

CALL = const(0x1000)
_POLL_MS = const(1)
_STAY = const(15)  # few switches make a schedule that can be read


class _Round:
    """An order for one round. It begins when the other vCPUs are at HLT; until then they run first."""

    def __init__(self, order):
        self.order = order
        self.instructions = order.instructions
        self._settling = True

    def __call__(self, vm, runnable, why):
        if self._settling:
            for vcpu in runnable:
                if vcpu.number:
                    return vcpu
            self._settling = False
            vm.interleave.begin()
        return self.order(vm, runnable, why)


class Race:
    """The result of find(). seed, schedule: those of the round that breaks; rounds: how many were played."""

    def __init__(self, vm, rounds, seed, schedule, instructions):
        self.vm = vm
        self.rounds = rounds
        self.seed = seed
        self.schedule = schedule
        self.instructions = instructions

    def replay(self):
        """Start the guest again and play one round by the schedule: whether it breaks."""
        orders = iter([Replay(self.schedule, instructions=self.instructions)])
        return _play(self.vm, orders)[0]

    def __repr__(self):
        runs = ", ".join(["%d: %d" % run for run in self.schedule])
        return "round %d of %s breaks, by seed %d; vCPU: points in a row\n  %s" % (
            self.rounds, self.vm.name, self.seed, runs,
        )  # fmt: skip


def find(vm, runs=1000, first=0, instructions=1):
    """Play up to `runs` rounds by the seeds from `first` on; return a Race, or None where none of them breaks.

    instructions: the most instructions between two switch points.
    """
    orders = (Random(seed, instructions, stay=_STAY) for seed in range(first, first + runs))
    broken, rounds, schedule = _play(vm, orders)
    return Race(vm, rounds, first + rounds - 1, schedule, instructions) if broken else None


def _play(vm, orders):
    """Rounds by one order after the other, until one breaks or there is no other. (broken, rounds, schedule)."""
    rounds = 0
    result = None

    def answer(vcpu):
        nonlocal rounds, result
        if rounds:
            if vcpu.rbx:
                result = True, rounds, vm.interleave.schedule
                return 1
        order = next(orders, None)
        if order is None:
            result = False, rounds, None
            return 1
        rounds += 1
        vm.interleave = _Round(order)
        return 0

    vm.interleave = None
    vm.hypercalls.add(CALL, answer)
    try:
        vm.start()
        while result is None:
            if vm.state not in ("running", "halted"):
                raise RuntimeError("guest %s is %s (%s) after %d rounds" % (vm.name, vm.state, vm.why, rounds))
            time.sleep_ms(_POLL_MS)
    finally:
        vm.interleave = None
        vm.hypercalls.remove(CALL)
    return result
