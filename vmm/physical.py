"""A VM's memory as its CPU and its devices see it: by gpa, RAM or devices, and the device pages that lie over RAM."""

from vmm.memory import ept, paging


class Physical:
    """The part of vmm.vm.VM that owns its physical address space: memory (RAM), ept, rights, mmio_bus (devices).

    For users: physical_read, physical_write, touched.
    """

    def cover(self, gpa):
        """Hide the RAM at gpa behind a device's page."""
        if self.memory.has(gpa):
            self.ept.touch(gpa)
            self.rights.take(gpa, self, ept.RWX)
            self.flush()
            self.memory.covered = gpa >> 12

    def uncover(self):
        """Map the RAM again that cover() hid, with the rights that policies leave."""
        gpa = self.memory.covered << 12
        if gpa >= 0:
            self.memory.covered = -1
            self.rights.take(gpa, self, 0)
            self.flush()
            self.ept.join(gpa)

    def touched(self):
        """Return [(gpa, bytes), ...] of its RAM that the guest has touched since it was started.

        ValueError unless its description asks for demand_paging: without, all RAM is mapped at its start, and nothing
        shows what of it is touched.
        """
        if not self.demand_paging:
            raise ValueError("guest %s: what it touches is known with demand_paging = true in its file" % self.name)
        return [run for gpa, size, _ in self.memory.segments for run in self.ept.touched(gpa, size)]

    def flush(self):
        """Forget the CPU's translations for this guest."""
        self.monitor.flush(self)

    def load_walker(self, vcpu):
        """Return the page walker, set to the vCPU's present mode."""
        self.walker.follow(vcpu)
        return self.walker

    def new_walker(self):
        """Return a new page walker; load() it before use."""
        return paging.Walker(self.memory, self.cpuid.leaf(0x80000008, 0)[0] & 0xFF)

    def find_gpa(self, vcpu, gva):
        """Return the gpa of gva, or None; rights and accessed flags are left alone."""
        gpa = self.load_walker(vcpu).translate(gva, paging.PEEK)
        return None if gpa < 0 else gpa

    def physical_read(self, gpa, size):
        """What the guest's CPU would read at a gpa: RAM, or devices (bus.py says by which accesses). Bytes."""
        if self.memory.has(gpa, size):
            return self.memory.read(gpa, size)
        return self.mmio_bus.read_bytes(gpa, size)

    def physical_write(self, gpa, data):
        """Write bytes at a gpa as the guest's CPU would: to RAM, or to devices."""
        if self.memory.has(gpa, len(data)):
            self.memory.write(gpa, data)
        else:
            self.mmio_bus.write_bytes(gpa, data)

    def physical_load(self, gpa, size):
        """physical_read as an int; a device sees one access where `size` is 1, 2, 4 or 8."""
        if not self.memory.has(gpa, size) and size in (1, 2, 4, 8):
            return self.mmio_bus.read(gpa, size)
        return int.from_bytes(self.physical_read(gpa, size), "little")

    def physical_store(self, gpa, size, value):
        """physical_write of an int."""
        if not self.memory.has(gpa, size) and size in (1, 2, 4, 8):
            self.mmio_bus.write(gpa, size, value)
        else:
            self.physical_write(gpa, value.to_bytes(size, "little"))
