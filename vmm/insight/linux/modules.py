"""The kernel's modules, as /proc/modules shows them."""

from vmm.insight import objects
from vmm.insight.table import Table

_COLUMNS = ("NAME", "SIZE", "USED")


def modules(kernel):
    """A Table, in the order of /proc/modules."""
    rows = []
    for module in objects.entries(kernel.types, kernel.space, kernel.symbol("modules"), "struct module", "list"):
        rows.append((module.name, _size(module), module.refcnt.counter - 1))
    return Table(_COLUMNS, rows)


def _size(module):
    """Bytes; the parts of a module have been one array since Linux 6.4."""
    if module.type_.has("mem"):
        return sum([part.size for part in module.mem])
    return module.core_layout.size + module.init_layout.size
