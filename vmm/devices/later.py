"""What stands on a bus for a device that few guests touch, until one does: the device's memory is not taken before."""


class Later:
    """make() puts the device in this one's place and returns it."""

    def __init__(self, make):
        self._make = make

    def read(self, offset, size):
        return self._make().read(offset, size)

    def write(self, offset, size, value):
        self._make().write(offset, size, value)
