"""The shell of the real-time guest, as a person uses it."""

import re

PROMPT = rb"^-> $"
_TRANSFER = re.compile(
    r"^(sent|received) (\d+) bytes, crc32 ([0-9a-f]+)(?:, (\d+) lost)?, (?:was )?held back (\d+) times$", re.M
)
LIMIT = 1800  # seconds; Bochs carries some 1,000 characters a second over the cable


class Rtos:
    """The shell of the real-time guest."""

    def __init__(self, monitor):
        self.console = monitor.console("rtos")

    def wait(self):
        self.console.expect(rb"rtos: 32 priorities", LIMIT)
        self.console.expect(PROMPT, LIMIT)
        return self

    def run(self, command, timeout=LIMIT):
        self.start(command)
        return self.finish(timeout)

    def start(self, command):
        self.console.send(command + "\r")
        self.console.expect(command.encode() + rb"\n", LIMIT)

    def finish(self, timeout=LIMIT):
        return self.console.expect(rb"((?s:.*?))^-> $", timeout)[1].decode()

    def transfer(self, report):
        """{"sent" or "received": (bytes, CRC-32, times held back)} of what `send`, `receive` and `exchange` print.

        Sent: held back by the other side, as CTS said; received: held the other side back by RTS.
        """
        rows = _TRANSFER.findall(report)
        assert rows and all(lost in ("", "0") for *_, lost, _ in rows), report
        return {name: (int(count), int(crc, 16), int(held)) for name, count, crc, _, held in rows}
