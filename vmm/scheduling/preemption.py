"""Guests of higher priority preempt what the monitor does for one guest.

cpu.preempt() calls `_preempted` at a branch of bytecode, or in the middle of a garbage
collection, once the time has come that `arm` has set. What it interrupts is mostly a handler
of the guest that is `inside`; it may also be work of the monitor's own, or a line at the prompt.

Guests of priority above 0 preempt a line (`arm_line`). Guests that never halt share the
CPU with it: 1 ms for them, 10,000 ticks for the line. The timers of these guests end that time early.
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind, earliest

from vmm.scheduling.clock import cut
from vmm.scheduling.states import HOLD, RUNS, WAITS
from vmm.scheduling.words import (
    ABOVE,
    AGAIN,
    AHEAD,
    CALLED,
    COUNT,
    DEFERRED,
    FLOOR,
    HOLDER,
    INSIDE,
    LEVEL,
    LINE,
    LINE_INTERRUPTED,
    LINE_RUNS,
    NESTED,
    PAYER,
    SERVED,
    TIES,
    WORK_INTERRUPTED,
)
from vmm.vtx.events import wakes
from vmm.vtx.frame import (
    DIRTY,
    DIRTY_TIMERS,
    EXIT_TSC,
    MIN_RUN,
    NEXT,
    PRIORITY,
    SLICE_END,
    STATE,
)

GRACES = const(10000)  # a second / GRACES is how long a vCPU runs on after it has woken another
_DEPTH = const(16)
_LINE_GRACE = const(10000)  # host TSC ticks that a line gets while a guest above can run all the time
_LINE_LEAST = const(2000)  # and in any case, once it was interrupted
_LINE_LOOKS = const(1000)  # a second: how often guests above and their consoles are checked


class Preemption:
    """The part of the scheduler that interrupts. run_above(2) runs those at or above the floor until none can."""

    def __init__(self, run_above):
        self._interrupted = array("I", [0] * (1 + _DEPTH))  # how many, and the frames of their guests
        self._settle = []
        address = uctypes.addressof
        self._preempt_at = cpu.preempt(bind(
            _preempted, self, address(self._words), address(self._frames), address(self._interrupted),
            self._collect_at, run_above, cpu.rdtsc, cpu.attempt,
        ))  # fmt: skip
        # arm(priority): from now on guests above it interrupt whatever bytecode runs, when their timers are due
        self.arm = bind(_arm, self, address(self._words), address(self._frames), self._preempt_at, earliest)
        self._line_parts = (
            address(self._words), address(self._frames), self._preempt_at, cpu.rdtsc, earliest, wakes,
        )  # fmt: skip
        # preempt_soon(frame): the guest that is inside has woken the halted one with this frame (hpa)
        self.preempt_soon = bind(
            _preempt_soon, self, address(self._words), address(self._frames), self._preempt_at,
            self.hz // GRACES, cpu.rdtsc, cut,
        )  # fmt: skip

    @property
    def depth(self):
        """An array whose first word is how many handlers are interrupted, for viper."""
        return self._interrupted

    @property
    def nested(self):
        """Whether something is interrupted: work on other guests is deferred."""
        return self._interrupted[0] != 0

    def interrupts(self, frame):
        """Whether a handler of the guest with this frame (hpa) is interrupted, or a driver's work for it."""
        stack = self._interrupted
        depth = stack[0]
        return depth and frame == self._words[SERVED] or any([stack[1 + i] == frame for i in range(depth)])

    def defer(self, settle=None):
        """Work for another guest is deferred. settle: a function that does it then; to be given once."""
        if settle:
            self._settle.append(settle)
        else:
            self._words[DEFERRED] |= TIES

    def defer_no_more(self, settle):
        """The function has no deferred work any more."""
        self._settle.remove(settle)

    def disarm(self):
        disarm(self._preempt_at)

    def _nested_failed(self, error):
        """An error in the middle ends there; Ctrl-C is for the code that was interrupted."""
        disarm(self._preempt_at)
        if self._words[INSIDE]:
            self.inside_vcpu.left()
        if isinstance(error, KeyboardInterrupt):
            raise error
        serviced, self._serviced = self._serviced, -1  # a console that was interrupted has not failed
        self._failed(error)
        self._serviced = serviced


