"""What the commands print: results on stdout, news on stderr."""

import contextlib
import sys
from pathlib import Path


def show(data: bytes) -> None:
    """Bytes from the monitor, on stdout at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def program() -> str:
    """How this command was called, for hints that can be typed as they stand."""
    path = Path(sys.argv[0])
    with contextlib.suppress(ValueError):
        path = path.resolve().relative_to(Path.cwd())
    return str(path)


def say(text: str) -> None:
    print(f"pcanel: {text}", file=sys.stderr, flush=True)
