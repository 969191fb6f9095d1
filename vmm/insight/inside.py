"""A VM's methods to look inside its guest: vm.type(), vm.object(), vm.container_of(), vm.linux, vm.system.

Nothing is imported or read before its first use; what was found is forgotten when the guest starts anew.
"""


class Inside:
    """The part of vmm.vm.VM for what runs in the guest. starts: counts the guest's starts."""

    @property
    def kernel(self):
        """The guest's Linux (vmm/insight/kernel.py). ValueError where it has none yet, or one without BTF."""
        known = self._kernel
        if known is None or known.starts != self.starts:
            from vmm.insight.kernel import Kernel

            self._kernel = None
            known = self._kernel = Kernel(self, self.symbols)
        return known

    def type(self, name, which=None):
        """A type of the guest's kernel by its name in C: "struct file", "pid_t", "char *"; printed it is its text.

        which: counts from 0 where several have the name.
        """
        return self.kernel.types.type(name, which)

    def object(self, type, gva):
        """The memory at a kernel address as an object of a type (its name, or from vm.type())."""
        return self.kernel.object(type, gva)

    def container_of(self, gva, type, member):
        """The struct of a type (its name) whose member is at a kernel address."""
        return self.kernel.container_of(gva, type, member)

    def dump(self, file):
        """Have the host write a core file of this guest, which drgn, crash and readelf open.

        file: a path on the host, from the directory of `pcanel run`. The guest stands still meanwhile.
        """
        from vmm.debug import mailbox
        from vmm.insight import facts

        mailbox.write("dump", self, file, facts.of)

    @property
    def linux(self):
        """The guest's Linux as its own tools would show it: ps(), dmesg(), modules(), cmdline(pid), task(pid)."""
        return self.kernel.linux

    _view = None  # a class that was set, of vmm.insight.system.System

    @property
    def system(self):
        """The view of a guest that runs something else than Linux: system.ps(), system.stack(name).

        vm.system = CLASS, derived from vmm.insight.system.System, gives a guest one (docs/task-views.md).
        """
        from vmm.insight import system

        return system.of(self, self._view)

    @system.setter
    def system(self, view):
        if view is not None and not callable(view):
            raise ValueError("vm.system = %r: a class derived from vmm.insight.system.System" % (view,))
        self._view = view

    def tasks(self):
        """The tasks of the guest, a table: of the system that its file names, or of its Linux."""
        if self._view is None and not self.config.get("system") and self.config.get("protocol") == "linux":
            return self.linux.ps()
        return self.system.ps()
