"""Which files a guest's programs open, and which programs they start.

from vmm.recipes import files
log = files.opens(vms['linux'])        # or comm=, pid=
log = files.execs(vms['linux'])        # program and arguments
log                                    # the lines; log.stop()
"""

from micropython import const

from vmm.policies.events.syscall import SYSCALL
from vmm.policies.events.sysret import SYSRET

MOST = const(500)  # lines
_OPENS = ("open", "openat", "creat", "openat2")
_EXECS = ("execve", "execveat")


class Log:
    """lines: the last MOST of them."""

    def __init__(self):
        self.lines = []
        self.policy = None

    def add(self, vcpu, text):
        task = vcpu.task
        self.lines.append("%s[%d] %s" % (task.comm, task.tgid, text))
        del self.lines[:-MOST]

    def stop(self):
        self.policy.detach()

    def __repr__(self):
        return "\n".join(self.lines) or "nothing yet"


def opens(vm, **filters):
    """A Log of opened files, with the descriptor or the error."""
    log = Log()
    log.policy = vm.on(SYSRET, number=_OPENS, **filters)(lambda vcpu: log.add(vcpu, repr(vcpu.syscall)))
    return log


def execs(vm, **filters):
    """A Log of started programs with their arguments."""
    log = Log()
    log.policy = vm.on(SYSCALL, number=_EXECS, **filters)(lambda vcpu: log.add(vcpu, repr(vcpu.syscall)))
    return log
