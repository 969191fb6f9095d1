"""The kernel's modules, as /proc/modules shows them."""

from vmm.insight import objects
from vmm.insight.table import Table

_COLUMNS = ("NAME", "SIZE", "USED")


def each(kernel):
    """Yield the struct module of each module."""
    return objects.entries(kernel.types, kernel.space, kernel.symbol("modules"), "struct module", "list")


def modules(kernel):
    """A Table, in the order of /proc/modules."""
    rows = []
    for module in each(kernel):
        rows.append((module.name, _size(module), module.refcnt.counter - 1))
    return Table(_COLUMNS, rows)


def containing(kernel, gva):
    """The struct module that an address lies in, or None."""
    for module in each(kernel):
        for base, size in parts(module):
            if base <= gva < base + size:
                return module
    return None


def orc(kernel, gva):
    """(gva of orc_unwind_ip, gva of orc_unwind, entries) for an address in a module, or None."""
    module = containing(kernel, gva)
    if module is None or not module.arch.type_.has("num_orcs"):
        return None
    return int(module.arch.orc_unwind_ip), int(module.arch.orc_unwind), module.arch.num_orcs


def parts(module):
    """Yield (gva, bytes) of each part of a module."""
    if module.type_.has("mem"):
        for part in module.mem:
            yield int(part.base), part.size
        return
    for layout in (module.core_layout, module.init_layout):
        yield int(layout.base), layout.size


def _size(module):
    """Bytes; the parts of a module have been one array since Linux 6.4."""
    return sum([size for _, size in parts(module)])
