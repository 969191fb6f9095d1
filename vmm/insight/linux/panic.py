"""Whether a Linux has panicked, and its message. It then spins for ever, or for the seconds of its `panic=`.

Source: Linux, kernel/panic.c.
"""

from micropython import const

from vmm.insight.linux import log
from vmm.insight.table import plain

_NO_CPU = const(0xFFFFFFFF)  # PANIC_CPU_INVALID
_TOLD = ("Kernel panic - ", "BUG: ", "RIP: 0010:")  # the last line of each


def lines(kernel):
    """Lines of text; [] where it has not panicked. ValueError: the kernel's log cannot be read."""
    at = kernel.find("panic_cpu")
    number = _NO_CPU if at is None else kernel.space.number(at, 4)
    if number == _NO_CPU:
        return []
    found = {}
    for _, text in log.dmesg(kernel):
        for beginning in _TOLD:
            if isinstance(text, str) and text.startswith(beginning):
                found[beginning] = text
    out = ["the kernel has panicked, on processor %d; vm.linux.dmesg() has all that it says" % number]
    return out + ["     " + plain(found[beginning].split("\n")[0]) for beginning in _TOLD if beginning in found]
