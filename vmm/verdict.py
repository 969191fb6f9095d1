"""The answers of handlers and of policies.

A handler returns a small int. Bit 0 advances RIP past the instruction; any higher bit makes the exit loop return to the
scheduler with the verdict.
"""

from micropython import const
from vmx import Value  # noqa: F401  a policy's answer: the value that the guest reads, or that is written instead

from vmm.fault import NMI

RESUME = const(0)
ADVANCE = const(1)
YIELD = const(2)  # the monitor or another vCPU is due
WAIT = const(4)  # halted until an event
STOP = const(8)  # cannot go on: dumped and stopped
PAUSE = const(16)  # stands still until resume() at the prompt
RESET = const(32)
POWER_OFF = const(64)
TRIPLE_FAULT = const(128)  # the guest has shut down
HOST = const(256)  # with YIELD: the host took an interrupt, consoles may have something
SPIN = const(512)  # with YIELD: it waits for another vCPU of its VM, which goes before it now
BEYOND = const(0x7FFFFFF8 & ~768)  # all that VM.apply has to see to, but for WAIT

_ERROR_MAX = const(0x7FFF)  # limit of VM entry

# A policy's answers. None means DEFAULT.
DEFAULT = "default"  # go on as if no policy were there
HANDLED = "handled"  # done; RIP advances
RETRY = "retry"  # run the instruction again
SKIP = "skip"  # nothing done; RIP advances, an exception is dropped
PAUSED = "pause"  # pause this guest at this instruction


class Inject:
    """A policy's answer: deliver this exception to the guest instead.

    vector: 0-31, but not 2; error: error code or None. ValueError for others.
    """

    def __init__(self, vector, error=None):
        if not isinstance(vector, int) or not 0 <= vector < 32 or vector == NMI:
            raise ValueError("vector %r is not an exception (an NMI: vm.nmi())" % (vector,))
        if error is not None and (not isinstance(error, int) or not 0 <= error <= _ERROR_MAX):
            raise ValueError("error code %r: a number up to %#x" % (error, _ERROR_MAX))
        self.vector = vector
        self.error = error
