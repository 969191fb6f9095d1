"""The switch from one guest to the next, in viper: it makes no objects and calls no bytecode.

The scheduler's rule (vmm/scheduling/sched.py) by the words in the vCPU frames. `turns` has four parts: wake and choose,
until when, run, charge. Rare cases are functions of their own. The parts are one function all the same: a call
from viper costs some 180 ticks, and to load each of the fifteen values that they share some 80 more. With functions
that call timers back and wake a guest, the way from a deadline to a guest at HLT took 3,097 ticks instead of 2,745.
"""

import cpu
import micropython
import uctypes
import vmx
from micropython import const
from vmx import earliest

from vmm.scheduling.accounting import begin, charge, charge_vm, give_way, passed
from vmm.scheduling.between import poll
from vmm.scheduling.clock import expire
from vmm.scheduling.states import RUNS, WAITS
from vmm.scheduling.words import (
    ABOVE,
    AGAIN,
    AHEAD,
    CALLED,
    COLLECT,
    COLLECT_AT_LAST,
    COUNT,
    DEFERRED,
    END,
    FINE,
    FLOOR,
    HOLDER,
    INSIDE,
    LAST,
    LEVEL,
    LINE,
    NOW,
    PAYER,
    POLL,
    POLL_SINCE,
    SWITCHES,
    WORK_INTERRUPTED,
)
from vmm.verdict import BEYOND, HOST, SPIN, WAIT
from vmm.vtx import exits
from vmm.vtx.events import wakes
from vmm.vtx.frame import (
    CLOCK_OFFSET,
    DIRTY,
    DIRTY_RVI,
    DIRTY_TIMERS,
    DUE,
    EXIT_TSC,
    GUEST_TICKS,
    HOST_TICKS,
    LEAD,
    NEXT,
    ORDERED,
    PARKED,
    PENDING,
    PRIORITY,
    SHARE,
    SIBLING,
    SLICE_END,
    STATE,
    TURN,
    WAKES,
)

_GRACE = const(20000)  # ticks for what is interrupted, where a guest above never halts
_PATIENCE = const(3)  # it does so for longer than a slice shifted by this
_LINE_TURNS = const(1000)  # a second: in the middle of a line guests have the CPU for so long at a time

# After so many guests, plus 1, the clock is checked.
_STRETCH = const(15)


@micropython.viper
def _woken_in_vain(vcpu, frame: int, now: int) -> int:
    """Its timer was due and has not woken it: such a timer is left alone until it has run. Returns the time."""
    f = ptr32(frame)
    f[DUE] = 0
    f[DUE + 1] = 0
    vcpu.clock.park()
    later = int(cpu.rdtsc())
    charge(frame, later - now)
    return later


@micropython.viper
def _interrupt_again(words: ptr32, when: int):
    """The interrupted work continues until this host TSC, 0: to its end."""
    words[AGAIN] = when
    words[AGAIN + 1] = when >> 32


def parts(sched):
    """The arguments of turns(): Scheduler._parts."""
    address = uctypes.addressof
    return (
        address(sched._words), address(sched._levels), address(sched._frames), sched.vcpus, sched._callbacks,
        sched._allocated, sched._collect_at, sched._preempt_at,
        cpu.rdtsc, cpu.idle, cpu.wanted, vmx.enter, exits.run, wakes, expire, earliest, charge,
    )  # fmt: skip


