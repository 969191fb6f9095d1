"""Addresses and vCPUs as users name them: an address by number or symbol, a vCPU by number."""

from vmm.vtx.x86 import MASK64


def resolve(vm, where):
    """The gva of `where`: a number, a symbol, or "symbol+offset". ValueError, KeyError in words."""
    if isinstance(where, int) and not isinstance(where, bool):
        if not -(1 << 63) <= where <= MASK64:
            raise ValueError("%#x is no address of 64 bits" % where)
        return where & MASK64
    if not isinstance(where, str) or not where:
        raise ValueError("%r is neither an address nor a symbol's name" % (where,))
    name, plus, offset = where.partition("+")
    try:
        if name[:2] == "0x":
            gva = int(name, 16)
        else:
            gva = None
        more = int(offset, 0) if plus else 0
    except ValueError:
        raise ValueError("%r: an address, a symbol, or symbol+offset" % where) from None
    if gva is None:
        gva = vm.symbols[name.strip()]
    return gva + more & MASK64


def code(vm, where):
    """resolve(), for an address to be executed. ValueError for a symbol of data; a plain address is not checked."""
    gva = resolve(vm, where)
    name = where.partition("+")[0].strip() if isinstance(where, str) else ""
    if name and name[:2] != "0x" and vm.symbols.is_data(name):
        raise ValueError("%s is data: no code is executed there (the address, %#x, is taken as it is)" % (name, gva))
    return gva


def vcpu(vm, which):
    """The vCPU of a number, or itself; None: the one that paused the guest, else the first."""
    if which is None:
        return vm.stopped
    if isinstance(which, int):
        if not 0 <= which < len(vm.vcpus):
            raise ValueError("vcpu=%d: guest %s has %d vCPUs, from 0" % (which, vm.name, len(vm.vcpus)))
        return vm.vcpus[which]
    if which not in vm.vcpus:
        raise ValueError("%r is no vCPU of guest %s" % (which, vm.name))
    return which


def linear_rip(vcpu_):
    """The linear address of RIP: outside 64-bit code with the base of CS."""
    return vcpu_.rip if vcpu_.bits == 64 else vcpu_.rip + vcpu_.cs[1] & 0xFFFFFFFF
