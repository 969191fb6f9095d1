"""System calls of a guest's Linux with names, arguments and results, as strace shows them, without ptrace.

    from vmm.recipes import strace
    t = strace.trace(vms['linux'], comm="ls")      # or pid=, number=["openat", "read"]; without: all processes
    t                                              # the last lines, and the calls that have no result yet
    t.lines                                        # all that are kept; t.dropped: records that have made room
    t.follow()                                     # lines as they come, until Ctrl-C
    t.stop()

A call is recorded at its beginning and its end, and made a line when somebody looks (vmm/insight/linux/calllog.py).
The program does not see it, but by the 4,000 ticks that a call takes longer.
"""

from vmm.insight.linux.calllog import SIZE, CallLog
from vmm.policies.events.syscall import SYSCALL
from vmm.policies.events.sysret import SYSRET


def trace(vm, size=SIZE, **filters):
    """Begin; returns the log. size: bytes that are kept. filters: of SYSCALL: number=, pid=, comm= and so on."""
    return CallLog(vm, (SYSCALL, SYSRET), filters, size)
