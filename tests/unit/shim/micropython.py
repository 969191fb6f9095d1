"""MicroPython's `micropython` module for CPython: decorators and heap functions that do nothing.

`viper` converts arguments annotated ptr8, ptr16 or ptr32, buffers or addresses, to
what can be indexed by that width, as the viper emitter does. The emitter's type names are put into
`builtins`, where the emitter finds them. Machine-word wrap-around is not
imitated: code that depends on it masks, or is tested on MicroPython.
"""

import builtins
import ctypes
import functools
import inspect


def const(value):
    return value


def native(function):
    return function


bytecode = native


def _pointer(code):
    kind = {"B": ctypes.c_uint8, "H": ctypes.c_uint16, "I": ctypes.c_uint32}[code]

    def cast(target):
        if isinstance(target, int | ctypes._Pointer):
            return ctypes.cast(target, ctypes.POINTER(kind))
        return memoryview(target).cast("B").cast(code)

    return cast


ptr8 = _pointer("B")
ptr16 = _pointer("H")
ptr32 = _pointer("I")
_POINTERS = (ptr8, ptr16, ptr32)


def uint(value):
    return value & 0xFFFF_FFFF_FFFF_FFFF


def viper(function):
    casts = [
        p.annotation if p.annotation in _POINTERS else None for p in inspect.signature(function).parameters.values()
    ]
    if not any(casts):
        return function

    @functools.wraps(function)
    def call(*args):
        return function(*[c(a) if c else a for c, a in zip(casts, args, strict=True)])

    return call


for _name, _value in (("ptr", ptr8), ("ptr8", ptr8), ("ptr16", ptr16), ("ptr32", ptr32), ("uint", uint)):
    if not hasattr(builtins, _name):
        setattr(builtins, _name, _value)


def alloc_emergency_exception_buf(size):
    return None


def schedule(function, argument):
    function(argument)


def opt_level(level=None):
    return 0
