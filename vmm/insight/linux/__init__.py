"""A guest's Linux from outside, as its own /proc shows it: one file a subject, imported at its first use."""


class Linux:
    """`vm.linux`. kernel: vmm.insight.kernel.Kernel."""

    def __init__(self, kernel):
        self._kernel = kernel

    def tasks(self):
        """Yield the struct task_struct of each process. ValueError where the list does not end."""
        from vmm.insight.linux import tasks

        return tasks.processes(self._kernel)

    def task(self, pid):
        """The struct task_struct of a process or thread. ValueError where there is none."""
        from vmm.insight.linux import tasks

        return tasks.find(self._kernel, pid)

    def ps(self):
        """A table of the processes: PID, PPID, STATE (a letter as in /proc/PID/stat), COMM."""
        from vmm.insight.linux import tasks

        return tasks.ps(self._kernel)

    def threads(self, pid):
        """A table of a process's threads: TID, STATE, COMM."""
        from vmm.insight.linux import tasks

        return tasks.threads(self._kernel, tasks.find(self._kernel, pid))

    def files(self, pid):
        """A table of a process's open files: FD, MODE, POS, PATH."""
        from vmm.insight.linux import files

        return files.files(self._kernel, self.task(pid))

    def maps(self, pid):
        """A table of a process's mappings, with the columns of /proc/PID/maps."""
        from vmm.insight.linux import maps

        return maps.maps(self._kernel, self.task(pid))

    def read(self, pid, gva, size):
        """Bytes at an address of a process, also while it does not run. ValueError: nothing is mapped there, or it is
        paged out."""
        from vmm.insight.linux import maps

        return maps.read(self._kernel, self.task(pid), gva, size)

    def mounts(self, pid=1):
        """A table of the mounts that a process sees: SOURCE, PATH, TYPE, OPTIONS."""
        from vmm.insight.linux import mounts

        return mounts.mounts(self._kernel, self.task(pid))

    def sockets(self, pid=1):
        """A table of the sockets of a process's network: PROTO, STATE, LOCAL, PEER, INODE."""
        from vmm.insight.linux import sockets

        return sockets.sockets(self._kernel, self.task(pid))

    def current(self, vcpu):
        """The struct task_struct of what a vCPU runs. ValueError: no Linux yet."""
        return self._kernel.current(vcpu)[0]

    def cmdline(self, pid):
        """The arguments of a process, a list of str; empty for a kernel thread."""
        from vmm.insight.linux import tasks

        return tasks.cmdline(self._kernel, pid)

    def dmesg(self):
        """The kernel's log: [(seconds since boot, text), ...]; printed as dmesg prints it."""
        from vmm.insight.linux import log

        return log.dmesg(self._kernel)

    def modules(self):
        """A table of the modules: NAME, SIZE in bytes, USED."""
        from vmm.insight.linux import modules

        return modules.modules(self._kernel)

    def stack(self, pid):
        """The kernel stack of a task, and the system call that it is in: a list of frames that prints as text."""
        from vmm.insight.linux import stack, tasks

        return stack.of_task(self._kernel, tasks.find(self._kernel, pid))
