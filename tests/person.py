"""A person at a terminal: types on a PTY and reads what it shows."""

import os
import select
import time


class Person:
    """start(stdin=, stdout=, stderr=) starts the program on the PTY and returns its Popen."""

    def __init__(self, start):
        self.fd, slave = os.openpty()
        self.process = start(stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.shown = b""

    def sees(self, words, timeout=60):
        """Waits for the words; what was shown up to them is done with."""
        deadline = time.monotonic() + timeout
        while words.encode() not in self.shown:
            assert time.monotonic() < deadline, self.shown.decode(errors="replace")
            if select.select([self.fd], [], [], 0.5)[0]:
                try:
                    self.shown += os.read(self.fd, 4096)
                except OSError:  # the program has closed its side
                    assert words.encode() in self.shown, self.shown.decode(errors="replace")
        before, _, self.shown = self.shown.partition(words.encode())
        return before.decode(errors="replace")

    def types(self, text):
        os.write(self.fd, text.encode())

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        os.close(self.fd)
