"""Conversion between a clock's ticks and the periods of an oscillator, exact and without big integers.

Both count from 0 together. With `hz` below 2**40 and `frequency` below 2**22 all products stay
below 2**62. Hot methods of the chips write `periods` out.
"""

from micropython import const

CALLBACKS_HZ = const(20000)  # a chip's timer never runs faster
RETRIES_HZ = const(1000)  # while its interrupt waits to be taken, retries become as rare as this
RETRIES = const(5)  # after so many, each twice as long after the one before


def periods(ticks, hz, frequency):
    """How many periods of `frequency` have passed after `ticks` of a clock that runs at `hz`."""
    return ticks // hz * frequency + ticks % hz * frequency // hz


def ticks_at(count, hz, frequency):
    """The first tick of the clock at which `periods` has reached `count`."""
    return count // frequency * hz + (count % frequency * hz + frequency - 1) // frequency
