"""How fast an engine is here and now: a loop at the prompt of a monitor without guests, by the clock on the wall."""

import time

from pcanel.engines.choose import Choice
from pcanel.monitor import Monitor

_MEMORY = 128  # MiB
_TICKS = 50_000_000
_SPIN = """
from cpu import rdtsc
def spin(ticks):
    end = rdtsc() + ticks
    while rdtsc() < end:
        pass
"""


def measure(choice: Choice) -> float:
    """Emulated instructions a second of a Bochs, whose TSC counts them. Raises PcanelError where it does not start."""
    monitor = Monitor(memory=_MEMORY)
    monitor.choice = choice
    with monitor:
        monitor.wait_booted()
        monitor.exec(_SPIN)
        monitor.exec("spin(1)")
        began = time.monotonic()
        monitor.exec("spin(1)")
        middle = time.monotonic()
        monitor.exec(f"spin({_TICKS})", timeout=300)
        ended = time.monotonic()
    return _TICKS / max((ended - middle) - (middle - began), 1e-6)
