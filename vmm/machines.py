"""The machines by name, as the prompt has them."""

from micropython import const

_NAME, _WHY = const(14), const(26)  # characters of these columns


class Machines:
    """The guests by name: vms['linux'], iteration over names, a table when printed.

    For users: values.
    """

    def __init__(self):
        self._by_name = {}

    def __getitem__(self, name):
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            raise KeyError("no guest %r; guests: %s" % (name, ", ".join(self._by_name) or "none")) from None

    def __contains__(self, name):
        return name in self._by_name

    def __iter__(self):
        return iter(self._by_name)

    def __len__(self):
        return len(self._by_name)

    def values(self):
        """The VM objects."""
        return self._by_name.values()

    def complete_keys(self, _):
        """For Tab within the brackets."""
        return self._by_name

    def add(self, vm):
        self._by_name[vm.name] = vm

    def remove(self, vm):
        del self._by_name[vm.name]

    def __repr__(self):
        name = max([_NAME] + [len(vm.name) for vm in self.values()])
        row = "%%-%ds %%-8s %%-%ds %%8s %%s" % (name, _WHY)
        rows = [row % ("NAME", "STATE", "WHY", "MEMORY", "RIP")]
        for vm in self.values():
            rip = vm.stopped.rip
            place = "%#018x%s" % (rip, vm.name_of(rip))
            rows.append(row % (vm.name, vm.state, _cut(vm.why), "%d MiB" % (vm.memory.size >> 20), place))
        return "\n".join(rows)


def _cut(why):
    """What fits into its column; vm.why has all of it."""
    return why if len(why) <= _WHY else why[: _WHY - 3] + "..."
