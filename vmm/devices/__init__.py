"""Device models, one chip a file.

A device knows neither its base address nor its vCPU: `read(offset, size)`, `write(offset, size,
value)` and `reset()` are all that a bus needs, and interrupt lines, characters, power and reset
leave through callables given to the constructor. Time comes from a `clock`: `now()` and `hz` in
guest TSC ticks, `timer(callback)` for deadlines; a callback gets the time and runs outside any
device call.

The state of a chip whose registers are touched often lies in one bytearray, which viper code
reaches through a single `ptr8` or `ptr32`: on the unix port (1.25, -O2, no threads, callgrind) a
bound viper method of two arguments costs 260 instructions to call, an instance attribute 155 to
load, a pointer to a buffer 220, a call to another method of the object 560, but a byte behind a
pointer that is already at hand costs 5. Figures beside hot methods were taken the same way and
include the bound call. Values are masked before they are stored, since CPython's bytearray
refuses what does not fit.
"""