@micropython.viper
def turns(sched, deadline: int, once: int):
    """Turn after turn until the prompt has input. deadline: host TSC or 0. once: 1 for one turn, 2 for as long
    as a guest at or above the floor can run: in the middle of a line for 1 ms at most, in that of a driver's work for a
    slice."""
    # In one tuple: as attributes and globals they took 2,900 ticks, for which a guest that is due waits.
    (
        words, at_levels, at_frames, vcpus, callbacks, at_allocated, at_collect_at, at_preempt,
        rdtsc, idle, wanted, enter, run, awake, call_back, soonest, charged,
    ) = sched._parts  # fmt: skip
    w = ptr32(words)
    levels = ptr32(at_levels)
    frames = ptr32(at_frames)
    allocated = ptr32(at_allocated)
    collect_at = ptr32(at_collect_at)
    preempt = ptr32(at_preempt)
    slice_ticks = int(sched.slice_ticks)
    half = slice_ticks << int(FINE) >> 1
    floor = int(w[FLOOR])
    patience = 0
    if once == 2:
        patience = int(rdtsc()) + (slice_ticks >> _PATIENCE)
        if w[LINE]:
            deadline = int(rdtsc())
            deadline += slice_ticks if w[LINE] == WORK_INTERRUPTED else int(sched.hz) // _LINE_TURNS
    while True:
        # -- wake and choose
        if w[DEFERRED]:
            if once != 2:
                return  # gdb's line has received characters since the last check
        now = int(rdtsc())
        count = int(w[COUNT])
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
            f = ptr32(frames[i])
            level = int(f[PRIORITY])
            if level != rank:
                if level < floor:
                    break
                if best >= 0:
                    break  # the highest come first: none after it can be chosen
                above = soon
                rank = level
                at = level << LEVEL
                holder = int(levels[at + HOLDER])
            state = int(f[STATE])
            if state == WAITS:
                if f[DIRTY] & DIRTY_TIMERS:
                    soonest(frames[i])
                first = int(f[NEXT]) | int(f[NEXT + 1]) << 32
                if first:
                    if first <= now:
                        first += int(f[LEAD])
                        f[DUE] = first
                        f[DUE + 1] = first >> 32
                        if first < now:
                            first = now
                        first += int(f[CLOCK_OFFSET]) | int(f[CLOCK_OFFSET + 1]) << 32
                        w[CALLED] = i + 1
                        call_back(callbacks[i], frames[i], first)
                        w[CALLED] = 0
                        f[DIRTY] |= DIRTY_TIMERS
                        if soon:
                            first = int(rdtsc())
                            if first >= soon:  # the one that woke it runs on after those of higher priority
                                charged(frames[i], first - now)
                                now = first
                                missed = 1
                                break
                if f[PENDING] | f[DIRTY] & DIRTY_RVI:
                    if int(awake(frames[i])):
                        state = int(RUNS)
                        f[STATE] = state
                        f[WAKES] += 1
                        virtual = int(levels[at + NOW]) | int(levels[at + NOW + 1]) << 32
                        if (int(f[TURN]) | int(f[TURN + 1]) << 32) < virtual:
                            f[TURN] = virtual
                            f[TURN + 1] = virtual >> 32
                        levels[at + HOLDER] = 0
                        holder = 0
                        if best >= 0:
                            place = turn + half // int(ptr32(frames[best])[SHARE])
                        if woken >= 0:
                            first = int(rdtsc())
                            charged(frames[woken], first - now)
                            now = first
                        woken = i
                if state == WAITS:
                    if f[DUE] | f[DUE + 1]:
                        now = int(_woken_in_vain(vcpus[i], frames[i], now))
                    if f[DIRTY] & DIRTY_TIMERS:
                        soonest(frames[i])
                    first = int(f[NEXT]) | int(f[NEXT + 1]) << 32
                    if first:
                        if soon == 0 or first < soon:
                            soon = first
            if state == RUNS:
                equals += 1
                mine = int(f[TURN]) | int(f[TURN + 1]) << 32
                order = mine
                if holder == int(frames[i]):
                    if now < (int(levels[at + END]) | int(levels[at + END + 1]) << 32):
                        order = -1
                    else:
                        order += half // int(f[SHARE])  # of two that are about even, it is the other's turn
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

        # -- the order of a guest's vCPUs that its user has set
        ordered = 0
        if best >= 0:
            if ptr32(frames[best])[ORDERED]:
                best = int(sched.ordered(best))
                f = ptr32(frames[best])
                ordered = int(f[ORDERED])
                turn = int(f[TURN]) | int(f[TURN + 1]) << 32
                place = 0

        # -- until when: the end of its slice, or when one that preempts it may wake up; alone it needs no turns
        stop = deadline
        if equals > 1:
            if place < 0:
                end = int(levels[at + END]) | int(levels[at + END + 1]) << 32
            else:
                end = now + slice_ticks
                levels[at + HOLDER] = int(frames[best])
                levels[at + END] = end
                levels[at + END + 1] = end >> 32
            if stop == 0 or end < stop:
                stop = end
        elif holder:
            levels[at + HOLDER] = 0
        if soon:
            if stop == 0 or soon < stop:
                stop = soon
        if best < 0:
            if once == 2:
                if soon:
                    # The work that was interrupted ahead of this timer has no time left before it.
                    if soon - int(rdtsc()) <= int(AHEAD):
                        while int(rdtsc()) < soon:
                            pass
                        continue
                    if stop == soon:
                        stop -= int(AHEAD)
                _interrupt_again(words, stop)
                return
            if allocated[0] > collect_at[COLLECT]:
                sched.collect()
                continue
            if w[POLL_SINCE]:
                if int(sched.poll_waits(0)) == 0:
                    sched.poll()
                    continue
            if idle(stop):
                if int(sched.poll_waits(0)) == 0:
                    sched.poll()
                if wanted():
                    return
            if once:
                return
            continue
        if allocated[0] > collect_at[COLLECT]:
            if once != 2:
                # A guest that has just been woken runs first, as it is likely to halt again soon.
                if above or allocated[0] >> (1 if woken == best else 0) > collect_at[COLLECT_AT_LAST]:
                    sched.collect()
                    continue

        # -- run
        f = ptr32(frames[best])
        if deadline:
            if woken == best and stop == deadline and stop < now + int(_GRACE):
                stop = now + int(_GRACE)  # its handler, before what the deadline is for
                if soon and soon < stop:
                    stop = soon
        if ordered > 1:
            stop = 1  # MIN_RUN is the length of its turn
        f[SLICE_END] = stop
        f[SLICE_END + 1] = stop >> 32
        f[DIRTY] |= DIRTY_TIMERS
        collect_at[PAYER] = int(f)
        f[EXIT_TSC] = now  # the path to its entry is charged to it
        f[EXIT_TSC + 1] = now >> 32
        if int(w[LAST]) != int(f):
            w[LAST] = int(f)
            w[SWITCHES] += 1
        used = int(f[GUEST_TICKS]) + int(f[HOST_TICKS])  # low halves: a turn is shorter
        w[INSIDE] = best + 1
        w[ABOVE] = rank + 1
        preempt[0] = above
        preempt[1] = above >> 32
        answer = int(run(vcpus[best], enter))

        # -- charge
        best = int(w[INSIDE]) - 1
        used = (int(f[GUEST_TICKS]) + int(f[HOST_TICKS]) - used) & 0xFFFFFFFF
        used = (used << int(FINE)) // int(f[SHARE])
        if int(f[PRIORITY]) == rank:  # else it has been given another meanwhile, and that one's virtual time
            if f[SIBLING]:
                charge_vm(int(f), used)
                if answer & SPIN:
                    give_way(int(f))
                    levels[at + HOLDER] = 0
            else:
                f[TURN] = turn + used
                f[TURN + 1] = turn + used >> 32
        if equals == 1:
            turn += used  # none has waited
        levels[at + NOW] = turn
        levels[at + NOW + 1] = turn >> 32
        if answer & BEYOND:
            used = int(begin(words))
            vcpus[best].vm.apply(answer, vcpus[best])
            charged(int(f), int(passed(words, used)))
            if equals == 1:
                levels[at + NOW] = f[TURN]
                levels[at + NOW + 1] = f[TURN + 1]
        elif answer & WAIT:
            if f[STATE] != RUNS:  # it has been paused or switched off meanwhile
                vcpus[best].vm.apply(answer, vcpus[best])
            elif int(awake(frames[best])) == 0:
                f[STATE] = int(WAITS)
                f[PARKED] = 0
                soonest(frames[best])
        preempt[0] = 0
        preempt[1] = 0
        w[INSIDE] = 0
        if answer & HOST:
            w[DEFERRED] |= POLL
        if once == 2:
            if f[STATE] == RUNS:
                if wanted():
                    # The interrupted work has to continue, but not before this guest has done what it was woken for.
                    now = int(rdtsc())
                    if now >= patience:
                        _interrupt_again(words, now + _GRACE)
                        return
                if deadline:
                    now = int(rdtsc())
                    if now >= deadline:
                        _interrupt_again(words, now + _GRACE)  # of a line, arm_line() says when
                        return
            continue
        if w[DEFERRED] | w[POLL_SINCE]:
            if int(w[DEFERRED]) & ~int(POLL) == 0:
                w[DEFERRED] = 0
                if int(sched.poll_waits(rank)) == 0:
                    poll(sched, 0)
            else:
                sched._run_deferred(0)
        if once or wanted():
            if allocated[0] <= collect_at[COLLECT_AT_LAST]:
                return  # else a collection first, now that it can be preempted
        if deadline:
            if int(rdtsc()) >= deadline:
                return


@micropython.viper
def nobody_pays(collect_at: int):
    """Allocations from now on belong to no guest. collect_at: Scheduler._collect_at."""
    ptr32(collect_at)[PAYER] = 0