@micropython.viper
def _preempted(scheduler, w: ptr32, frames: ptr32, stack: ptr32, payer: ptr32, run_above, rdtsc, attempt) -> int:
    """Guests above what runs now run until none of them can; returns the TSC of the next interruption, 0: none.

    All its arguments are bound, since guests wait for it: to load an attribute or a global takes some 200 ticks."""
    depth = int(stack[0])
    if depth == _DEPTH:
        return 0
    inside = int(w[INSIDE])
    frame = 0
    was = int(w[LINE])
    line = 0
    w[LINE] = 0
    if inside:
        frame = int(frames[inside - 1])
    elif was == LINE_RUNS:
        line = 1
        w[LINE] = LINE_INTERRUPTED
    else:
        w[LINE] = WORK_INTERRUPTED
    floor = int(w[FLOOR])
    above = int(w[ABOVE])
    called = int(w[CALLED])
    w[CALLED] = 0
    w[FLOOR] = above
    w[AGAIN] = 0
    w[AGAIN + 1] = 0
    w[INSIDE] = 0
    if line == 0:  # no handler is interrupted by those that interrupt a line
        stack[depth + 1] = frame
        stack[0] = depth + 1
    pays = int(payer[PAYER])
    nested = int(w[NESTED]) | int(w[NESTED + 1]) << 32
    began = int(rdtsc())
    error = attempt(run_above, 2)
    if error:
        error = cpu.attempt(scheduler._nested_failed, error)
    if line and not error:
        w[LINE] = 0
        error = cpu.attempt(scheduler._poll_above, scheduler)
    inside = 0
    payer[PAYER] = pays
    spent = int(rdtsc()) - began
    nested += spent  # what was interrupted in between is part of that
    w[NESTED] = nested
    w[NESTED + 1] = nested >> 32
    if frame:
        inside = int(_go_on(scheduler, frame, spent)) + 1
    w[INSIDE] = inside
    w[FLOOR] = floor
    w[ABOVE] = above
    w[CALLED] = called
    stack[0] = depth
    w[LINE] = was
    if line:
        _interrupt_line_again(scheduler, w)
    if error:
        raise error
    return int(w[AGAIN]) | int(w[AGAIN + 1]) << 32


@micropython.viper
def _go_on(scheduler, frame: int, spent: int) -> int:
    """The guest whose handler was interrupted goes on with it, `spent` ticks later; its number, -1 where it is gone."""
    number = int(_find(scheduler, frame))
    if number >= 0:
        f = ptr32(frame)
        # So much of the time since its exit is another's.
        since = int(f[EXIT_TSC]) | int(f[EXIT_TSC + 1]) << 32
        if since:
            since += spent
            f[EXIT_TSC] = since
            f[EXIT_TSC + 1] = since >> 32
        if f[STATE] != RUNS:
            end_turn(frame)  # paused, or switched off
    return number


@micropython.viper
def _interrupt_line_again(scheduler, w: ptr32):
    """When guests above interrupt the line again: not before it has had _LINE_LEAST."""
    arm_line(scheduler)
    p = ptr32(int(scheduler._preempt_at))
    first = int(p[0]) | int(p[1]) << 32
    if first:
        least = int(cpu.rdtsc()) + _LINE_LEAST
        if first < least:
            first = least
    w[AGAIN] = first
    w[AGAIN + 1] = first >> 32


@micropython.viper
def _arm(scheduler, w: ptr32, frames: ptr32, p: ptr32, soonest, priority: int):
    """The earliest timer of a waiting guest above `priority` interrupts, and one that can run does so at once."""
    count = int(w[COUNT])
    first = 0
    i = 0
    while i < count:
        f = ptr32(frames[i])
        if int(f[PRIORITY]) <= priority:
            break  # so are all that come after it
        state = int(f[STATE])
        if state == RUNS:
            first = 1
            break
        if state == WAITS:
            if f[DIRTY] & DIRTY_TIMERS:
                soonest(frames[i])
            when = int(f[NEXT]) | int(f[NEXT + 1]) << 32
            if when:
                if first == 0 or when < first:
                    first = when
        i += 1
    if first > int(AHEAD):
        first -= int(AHEAD)
    if first and scheduler.policy:  # with a rule of the user's nothing is interrupted
        first = 0
    w[ABOVE] = priority + 1
    p[0] = first
    p[1] = first >> 32


