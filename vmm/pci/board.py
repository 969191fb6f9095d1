"""The PCI side of a guest's board: bridges, slots, routing of INTx, and the addresses that firmware would assign.

INTA to INTD of the slots are connected to PIRQA to PIRQD in rotation, as on every board with a PIIX, and these to lines
10 and 11 of both interrupt controllers.
"""

from micropython import const

from vmm.devices.pci_header import BUS_MASTER, COMMAND, IO_SPACE, MEMORY_SPACE
from vmm.pci import bridges
from vmm.pci.host import Host
from vmm.vtx.x86 import IOAPIC_BASE

LINES = (10, 10, 11, 11)  # of PIRQA to PIRQD, as in vmm/acpi/pci.asl
MEMORY = const(0xE0000000)  # the DSDT's range for BARs
MEMORY_END = IOAPIC_BASE
ECAM = const(0xFEF00000)  # configuration space of bus 0; no firmware puts BARs there
IO = const(0xC000)
IO_END = const(0x10000)


class Board:
    """ports, memory: the guest's buses; line(n): a new source on interrupt line n; deliver(low, destination) sends a
    message to the local APICs; pm_base: ACPI's first port. refused(what) counts; say(text) prints a line for the
    user."""

    def __init__(self, ports, memory, line, deliver, pm_base, refused, say):
        self.host = Host(ports, memory, line, LINES, deliver, ECAM, refused, say)
        self.host.add(bridges.HostBridge(), 0)
        self.host.add(bridges.IsaBridge(LINES), 1)
        self.host.add(bridges.PowerManagement(pm_base), 1, 3)

    def add(self, function, device=None):
        """Add a function at device number `device`, or at the lowest free one. ValueError as Host.add()."""
        self.host.add(function, self.host.free() if device is None else device)

    def reset(self):
        self.host.reset()

    def assign(self):
        """Assign addresses to the BARs and enable them, as firmware does before it boots a kernel.

        ValueError if there is no room."""
        memory, io = MEMORY, IO
        for _, function in sorted(self.host.functions.items()):
            enabled = 0
            for bar, register in function.places():
                if bar.kind == "io":
                    at = io + bar.size - 1 & -bar.size
                    io = at + bar.size
                    enabled |= IO_SPACE
                else:
                    at = memory + bar.size - 1 & -bar.size
                    memory = at + bar.size
                    enabled |= MEMORY_SPACE
                if io > IO_END or memory > MEMORY_END:
                    raise ValueError("no room for the BARs of PCI device 00:%02x.0" % (function.address >> 3))
                function.write(register, 4, at)
            if enabled:
                function.write(COMMAND, 2, enabled | BUS_MASTER)
