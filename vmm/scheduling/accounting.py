"""The accounting point: what the monitor does for a guest outside of its exits is charged to it here.

What an exit costs, up to the next entry, port/vcpu_enter.c counts in the frame (HOST_TICKS), and the end of a turn
moves the guest's virtual time by it. All else has three steps:

    began = begin(words)
    ...                                 # loading, callbacks of timers, a collection, a console
    charge(frame, passed(words, began))

Guests above may run in the middle of that: their time is charged to them, and `passed` leaves it out. A charge counts
in sched.top() (HOST%), and against the guest's share: its next turn comes so much later.
"""

import cpu
import micropython
from micropython import const

from vmm.scheduling.states import RUNS
from vmm.scheduling.words import COUNT, FINE, LEVEL, NESTED, NOW
from vmm.vtx.frame import ALLOCATED, HOST_TICKS, PRIORITY, SHARE, SIBLING, STATE, TURN

_LIMIT_PART = const(16)
_AHEAD = const(10)  # log2 of the part by which one is ahead of its siblings


def heap_of_call():
    """Bytes of the heap that a function of the user's may take in a call, unless it is said otherwise."""
    return cpu.heap()[0] // _LIMIT_PART


@micropython.viper
def begin(words) -> int:
    """Now, in host TSC ticks, without the time of guests above. words: Scheduler._words."""
    w = ptr32(words)
    return int(cpu.rdtsc()) - (int(w[NESTED]) | int(w[NESTED + 1]) << 32)


@micropython.viper
def passed(words, began: int) -> int:
    """Host TSC ticks since begin() returned `began`, without the time of guests above."""
    return int(begin(words)) - began


@micropython.viper
def charge(frame: int, ticks: int):
    """Charge host TSC ticks to the guest. frame: hpa of its vCPU frame."""
    f = ptr32(frame)
    host = (int(f[HOST_TICKS]) | int(f[HOST_TICKS + 1]) << 32) + ticks
    f[HOST_TICKS] = host
    f[HOST_TICKS + 1] = host >> 32
    turn = (ticks << FINE) // int(f[SHARE])
    if f[SIBLING]:
        charge_vm(frame, turn)
    else:
        turn += int(f[TURN]) | int(f[TURN + 1]) << 32
        f[TURN] = turn
        f[TURN + 1] = turn >> 32


@micropython.viper
def charge_vm(frame: int, used: int):
    """The virtual time of a VM is that of all its vCPUs: with this one's the others' goes on by `used`. Its own comes
    to be a thousandth ahead, so that of equals the others are before it."""
    f = ptr32(frame)
    at = int(f[SIBLING])
    while at != frame:
        other = ptr32(at)
        turn = (int(other[TURN]) | int(other[TURN + 1]) << 32) + used
        other[TURN] = turn
        other[TURN + 1] = turn >> 32
        at = int(other[SIBLING])
    turn = (int(f[TURN]) | int(f[TURN + 1]) << 32) + used + (used >> _AHEAD) + 1
    f[TURN] = turn
    f[TURN + 1] = turn >> 32


@micropython.viper
def give_way(frame: int):
    """A vCPU spins for another of its VM: it is queued behind those that can run."""
    f = ptr32(frame)
    last = int(f[TURN]) | int(f[TURN + 1]) << 32
    at = int(f[SIBLING])
    while at and at != frame:
        other = ptr32(at)
        if other[STATE] == RUNS:
            turn = int(other[TURN]) | int(other[TURN + 1]) << 32
            if turn >= last:
                last = turn + 1
        at = int(other[SIBLING])
    f[TURN] = last
    f[TURN + 1] = last >> 32


@micropython.viper
def advance(levels, frame: int, used: int):
    """A turn has taken so many host TSC ticks: the virtual time of the guest, and of its priority, goes on.
    levels: Scheduler._levels."""
    words = ptr32(levels)
    f = ptr32(frame)
    at = (int(f[PRIORITY]) << LEVEL) + NOW
    turn = int(f[TURN]) | int(f[TURN + 1]) << 32
    words[at] = turn
    words[at + 1] = turn >> 32
    used = (used << FINE) // int(f[SHARE])
    if f[SIBLING]:
        charge_vm(frame, used)
    else:
        f[TURN] = turn + used
        f[TURN + 1] = turn + used >> 32


@micropython.viper
def charge_all(words, frames, ticks: int, blocks: int):
    """A garbage collection, `blocks` in all, has taken so many ticks: each guest is charged for what it has allocated.
    frames: Scheduler._frames."""
    w = ptr32(words)
    hpas = ptr32(frames)
    if blocks < 1:
        blocks = 1
    i = 0
    while i < int(w[COUNT]):
        f = ptr32(hpas[i])
        its = int(f[ALLOCATED])
        if its:
            f[ALLOCATED] = 0
            if its > blocks:
                its = blocks
            charge(hpas[i], ticks * its // blocks)
        i += 1
