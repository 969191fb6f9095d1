"""The accounting point: what the monitor does for a guest outside of its exits is charged to it here.

What an exit costs, up to the next entry, port/vcpu_enter.c counts in the frame (HOST_TICKS), and the end of a turn
moves the guest's virtual time by it. All else has three steps:

    began = begin(words)
    ...                                 # loading, callbacks of timers, a collection, a console
    charge(frame, passed(words, began))

Guests above may run in the middle of that: what they use is their own, and `passed` leaves it out. A charge counts in
sched.top() (HOST%), and against the guest's share: its next turn comes so much later.
"""

import cpu
import micropython
from micropython import const

_LIMIT_PART = const(16)

# Words of the frame (vmm/vtx/frame.py).
_HOST_TICKS = const(0x180 // 4)
_TURN = const(0xB10 // 4)
_SHARE = const(0xB18 // 4)
_ALLOCATED = const(0xB80 // 4)

# Words of Scheduler._words.
_COUNT = const(0)
_NESTED = const(12)  # two words: what guests have used in the middle of what was interrupted, all together

_FINE = const(8)  # virtual time: ticks used, shifted by this, by the share
FINE = _FINE


def heap_of_call():
    """Bytes of the heap that a function of the user's may take in a call, unless it is said otherwise."""
    return cpu.heap()[0] // _LIMIT_PART


@micropython.viper
def begin(words) -> int:
    """Now, in host TSC ticks without those that guests above have used. words: Scheduler._words."""
    w = ptr32(words)  # noqa: F821
    return int(cpu.rdtsc()) - (int(w[_NESTED]) | int(w[_NESTED + 1]) << 32)


@micropython.viper
def passed(words, began: int) -> int:
    """Host TSC ticks since begin() returned `began`, without those that guests above have used."""
    return int(begin(words)) - began


@micropython.viper
def charge(frame: int, ticks: int):
    """So many host TSC ticks were the guest's. frame: hpa of its vCPU frame."""
    f = ptr32(frame)  # noqa: F821
    host = (int(f[_HOST_TICKS]) | int(f[_HOST_TICKS + 1]) << 32) + ticks
    f[_HOST_TICKS] = host
    f[_HOST_TICKS + 1] = host >> 32
    turn = (int(f[_TURN]) | int(f[_TURN + 1]) << 32) + (ticks << _FINE) // int(f[_SHARE])
    f[_TURN] = turn
    f[_TURN + 1] = turn >> 32


@micropython.viper
def charge_all(words, frames, ticks: int, blocks: int):
    """A collection of garbage, `blocks` in all, has taken so many ticks: each guest pays for what it has allocated.
    frames: Scheduler._frames."""
    w = ptr32(words)  # noqa: F821
    hpas = ptr32(frames)  # noqa: F821
    if blocks < 1:
        blocks = 1
    i = 0
    while i < int(w[_COUNT]):
        f = ptr32(hpas[i])  # noqa: F821
        its = int(f[_ALLOCATED])
        if its:
            f[_ALLOCATED] = 0
            if its > blocks:
                its = blocks
            charge(hpas[i], ticks * its // blocks)
        i += 1
