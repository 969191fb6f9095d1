"""The symbols of a file whose kernel has been relocated (KASLR)."""


class Moved:
    """The symbols of a file, an ElfSymbols or SystemMap, with addresses from `least` on moved by `by` bytes.

    Those below are no places in the kernel's image but offsets of per-CPU variables, and constants. Methods are those
    of `symbols`.
    """

    def __init__(self, symbols, least, by):
        self._symbols = symbols
        self._least = least
        self._by = by

    def __len__(self):
        return len(self._symbols)

    def _there(self, gva):
        """Where an address of the file is in the guest."""
        return gva + self._by if gva >= self._least else gva

    def lookup(self, name):
        return [self._there(gva) for gva in self._symbols.lookup(name)]

    def is_data(self, name, gva):
        return self._symbols.is_data(name, gva - self._by if gva >= self._least + self._by else gva)

    def around(self, gva):
        found = self._symbols.around(gva - self._by) if gva >= self._least + self._by else None
        if found is None:
            return None
        name, start, end = found
        return name, self._there(start), None if end is None else self._there(end)

    def similar(self, name):
        return self._symbols.similar(name)

    def starting(self, prefix):
        for name, gva in self._symbols.starting(prefix):
            yield name, self._there(gva)

    def containing(self, part):
        for name, gva in self._symbols.containing(part):
            yield name, self._there(gva)
