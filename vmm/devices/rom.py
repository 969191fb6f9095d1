"""A ROM chip on the memory bus. Its pages are mapped for reads, so only writes come here, and reads by instructions
that the monitor emulates.
"""


class Rom:
    """data: its contents, a buffer. refused(what) counts writes."""

    def __init__(self, data, refused):
        self._data = data
        self._refused = refused

    def read(self, offset, size):
        return int.from_bytes(self._data[offset : offset + size], "little")

    def write(self, offset, size, value):
        self._refused("write to the firmware's ROM")
