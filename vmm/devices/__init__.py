"""Device models, one chip a file.

A device knows neither its base address nor its vCPU: `read(offset, size)`, `write(offset, size, value)` and `reset()`
are all that a bus needs. Interrupt lines, characters, power and reset are callables given to the constructor. Time
comes from a `clock`: `now()` and `hz` in guest TSC ticks, `timer(callback)` for deadlines. A callback gets the time and
is never called inside another call of the device.

A chip whose registers are accessed often has its state in one bytearray, which viper code reaches through a single
`ptr8` or `ptr32`. On the unix port (1.25, -O2, no threads, callgrind) a call of a bound viper method with two arguments
costs 260 instructions, loading an instance attribute 155, a pointer to a buffer 220, a call of another method of the
object 560, and a byte behind a pointer that is already loaded 5. Figures beside hot methods were measured the same way
and include the bound call. Values are masked before they are stored, since CPython's bytearray refuses what does not
fit.
"""
