"""System calls of a guest's Linux with names, arguments and results, as strace shows them, without ptrace.

    from vmm.recipes import strace
    t = strace.trace(vms['linux'], comm="ls")      # or pid=, number=["openat", "read"]; without: all processes
    ...
    t                                              # the last lines; t.lines has them all; t.stop()

A line is kept when the call has its result, or as "<unfinished ...>" when the buffer is read before. At most `most`
lines are kept, the oldest go. The program does not see it, and its calls take as long as the decoding does.
"""

from micropython import const

from vmm.insight.linux import values
from vmm.policies.events.syscall import SYSCALL
from vmm.policies.events.sysret import SYSRET

MOST = const(1000)  # lines
_OPEN = const(256)  # calls without a result that are remembered
_SHOWN = const(40)
_LATER = ("read", "pread64", "recvfrom", "readlink", "readlinkat", "getcwd")  # what they fill is shown


class Trace:
    """lines: the calls that are over; dropped: how many older ones are gone; say: called with each line, or None."""

    def __init__(self, vm, most, say, filters):
        self.vm = vm
        self.lines = []
        self.dropped = 0
        self.say = say
        self._most = most
        self._open = {}  # thread: (name, text)
        self._policies = [vm.on(SYSCALL, **filters)(self._entered)]
        try:
            self._policies.append(vm.on(SYSRET, **filters)(self._returned))
        except BaseException:
            self.stop()
            raise

    def _entered(self, vcpu):
        call = vcpu.syscall
        thread = vcpu.task.pid
        if call.name in ("exit", "exit_group"):
            self._add(thread, "%r = ?" % call)
            return
        if len(self._open) >= _OPEN and thread not in self._open:
            self._open.clear()
        self._open[thread] = call.name, None if call.name in _LATER else repr(call)

    def _returned(self, vcpu):
        call = vcpu.syscall
        thread = vcpu.task.pid
        name, text = self._open.pop(thread, (None, None))
        if name == call.name and text:
            self._add(thread, "%s = %s" % (text, values.result(name, call.result)))
        else:
            self._add(thread, repr(call))

    def _add(self, thread, text):
        line = "[%d] %s" % (thread, text)
        self.lines.append(line)
        if len(self.lines) > self._most:
            del self.lines[0]
            self.dropped += 1
        if self.say:
            self.say(line)

    def unfinished(self):
        """Lines of calls that have no result yet."""
        calls = sorted(self._open.items())
        return ["[%d] %s <unfinished ...>" % (thread, text or name + "(") for thread, (name, text) in calls]

    def stop(self):
        """Trace no longer; the lines stay."""
        for policy in self._policies:
            policy.detach()

    def __repr__(self):
        return "\n".join(self.lines[-_SHOWN:] + self.unfinished()) or "no system call yet"


def trace(vm, most=MOST, say=None, **filters):
    """Begin; returns the Trace. filters: of SYSCALL: number=, pid=, comm=, limit= and so on."""
    return Trace(vm, most, say, filters)
