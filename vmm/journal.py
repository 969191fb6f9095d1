"""Messages about guests on the prompt's line, limited in rate.

A guest may reset itself a thousand times a second: it gets a few lines a second, and the rest are counted. While a
program talks to the raw REPL nothing is printed, since the program would take it for an answer; the messages follow
afterwards.
"""

from micropython import const

_LINES = const(8)  # a guest's, each second
_HELD = const(32)


class Journal:
    """now(): ticks, hz a second. reading(): whether the raw REPL waits for a program's words."""

    def __init__(self, now, hz, reading):
        self._now = now
        self._hz = hz
        self._reading = reading
        self._held = []
        self._left_out = 0  # lines of all guests that are only counted
        self._spoken = {}  # name: [start of its second, lines in it, lines left out]

    def say(self, name, text):
        """Print `text` (one line or several) as news of guest `name`, at once, later, or as a count."""
        spoken = self._spoken.setdefault(name, [0, 0, 0])
        self._second(name, spoken)
        if spoken[1] >= _LINES:
            spoken[2] += 1
            self._left_out += 1
            return
        spoken[1] += 1
        self._print("[%s] %s" % (name, text))

    def flush(self):
        """Print the messages that were held back; called periodically."""
        if self._left_out:  # every idle pass comes here: allocate only when there is something
            for name, spoken in self._spoken.items():
                if spoken[2]:
                    self._second(name, spoken)
        if self._held and not self._reading():
            held, self._held = self._held, []
            for text in held:
                print(text)

    def forget(self, name):
        """Drop the state of a removed guest."""
        spoken = self._spoken.pop(name, None)
        if spoken:
            self._left_out -= spoken[2]

    def _second(self, name, spoken):
        now = self._now()
        if now - spoken[0] >= self._hz:
            left_out = spoken[2]
            spoken[0], spoken[1], spoken[2] = now, 0, 0
            if left_out:
                self._left_out -= left_out
                self._print("[%s] ... and %d more like that" % (name, left_out))

    def _print(self, text):
        if self._reading():
            self._held.append(text)
            del self._held[:-_HELD]
        else:
            print(text)
