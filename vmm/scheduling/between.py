"""What the monitor does between the turns of guests: their consoles, the machine's drivers, what was put off.

Most of it is not interrupted, and it runs at each typed character, between the turns and the line. So it is
viper, and its arguments are bound or passed in one tuple (a load of an attribute or a global takes some 200 ticks).
"""

import cpu
import micropython
import uctypes
from vmx import bind, waits

from vmm.scheduling.accounting import charge
from vmm.scheduling.preemption import arm_line
from vmm.scheduling.states import STILL
from vmm.scheduling.words import (
    AHEAD,
    CALLED,
    COLLECT_AT_LAST,
    DEFERRED,
    FLOOR,
    GARBAGE,
    INSIDE,
    LINE,
    NESTED,
    PAYER,
    POLL,
    POLL_SINCE,
    POLL_TICKS,
    SERVED,
    STILLS,
)
from vmm.vtx.frame import PRIORITY, STATE


def bound(sched):
    """(begins, ended, parts of poll(), poll_waits, serve): begins() before turns -> whether all stands still; ended()
    after them; poll_waits(priority) -> whether a poll has to wait; serve(vm, work): work() of a driver for a guest,
    between turns. It is charged to the guest, and those above do not wait for it."""
    address = uctypes.addressof
    words = address(sched._words)
    poll_waits = bind(_poll_waits, words, sched._preempt_at, sched.arm, cpu.rdtsc, waits)
    return (
        bind(_begins, words, sched._preempt_at),
        bind(
            _ended,
            sched,
            words,
            sched._preempt_at,
            sched._collect_at,
            cpu.attempt,
            bind(poll, sched),
            poll_waits,
            arm_line,
        ),
        (address(sched._console_frames), sched._ready, sched.drivers, cpu.attempt),
        poll_waits,
        bind(_serve, words, sched._preempt_at, cpu.rdtsc, sched.arm, charge),
    )


@micropython.viper
def fresh(words: ptr32, interrupted: ptr32, allocated: ptr32, limits: ptr32) -> int:
    """The idle hook begins, and the port never nests hooks: nothing is inside or interrupted. Return what of DEFERRED
    is due, and GARBAGE where a collection is due in any case: nothing while all stand still."""
    words[INSIDE] = 0
    words[FLOOR] = 0
    words[CALLED] = 0
    interrupted[0] = 0
    if words[STILLS]:
        return 0
    due = int(words[DEFERRED])
    if allocated[0] > limits[COLLECT_AT_LAST]:
        due |= int(GARBAGE)
    return due


@micropython.viper
def _begins(words: ptr32, preempt: ptr32) -> int:
    preempt[0] = 0
    preempt[1] = 0
    words[LINE] = 0
    return words[STILLS]


@micropython.viper
def _ended(sched, words: ptr32, preempt: ptr32, payer: ptr32, attempt, poll_all, waits, line):
    """Before a line continues, or a sleep ends: the work that was deferred while a handler was interrupted."""
    preempt[0] = 0
    preempt[1] = 0
    words[CALLED] = 0
    if words[INSIDE]:
        sched._left()
    payer[PAYER] = 0  # allocations from now on belong to no guest
    if words[DEFERRED] == 0 or words[STILLS]:
        line(sched)
        return
    if words[DEFERRED] == POLL:
        words[DEFERRED] = 0
        if int(waits(0)):
            line(sched)
            return
        error = attempt(poll_all, 0)
        if error:
            error = attempt(sched._poll_failed, error)
    else:
        error = attempt(sched._run_deferred, 0)
    line(sched)
    if error:
        raise error


@micropython.viper
def _poll_waits(words: ptr32, preempt: ptr32, arm, rdtsc, not_for_ever, priority: int) -> int:
    """Whether a poll has to wait, as a guest above this priority is due before it would be done: until that guest has
    run, but not for ever (waits() of port/coalesce.c)."""
    arm(priority)
    due = int(preempt[0]) | int(preempt[1]) << 32
    preempt[0] = 0
    preempt[1] = 0
    if due and due - int(rdtsc()) < int(POLL_TICKS) - int(AHEAD):
        if not_for_ever(int(words) + 4 * POLL_SINCE, POLL_TICKS):
            return 1
    words[POLL_SINCE] = 0
    return 0


@micropython.viper
def poll(sched, floor: int):
    """Consoles of guests of this priority and above, and the machine's drivers. Most host interrupts are no console's:
    to ask costs some 300 a guest, to poll thousands."""
    at_frames, ready, drivers, attempt = sched._polled
    frames = ptr32(at_frames)
    if ready:
        i = 0
        count = int(len(ready))
        while i < count:
            f = ptr32(frames[i])
            if int(f[PRIORITY]) >= floor and int(ready[i]()):
                if f[STATE] != STILL or int(sched.takes_no_input(i)) == 0:
                    sched.service_console(i, f[PRIORITY])
                    count = int(len(ready))  # a console that fails is unplugged
            i += 1
    if drivers:
        i = 0
        count = int(len(drivers))
        while i < count:
            error = attempt(drivers[i], floor)
            if error:
                error = attempt(sched._driver_failed, error)
                if error:
                    raise error
            i += 1


# What begin(), passed() and disarm() do, since the guests above wait for it.
@micropython.viper
def _serve(words: ptr32, preempt: ptr32, rdtsc, arm_above, charged, vm, work):
    frame = int(vm.vcpus[0].frame_hpa)
    before = int(words[SERVED])
    words[SERVED] = frame
    began = int(rdtsc()) - (int(words[NESTED]) | int(words[NESTED + 1]) << 32)
    try:
        arm_above(ptr32(frame)[PRIORITY])
        return work()
    finally:
        preempt[0] = 0
        preempt[1] = 0
        words[SERVED] = before
        charged(frame, int(rdtsc()) - (int(words[NESTED]) | int(words[NESTED + 1]) << 32) - began)
