"""The parts of MicroPython's `uctypes` that pure modules use, over ctypes."""

import ctypes


def addressof(buffer):
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def bytearray_at(address, size):
    return (ctypes.c_ubyte * size).from_address(address)


def bytes_at(address, size):
    return ctypes.string_at(address, size)
