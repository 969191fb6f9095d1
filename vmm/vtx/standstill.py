"""Stopping a guest's clock, by words of the frames of all its vCPUs (vmm/scheduling/stops.py)."""

import micropython
from micropython import const

from vmm.vtx.frame import CLOCK_OFFSET, DIRTY, DIRTY_TIMERS, DIRTY_TSC_OFFSET, SIBLING, STOPPED, TSC_OFFSET

_DIRTY = const(DIRTY_TSC_OFFSET | DIRTY_TIMERS)


@micropython.viper
def since(frame: int) -> int:
    """Host TSC since which the clock stands still, 0: it runs. frame: hpa of a vCPU's frame."""
    f = ptr32(frame)
    return int(f[STOPPED]) | int(f[STOPPED + 1]) << 32


@micropython.viper
def stop(frame: int, at: int):
    """Let the guest's clock stand still since host TSC `at`."""
    each = frame
    while True:
        f = ptr32(each)
        f[STOPPED] = at
        f[STOPPED + 1] = at >> 32
        f[DIRTY] |= _DIRTY
        each = int(f[SIBLING]) | int(f[SIBLING + 1]) << 32
        if each == 0 or each == frame:
            return


@micropython.viper
def move(frame: int, now: int, stays: int):
    """Set the clock so that it shows at host TSC `now` the time at which the stop began. stays: 1, the clock is still
    stopped; 0, it runs again."""
    f = ptr32(frame)
    gone = now - (int(f[STOPPED]) | int(f[STOPPED + 1]) << 32)
    if stays == 0:
        now = 0
    each = frame
    while True:
        f = ptr32(each)
        moved = (int(f[TSC_OFFSET]) | int(f[TSC_OFFSET + 1]) << 32) - gone
        f[TSC_OFFSET] = moved
        f[TSC_OFFSET + 1] = moved >> 32
        moved = (int(f[CLOCK_OFFSET]) | int(f[CLOCK_OFFSET + 1]) << 32) - gone
        f[CLOCK_OFFSET] = moved
        f[CLOCK_OFFSET + 1] = moved >> 32
        f[STOPPED] = now
        f[STOPPED + 1] = now >> 32
        f[DIRTY] |= _DIRTY
        each = int(f[SIBLING]) | int(f[SIBLING + 1]) << 32
        if each == 0 or each == frame:
            return


@micropython.viper
def now(frame: int, rdtsc) -> int:
    """The time of the guest's clock. rdtsc: cpu.rdtsc."""
    f = ptr32(frame)
    at = int(f[STOPPED]) | int(f[STOPPED + 1]) << 32
    if at == 0:
        at = int(rdtsc())
    return at + (int(f[CLOCK_OFFSET]) | int(f[CLOCK_OFFSET + 1]) << 32)
