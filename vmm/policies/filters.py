"""Kinds of filters, for the events of vmm/policies/events.

A filter checks its value and names the values that it takes.
"""


def check_change(chosen):
    """ValueError for filters to= and before= that are the same: no change has them."""
    if "to" in chosen and chosen["to"] == chosen.get("before"):
        raise ValueError("to=%r and before=%r: that is no change, and never matches" % (chosen["to"], chosen["before"]))


class Filter:
    """name: as in vm.on(EVENT, name=...). required: it must be given. text: its meaning, for help."""

    def __init__(self, name, text, required=False):
        self.name = name
        self.text = text
        self.required = required

    def check(self, value):
        """ValueError, in words for the user, for a value that the filter does not take."""

    def _refuse(self, value, takes):
        raise ValueError("%s=%r: %s" % (self.name, value, takes))


class Number(Filter):
    """A number from `low` to `high`."""

    def __init__(self, name, high, text, low=0, required=False):
        super().__init__(name, text, required)
        self._low = low
        self._high = high

    def check(self, value):
        if not isinstance(value, int) or isinstance(value, bool) or not self._low <= value <= self._high:
            self._refuse(value, "a number from %d to %#x" % (self._low, self._high))


class OneOf(Filter):
    """One of a few values."""

    def __init__(self, name, values, text):
        super().__init__(name, text)
        self._values = values

    def check(self, value):
        if value not in self._values:
            first = ", ".join([str(v) for v in self._values[:-1]])
            self._refuse(value, (first and first + " or ") + str(self._values[-1]))


class Function(Filter):
    """A function of the vCPU."""

    def check(self, value):
        if not callable(value):
            self._refuse(value, "a function of the vCPU")


class Text(Filter):
    """A text of 1 to `most` bytes in UTF-8."""

    def __init__(self, name, most, text):
        super().__init__(name, text)
        self._most = most

    def check(self, value):
        if not isinstance(value, str) or not 1 <= len(value.encode()) <= self._most:
            self._refuse(value, "a str of 1 to %d bytes" % self._most)


class Calls(Filter):
    """number=: system calls by a number or a name, or a list or tuple of them."""

    def __init__(self):
        super().__init__("number", "the call's number, its name in Linux, or a list of them")

    def check(self, value):
        several = value if isinstance(value, (list, tuple)) else (value,)
        for one in several:
            if isinstance(one, bool) or not isinstance(one, (int, str)) or isinstance(one, int) and one < 0:
                self._refuse(value, "a number or a name of a system call, or a list of them")
        if not several:
            self._refuse(value, "the list is empty")


class Letters(Filter):
    """A text of letters, each of which is a bit."""

    def __init__(self, name, bits, text):
        """bits: {letter: bit}"""
        super().__init__(name, text)
        self._bits = bits

    def check(self, value):
        if not isinstance(value, str) or not value:
            self._fail(value)
        self.bits(value)

    def bits(self, value):
        """The letters' bits, or-ed."""
        found = 0
        for letter in value:
            if letter not in self._bits:
                self._fail(value)
            found |= self._bits[letter]
        return found

    def _fail(self, value):
        letters = sorted(self._bits)
        self._refuse(value, "some of the letters %s and %s" % (", ".join(letters[:-1]), letters[-1]))


class Place(Filter):
    """An address, or the name of a symbol."""

    def check(self, value):
        number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64
        if not number and not (isinstance(value, str) and value):
            self._refuse(value, "an address, or the name of a symbol")