@micropython.viper
def arm_line(scheduler):
    """A line at the prompt runs from now on: guests of priority above 0 that can run interrupt it."""
    words, at_frames, preempt, rdtsc, soonest, awake = scheduler._line_parts
    w = ptr32(words)
    frames = ptr32(at_frames)
    p = ptr32(preempt)
    count = int(w[COUNT])
    first = 0
    if count:
        if ptr32(frames[0])[PRIORITY] and not scheduler.policy:
            now = int(rdtsc())
            first = now + int(scheduler.hz) // _LINE_LOOKS
            some = 0
            i = 0
            while i < count:
                f = ptr32(frames[i])
                if f[PRIORITY] == 0:
                    break
                state = int(f[STATE])
                if state == RUNS or state == WAITS:
                    some = 1
                    if f[DIRTY] & DIRTY_TIMERS:
                        soonest(frames[i])
                    when = int(f[NEXT]) | int(f[NEXT + 1]) << 32
                    if when > int(AHEAD):
                        when -= int(AHEAD)
                    if when and when < first:
                        first = when
                    if state == RUNS or int(awake(frames[i])):
                        if first > now + _LINE_GRACE:
                            first = now + _LINE_GRACE
                i += 1
            if some == 0:  # all of them are switched off or paused
                first = 0
    w[ABOVE] = 1
    w[LINE] = LINE_RUNS
    p[0] = first
    p[1] = first >> 32


@micropython.viper
def hold(scheduler, frame: int, more: int):
    """VM.hold. frame: hpa of the guest's. When the last hold ends, it takes the CPU if it is due.

    An equal whose turn ended meanwhile runs without an end, as no other could: its turn ends now. Else a vCPU whose
    every instruction is a step, for which the others are held, might never reach the end of a turn outside a step.
    """
    f = ptr32(frame)
    f[STATE] += more * HOLD
    if int(f[STATE]) >= HOLD:
        return
    w = ptr32(scheduler._words)
    inside = int(w[INSIDE])
    if w[LINE] == LINE_RUNS:
        arm_line(scheduler)
    elif inside:
        runs = int(ptr32(scheduler._frames)[inside - 1])
        rank = int(f[PRIORITY])
        if rank == int(ptr32(runs)[PRIORITY]):
            if int(f[STATE]) == RUNS and ptr32(scheduler._levels)[(rank << LEVEL) + HOLDER] == 0:
                cut(runs, int(cpu.rdtsc()))
        elif rank > int(ptr32(runs)[PRIORITY]) and not scheduler.policy:
            arm_by(scheduler._preempt_at, cpu.rdtsc())


@micropython.viper
def _preempt_soon(scheduler, w: ptr32, frames: ptr32, preempt: int, grace: int, rdtsc, end, frame: int):
    """Its turn ends soon, and if the other has a higher priority, bytecode that runs for it then is interrupted."""
    inside = int(w[INSIDE])
    f = ptr32(frame)
    if inside == 0 or f[STATE] != WAITS:
        return
    runs = int(frames[inside - 1])
    if runs == frame:
        return
    at = int(rdtsc()) + grace
    end(runs, at)
    if f[PRIORITY] > ptr32(runs)[PRIORITY]:
        if not scheduler.policy:  # with a rule of the user's nothing is interrupted
            arm_by(preempt, at)


@micropython.viper
def end_turn(frame: int):
    """A vCPU's turn is over when its handler is done, before another instruction. frame: hpa of its frame."""
    f = ptr32(frame)
    f[SLICE_END] = 1
    f[SLICE_END + 1] = 0
    f[MIN_RUN] = 0
    f[MIN_RUN + 1] = 0
    f[DIRTY] |= DIRTY_TIMERS


@micropython.viper
def disarm(word: int):
    """Nothing is to be interrupted. word: hpa of cpu.preempt()'s."""
    p = ptr32(word)
    p[0] = 0
    p[1] = 0


@micropython.viper
def arm_by(word: int, when: int):
    """Interrupt at this host TSC, unless that is to happen before. word: hpa of cpu.preempt()'s."""
    p = ptr32(word)
    first = int(p[0]) | int(p[1]) << 32
    if first == 0 or when < first:
        p[0] = when
        p[1] = when >> 32


@micropython.viper
def _find(scheduler, frame: int) -> int:
    """The number of the guest with this frame, -1 where it is gone."""
    frames = ptr32(scheduler._frames)
    count = int(ptr32(scheduler._words)[COUNT])
    i = 0
    while i < count:
        if int(frames[i]) == frame:
            return i
        i += 1
    return -1
