"""The machines by name, as the prompt has them."""


class Machines:
    """The VMs by name: vms['linux'], iteration over names, a table when printed."""

    def __init__(self):
        self._by_name = {}

    def __getitem__(self, name):
        return self._by_name[name]

    def __contains__(self, name):
        return name in self._by_name

    def __iter__(self):
        return iter(self._by_name)

    def __len__(self):
        return len(self._by_name)

    def values(self):
        return self._by_name.values()

    def add(self, vm):
        self._by_name[vm.name] = vm

    def remove(self, vm):
        del self._by_name[vm.name]

    def __repr__(self):
        rows = ["%-14s %-8s %-26s %8s %s" % ("NAME", "STATE", "WHY", "MEMORY", "RIP")]
        for vm in self.values():
            rip = vm.vcpu.rip
            place = "%#018x%s" % (rip, vm.name_of(rip))
            rows.append("%-14s %-8s %-26s %4d MiB %s" % (vm.name, vm.state, vm.why, vm.memory.size >> 20, place))
        return "\n".join(rows)
