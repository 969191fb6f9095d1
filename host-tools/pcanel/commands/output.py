"""What the commands have in common: results go to stdout, news to stderr; one check."""

import contextlib
import math
import os
import signal
import sys
from pathlib import Path

from pcanel.errors import InputError


def show(data: bytes) -> None:
    """Bytes from the monitor, on stdout at once. Ends the command where nobody reads them any more, as `head`."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is in the buffer
        raise SystemExit(128 + signal.SIGPIPE) from None


def program() -> str:
    """How this command was called, for hints that can be typed as they stand."""
    path = Path(sys.argv[0])
    with contextlib.suppress(ValueError):
        path = path.resolve().relative_to(Path.cwd())
    return str(path)


def check_timeout(seconds: float | None) -> None:
    """Refuses a --timeout that is no time."""
    if seconds is not None and not 0 < seconds < math.inf:
        raise InputError(f"--timeout {seconds:g}: must be a number of seconds, more than 0")


def say(text: str) -> None:
    print(f"pcanel: {text}", file=sys.stderr, flush=True)
