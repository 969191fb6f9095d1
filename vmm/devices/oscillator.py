"""Conversion between a clock's ticks and the periods of an oscillator, exact and without big integers.

Both count from 0 together. With `hz` below 2**40 and `frequency` below 2**22 all products stay
below 2**62. Hot methods of the chips inline `periods`.
"""

from micropython import const

CALLBACKS_HZ = const(20000)  # the highest rate of a chip's timer
RETRIES_HZ = const(1000)  # the lowest rate of retries while an interrupt waits to be taken
RETRIES = const(5)  # the interval of retries doubles so many times


def periods(ticks, hz, frequency):
    """The number of periods of `frequency` that have passed after `ticks` of a clock that runs at `hz`."""
    return ticks // hz * frequency + ticks % hz * frequency // hz


def ticks_at(count, hz, frequency):
    """The first tick of the clock at which `periods` has reached `count`."""
    return count // frequency * hz + (count % frequency * hz + frequency - 1) // frequency
