"""The way from one guest to the next, in viper: it makes no objects and calls no bytecode.

The scheduler's rule (vmm/scheduling/sched.py) by the words in the vCPU frames.
"""

import cpu
import micropython
import vmx
from micropython import const

from vmm.scheduling.accounting import begin, charge, passed
from vmm.scheduling.clock import expire
from vmm.scheduling.preemption import earliest
from vmm.vtx import exits
from vmm.vtx.events import wakes

_GRACE = const(20000)  # ticks
_FINE = const(8)  # vmm/scheduling/accounting.py

# Words of the frame (vmm/vtx/frame.py).
_DIRTY = const(0x0F8 // 4)
_PENDING = const(0x108 // 4)
_EXIT_TSC = const(0x118 // 4)
_GUEST_TICKS = const(0x128 // 4)
_HOST_TICKS = const(0x180 // 4)
_CLOCK_OFFSET = const(0x1A0 // 4)
_SLICE_END = const(0x1A8 // 4)
_STATE = const(0xB00 // 4)
_PRIORITY = const(0xB08 // 4)
_TURN = const(0xB10 // 4)
_SHARE = const(0xB18 // 4)
_WAKES = const(0xB20 // 4)
_DUE = const(0xB38 // 4)
_NEXT = const(0xB48 // 4)
_LEAD = const(0xB58 // 4)
_PARKED = const(0xB88 // 4)
_DIRTY_TIMERS = const(1 << 5)
_DIRTY_RVI = const(1 << 7)

# Values of frame.STATE.
_STILL = const(0)
_RUNS = const(1)
_WAITS = const(2)

# Words of Scheduler._words.
_COUNT = const(0)
_INSIDE = const(4)  # number of the guest whose exit loop runs, plus 1
_SWITCHES = const(5)
_LAST = const(6)  # frame of the guest that ran last
_FLOOR = const(7)  # guests below this priority are not looked at: one of them is interrupted
_LATER = const(8)  # bits of what was put off until no handler is interrupted
_AGAIN = const(9)  # two words: host TSC at which the next guest above the floor is due
_ABOVE = const(11)  # the least priority that interrupts what is done now
_CALLED = const(14)  # number of the halted guest whose timers are called back, plus 1

# Words of Scheduler._levels: whose turn it is among equals that can all run.
_LEVEL = const(3)  # 8 words for each priority
_NOW = const(0)  # two words: virtual time
_HOLDER = const(2)  # frame of the guest that had the last turn; 0 where it was alone, or another has woken up
_END = const(4)  # two words: host TSC at which that turn ends, though guests above come between

_POLL = const(1)  # bit of _LATER: consoles

# Words of Scheduler._collect_at (port/budget.c): blocks of the heap allocated since the last garbage collection after
# which there is another, where a guest above can interrupt it, and where none would.
_TIDY = const(0)
_TIDY_AT_LAST = const(2)
_PAYER = const(4)  # hpa of the frame of the guest to which allocations are put down, 0: to nobody

# After so many guests, plus 1, a look at the clock.
_STRETCH = const(15)

# Bits of verdicts (vmm/verdict.py).
_WAIT = const(4)
_HOST = const(256)
_BEYOND = const(0x7FFFFFF8 & ~256)  # what VM.apply has to see to


@micropython.viper
def turns(sched, deadline: int, once: int):
    """Turn after turn until the monitor is wanted. deadline: host TSC or 0. once: 1 for one turn, 2 for as long
    as a guest at or above the floor can run."""
    w = ptr32(sched._words)  # noqa: F821
    levels = ptr32(sched._levels)  # noqa: F821
    frames = ptr32(sched._frames)  # noqa: F821
    vcpus = sched._vcpus
    callbacks = sched._callbacks
    slice_ticks = int(sched.slice_ticks)
    half = slice_ticks << int(_FINE) >> 1
    rdtsc = cpu.rdtsc
    idle = cpu.idle
    wanted = cpu.wanted
    enter = vmx.enter
    run = exits.run
    awake = wakes
    call_back = expire
    soonest = earliest
    charged = charge
    words = sched._words
    allocated = ptr32(int(sched._allocated))  # noqa: F821
    tidy_at = ptr32(int(sched._collect_at))  # noqa: F821
    preempt = ptr32(int(sched._preempt_at))  # noqa: F821
    floor = int(w[_FLOOR])
    while True:
        now = int(rdtsc())
        count = int(w[_COUNT])
        best = -1
        turn = 0
        place = 0  # its virtual time, as compared with its equals'; below 0 where its turn goes on
        equals = 0
        soon = 0  # the first timer of those that have been looked at
        above = 0  # of those above `rank`
        rank = 256
        at = 0
        holder = 0
        missed = 0
        woken = -1  # the guest that has been woken in this look
        i = 0
        while i < count:
            f = ptr32(frames[i])  # noqa: F821
            level = int(f[_PRIORITY])
            if level != rank:
                if level < floor:
                    break
                if best >= 0:
                    break  # the highest come first: nobody after it can be the one
                above = soon
                rank = level
                at = level << _LEVEL
                holder = int(levels[at + _HOLDER])
            state = int(f[_STATE])
            if state == _WAITS:
                if f[_DIRTY] & _DIRTY_TIMERS:
                    soonest(frames[i])
                first = int(f[_NEXT]) | int(f[_NEXT + 1]) << 32
                if first:
                    if first <= now:
                        first += int(f[_LEAD])
                        f[_DUE] = first
                        f[_DUE + 1] = first >> 32
                        if first < now:
                            first = now
                        first += int(f[_CLOCK_OFFSET]) | int(f[_CLOCK_OFFSET + 1]) << 32
                        w[_CALLED] = i + 1
                        call_back(callbacks[i], frames[i], first)
                        w[_CALLED] = 0
                        f[_DIRTY] |= _DIRTY_TIMERS
                if f[_PENDING] | f[_DIRTY] & _DIRTY_RVI:
                    if int(awake(frames[i])):
                        state = int(_RUNS)
                        f[_STATE] = state
                        f[_WAKES] += 1
                        virtual = int(levels[at + _NOW]) | int(levels[at + _NOW + 1]) << 32
                        if (int(f[_TURN]) | int(f[_TURN + 1]) << 32) < virtual:
                            f[_TURN] = virtual
                            f[_TURN + 1] = virtual >> 32
                        levels[at + _HOLDER] = 0
                        holder = 0
                        if best >= 0:
                            place = turn + half // int(ptr32(frames[best])[_SHARE])  # noqa: F821
                        if woken >= 0:
                            first = int(rdtsc())
                            charged(frames[woken], first - now)
                            now = first
                        woken = i
                if state == _WAITS:
                    if f[_DUE] | f[_DUE + 1]:  # nobody was waiting for that timer
                        f[_DUE] = 0
                        f[_DUE + 1] = 0
                        sched.machines[i].clock.park()
                        first = int(rdtsc())
                        charged(frames[i], first - now)
                        now = first
                    if f[_DIRTY] & _DIRTY_TIMERS:
                        soonest(frames[i])
                    first = int(f[_NEXT]) | int(f[_NEXT + 1]) << 32
                    if first:
                        if soon == 0 or first < soon:
                            soon = first
            if state == _RUNS:
                equals += 1
                mine = int(f[_TURN]) | int(f[_TURN + 1]) << 32
                order = mine
                if holder == int(frames[i]):
                    if now < (int(levels[at + _END]) | int(levels[at + _END + 1]) << 32):
                        order = -1
                    else:
                        order += half // int(f[_SHARE])  # of two that are about even the other one's turn it is
                if best < 0 or order < place:
                    best = i
                    turn = mine
                    place = order
            i += 1
            if i & _STRETCH == 0:
                if soon > now and int(rdtsc()) >= soon:
                    missed = 1
                    break
        if woken >= 0:
            if woken != best or missed:
                first = int(rdtsc())
                charged(frames[woken], first - now)
                now = first
        if missed:
            continue  # its timer has come since it was looked at: it need not wait for the look at all others
        # The CPU is the guest's until the end of its slice, or until one that goes before it may wake up.
        # Alone it needs no turns.
        stop = deadline
        if equals > 1:
            if place < 0:
                end = int(levels[at + _END]) | int(levels[at + _END + 1]) << 32
            else:
                end = now + slice_ticks
                levels[at + _HOLDER] = int(frames[best])
                levels[at + _END] = end
                levels[at + _END + 1] = end >> 32
            if stop == 0 or end < stop:
                stop = end
        elif holder:
            levels[at + _HOLDER] = 0
        if soon:
            if stop == 0 or soon < stop:
                stop = soon
        if best < 0:
            if once == 2:
                # The monitor is wanted when the interrupted handler is done: that one gets somewhere.
                if wanted():
                    now = int(rdtsc()) + _GRACE
                    if stop:
                        if stop < now:
                            stop = now
                w[_AGAIN] = stop
                w[_AGAIN + 1] = stop >> 32
                return
            if allocated[0] > tidy_at[_TIDY]:
                sched.tidy(0)
                continue
            if idle(stop):
                sched.poll()
                if wanted():
                    return
            if once:
                return
            continue
        if allocated[0] > tidy_at[_TIDY]:
            if once != 2 and (above or allocated[0] > tidy_at[_TIDY_AT_LAST]):
                sched.tidy(rank)
                continue
        f = ptr32(frames[best])  # noqa: F821
        f[_SLICE_END] = stop
        f[_SLICE_END + 1] = stop >> 32
        f[_DIRTY] |= _DIRTY_TIMERS
        tidy_at[_PAYER] = int(f)
        f[_EXIT_TSC] = now  # the way to its entry is its own
        f[_EXIT_TSC + 1] = now >> 32
        if int(w[_LAST]) != int(f):
            w[_LAST] = int(f)
            w[_SWITCHES] += 1
        used = int(f[_GUEST_TICKS]) + int(f[_HOST_TICKS])  # low halves: a turn is shorter
        w[_INSIDE] = best + 1
        w[_ABOVE] = rank + 1
        preempt[0] = above
        preempt[1] = above >> 32
        answer = int(run(vcpus[best], enter))
        best = int(w[_INSIDE]) - 1
        used = (int(f[_GUEST_TICKS]) + int(f[_HOST_TICKS]) - used) & 0xFFFFFFFF
        used = (used << int(_FINE)) // int(f[_SHARE])
        if int(f[_PRIORITY]) == rank:  # else it has been given another meanwhile, and that one's virtual time
            f[_TURN] = turn + used
            f[_TURN + 1] = turn + used >> 32
        if equals == 1:
            turn += used  # nobody has waited
        levels[at + _NOW] = turn
        levels[at + _NOW + 1] = turn >> 32
        if answer & _BEYOND:
            used = int(begin(words))
            sched.machines[best].apply(answer)
            charged(int(f), int(passed(words, used)))
            if equals == 1:
                levels[at + _NOW] = f[_TURN]
                levels[at + _NOW + 1] = f[_TURN + 1]
        elif answer & _WAIT:
            if f[_STATE] != _RUNS:  # it has been paused or switched off meanwhile
                sched.machines[best].apply(answer)
            elif int(awake(frames[best])) == 0:
                f[_STATE] = int(_WAITS)
                f[_PARKED] = 0
                soonest(frames[best])
        preempt[0] = 0
        preempt[1] = 0
        w[_INSIDE] = 0
        if answer & _HOST:
            w[_LATER] |= _POLL
        if once == 2:
            if f[_STATE] == _RUNS:
                if wanted():
                    stop = int(rdtsc()) + _GRACE
                    w[_AGAIN] = stop
                    w[_AGAIN + 1] = stop >> 32
                    return
            continue
        if w[_LATER]:
            sched._see_to()
        if once:
            return
        if wanted():
            return
        if deadline:
            if int(rdtsc()) >= deadline:
                return


@micropython.viper
def run_above(sched):
    """Turns of those at or above the floor, until none of them can run."""
    turns(sched, 0, 2)


@micropython.viper
def nobody_pays(collect_at: int):
    """What is allocated from now on is no guest's. collect_at: Scheduler._collect_at."""
    ptr32(collect_at)[_PAYER] = 0  # noqa: F821


@micropython.viper
def poll(sched):
    """Most host interrupts are no console's: to ask costs some 300 a guest, to poll thousands."""
    ready = sched._ready
    frames = ptr32(sched._frames)  # noqa: F821
    i = 0
    while i < int(len(ready)):
        if int(ready[i]()):
            f = ptr32(frames[i])  # noqa: F821
            if f[_STATE] != _STILL or int(sched.deaf(i)) == 0:
                sched.tend(i, f[_PRIORITY])
        i += 1
