"""All hardware that a guest accesses: ports, memory-mapped registers, MSRs, CPUID leaves, hypercalls.

    from vmm.recipes.hardware import Record
    r = Record(vms['linux'])      # before start(): all that a booting kernel does
    ...
    r                             # the table; r.table("port") has one kind; r.stop()
    print(r.csv())                # the same for a file on the host

Recorded is what exits in any case; nothing more is armed: every port, CPUID leaf and hypercall, memory other than RAM,
each MSR but those that the guest accesses without an exit. With APIC virtualization only those accesses to the local
APIC are recorded that exit. An access costs some 3,000 ticks more.
"""

from micropython import const

from vmm.insight.exits import words
from vmm.insight.exits.records import name
from vmm.insight.table import Table
from vmm.policies import policy
from vmm.policies.event import Event
from vmm.vtx import reasons
from vmm.vtx.vmcs_bits import EPT_WRITE, IO_IN, IO_PORT_SHIFT, IO_SIZE
from vmm.vtx.x86 import MASK32

MOST = const(4096)  # different accesses; those beyond are counted together
KINDS = ("port", "memory", "msr", "cpuid", "hypercall", "apic")
_COLUMNS = "kind", "which", "access", "count", "device", "first at", "symbol"
_APIC_WRITES = const(1 << 12)


def _port(vcpu):
    q = vcpu.qualification
    return "port", q >> IO_PORT_SHIFT & 0xFFFF, ("read %d" if q & IO_IN else "write %d") % ((q & IO_SIZE) + 1)


def _memory(vcpu):
    return "memory", vcpu.gpa, "write" if vcpu.qualification & EPT_WRITE else "read"


def _apic_access(vcpu):
    q = vcpu.qualification
    return "apic", q & 0xFFF, "write" if q & _APIC_WRITES else "read"


_WAYS = {
    reasons.IO_INSTRUCTION: _port,
    reasons.EPT_VIOLATION: _memory,
    reasons.RDMSR: lambda vcpu: ("msr", vcpu.rcx & MASK32, "read"),
    reasons.WRMSR: lambda vcpu: ("msr", vcpu.rcx & MASK32, "write"),
    reasons.CPUID: lambda vcpu: ("cpuid", vcpu.rax & MASK32, "read"),
    reasons.VMCALL: lambda vcpu: ("hypercall", vcpu.rax & MASK32, "call"),
    reasons.APIC_ACCESS: _apic_access,
    reasons.APIC_WRITE: lambda vcpu: ("apic", vcpu.qualification & 0xFFF, "write"),
}


class _Touched(Event):
    """All exits of these reasons, whatever their keys; nothing is armed for it."""

    name = "hardware"
    text = "an access to the machine"
    reasons = tuple(_WAYS)


class Record:
    """The accesses of one VM.

    found: {(kind, number, access): [count, RIP of the first]}; others: accesses beyond MOST different ones.
    """

    def __init__(self, vm):
        self.vm = vm
        self.found = {}
        self.others = 0
        self._policy = policy.attach(vm, _Touched(), self._touched, {})

    def stop(self):
        """Record no longer; what was found stays."""
        self._policy.detach()

    def _touched(self, vcpu):
        key = _WAYS[vcpu.reason](vcpu)
        entry = self.found.get(key)
        if entry:
            entry[0] += 1
        elif key[0] == "memory" and self._is_ram(key[1]):
            pass  # demand paging, or a page that a policy watches
        elif len(self.found) < MOST:
            self.found[key] = [1, vcpu.rip]
        else:
            self.others += 1

    def _is_ram(self, gpa):
        return any([base <= gpa < base + length for base, length, _ in self.vm.memory.segments])

    def _device(self, kind, number):
        """The class name of the device that answers, "" where none does."""
        found = None
        if kind == "port":
            for base, count, device, _ in self.vm.port_bus.ranges:
                if base <= number < base + count:
                    found = device
        elif kind == "memory":
            found = (self.vm.mmio_bus.find(number) or (0, None))[1]
        elif kind == "apic":
            found = self.vm.lapic
        return type(found).__name__ if found is not None else ""

    def rows(self, kind=None):
        """[(kind, which, access, count, device, RIP of the first, its symbol)], by kind and number. ValueError."""
        if kind is not None and kind not in KINDS:
            raise ValueError("kind %r: one of %s" % (kind, ", ".join(KINDS)))
        rows = []
        for key in sorted(self.found, key=lambda key: (KINDS.index(key[0]), key[1], key[2])):
            if kind in (None, key[0]):
                count, rip = self.found[key]
                which = words.msr(key[1]) if key[0] == "msr" else "%#x" % key[1]
                device = self._device(key[0], key[1])
                rows.append((key[0], which, key[2], count, device, "%#x" % rip, name(self.vm, rip)))
        return rows

    def table(self, kind=None):
        """The same, printed as a table."""
        return Table(_COLUMNS, self.rows(kind))

    def csv(self):
        """The same as text: a line of names, and a line for each row."""
        lines = [",".join(_COLUMNS)] + [",".join([str(item) for item in row]) for row in self.rows()]
        return "\n".join(lines)

    def __repr__(self):
        more = "\n%d accesses more, of others than these" % self.others if self.others else ""
        return repr(self.table()) + more
