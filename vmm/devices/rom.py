"""A ROM chip on the memory bus, for accesses that the CPU does not make by itself: its page is mapped for reads, so
what comes here is a write, or an instruction that the monitor carries out."""


class Rom:
    """data: its contents, a buffer. refused(what) counts writes."""

    def __init__(self, data, refused):
        self._data = data
        self._refused = refused

    def read(self, offset, size):
        return int.from_bytes(self._data[offset : offset + size], "little")

    def write(self, offset, size, value):
        self._refused("write to the firmware's ROM")
