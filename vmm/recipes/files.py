"""Which files a guest's programs open, and which programs they start.

from vmm.recipes import files
log = files.opens(vms['linux'])        # or comm=, pid=
log = files.execs(vms['linux'])        # program and arguments
log                                    # the last lines; log.lines has all, log.follow() prints them as they come
log.stop()
"""

from vmm.insight.linux.calllog import CallLog
from vmm.policies.events.syscall import SYSCALL
from vmm.policies.events.sysret import SYSRET

_OPENS = ("open", "openat", "creat", "openat2")
_EXECS = ("execve", "execveat")
_SIZE = 1 << 17  # bytes that are kept


def opens(vm, **filters):
    """A log of opened files, with the descriptor or the error."""
    return CallLog(vm, (SYSRET,), dict(filters, number=_OPENS), _SIZE, named=True)


def execs(vm, **filters):
    """A log of started programs with their arguments."""
    return CallLog(vm, (SYSCALL,), dict(filters, number=_EXECS), _SIZE, named=True)
