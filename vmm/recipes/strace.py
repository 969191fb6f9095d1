"""System calls of a guest's Linux with names, arguments and results, as strace shows them, without ptrace.

    from vmm.recipes import strace
    t = strace.trace(vms['linux'], comm="ls")      # or pid=, number=["openat", "read"]; without: all processes
    t                                              # the last lines, and the calls that have no result yet
    t.lines                                        # all that are kept; t.dropped: records that were overwritten
    t.follow()                                     # lines as they come, until Ctrl-C
    t.stop()

A call is recorded at its beginning and its end, and made a line when it is read (vmm/insight/linux/calllog.py).
The program can notice it only by the 4,000 ticks that a call takes longer.
"""

from vmm.insight.linux.calllog import SIZE, CallLog
from vmm.policies.events.syscall import SYSCALL
from vmm.policies.events.sysret import SYSCALL32, SYSRET, SYSRET32


def trace(vm, size=SIZE, old=None, **filters):
    """Begin; returns the log. size: bytes that are kept. filters: of SYSCALL: number=, pid=, comm= and so on.

    old: calls of 32-bit programs, too; by default where there is no number=, as the kernel's code has to be searched
    for their numbers, once in a boot. A number= that is not a name selects calls of 64-bit programs only.
    """
    if old is None:
        old = "number" not in filters
    return CallLog(vm, (SYSCALL, SYSRET), filters, size, old=(SYSCALL32, SYSRET32) if old else ())
