"""A placeholder on a bus for a device that few guests use: the device is created, and its memory allocated, at the
first access.
"""


class Later:
    """make() replaces this object on the bus by the device and returns it."""

    def __init__(self, make):
        self._make = make

    def read(self, offset, size):
        return self._make().read(offset, size)

    def write(self, offset, size, value):
        self._make().write(offset, size, value)
