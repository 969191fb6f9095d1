"""What a guest's file plugs into its PC: PCI, and the devices behind it.

A guest without such keys has none of this, and pays nothing for it.
"""

import uctypes

from vmm.acpi import tables
from vmm.acpi.pci_aml import AML
from vmm.devices.virtio.blk import Blk
from vmm.devices.virtio.rng import Rng
from vmm.disks.checks import HOST, LIMIT
from vmm.disks.memory import MemoryDisk
from vmm.pci.board import LINES, Board
from vmm.pci.virtio import VirtioPci


class Expansion:
    """Of one guest. board: vmm.pci.board.Board; disks: what its [[disk]]s consist of, in their order; ports: its
    [[net]]s at their switches (vmm/network/port.py)."""

    def __init__(self, vm, line, deliver):
        """line(n): a new source on interrupt line n; deliver(low, destination): messages to the local APICs."""
        self._deliver = deliver
        self.board = Board(vm.port_bus, vm.mmio_bus, line, tables.PM_BASE, vm.count_refused)
        self.places = None  # of virtio by registers in memory (vmm/devices/virtio/places.py)
        self._mmio_bus = vm.mmio_bus
        self._line = line
        self.disks = []
        self.ports = []
        self.packets = None  # vmm.policies.packets.Packets, once there was a policy on PACKET
        self.capture = None  # vmm.network.capture.Capture while frames are captured
        self.bootable = []  # their PCI functions
        config = vm.config
        try:
            for number, entry in enumerate(config.get("disks") or []):
                self._add_disk(vm, number, entry)
            if config.get("rng"):
                self.plug(Rng(vm.memory, vm.count_refused))
            for number, entry in enumerate(config.get("nets") or []):
                self._add_net(vm, number, entry)
        except BaseException:
            self.close()
            raise

    def _add_disk(self, vm, number, entry):
        name = entry["image"]
        mode = entry.get("mode") or "scratch"
        identity = b"disk%d" % number
        make = self._host_disk if name.startswith(HOST) else self._memory_disk
        disk = make(vm, number, name, mode, entry, identity)
        self.disks.append(disk)
        plugged = self.plug(Blk(vm.memory, vm.count_refused, disk), entry.get("transport"))
        if plugged:
            self.bootable.append(plugged)

    def _memory_disk(self, vm, number, name, mode, entry, identity):
        """A boot module."""
        blob = vm.blobs.get(name)
        if blob is None:
            raise ValueError("guest %s: disks[%d].image: there is no boot module %s" % (vm.name, number, name))
        if len(blob) < 512:
            raise ValueError("guest %s: disks[%d].image: %s has no whole sector" % (vm.name, number, name))
        return MemoryDisk(uctypes.addressof(blob), len(blob), mode, vm.monitor.pages, identity, _limit(entry))

    def _add_net(self, vm, number, entry):
        from vmm.devices.virtio.net import Net
        from vmm.network import checks
        from vmm.network.port import Port

        device = Net(vm.memory, vm.count_refused, checks.address(vm.name, number, entry))
        self.plug(device)
        port = Port(vm, device, "%s/net%d" % (vm.name, number))
        try:
            vm.monitor.switches.join(entry["switch"], port)
        except ValueError as error:
            raise ValueError("guest %s: nets[%d]: %s" % (vm.name, number, error)) from None
        self.ports.append(port)

    def _host_disk(self, vm, number, name, mode, entry, identity):
        """A disk of the host's machine."""
        from vmm.disks.host import HostDisk, Scratch

        drives = vm.monitor.drives
        try:
            drive = drives.take(name[len(HOST) :], vm, mode == "rw")
        except ValueError as error:
            raise ValueError("guest %s: disks[%d].image: %s" % (vm.name, number, error)) from None
        if mode == "scratch":
            return Scratch(vm, drives, drive, vm.monitor.pages, _limit(entry), identity)
        return HostDisk(vm, drives, drive, mode, identity)

    def plug(self, device, transport=None):
        """A virtio device into the next free slot; its PCI function, None where the transport is "virtio-mmio"."""
        if transport == "virtio-mmio":
            if self.places is None:
                from vmm.devices.virtio.places import Places

                self.places = Places(self._mmio_bus, self._line)
            self.places.plug(device)
            return None
        function = VirtioPci(device, self._deliver)
        self.board.add(function)
        return function

    def acpi(self):
        """What vmm.acpi.tables.install() has to know: (SSDTs, lines that are levels)."""
        more = [self.places.ssdt()] if self.places else []
        return [AML] + more, sorted(set(LINES))

    def order(self):
        """Where firmware finds what it may boot: device paths as SeaBIOS has them, the first disk first."""
        return ["/pci@i0cf8/*@%x" % (function.address >> 3) for function in self.bootable]

    def reset(self):
        """The reset line."""
        self.board.reset()
        if self.places:
            self.places.reset()

    def assign(self):
        """What firmware does before a kernel is entered."""
        self.board.assign()

    def power_on(self):
        """The guest is started."""
        for port in self.ports:
            port.power(True)

    def power_off(self):
        """The guest is switched off: what disks keep only until then is gone."""
        for disk in self.disks:
            disk.forget()
        for port in self.ports:
            port.power(False)

    def close(self):
        """The guest is destroyed."""
        for disk in self.disks:
            disk.close()
        for port in self.ports:
            port.vm.monitor.switches.leave(port)
        self.disks, self.ports = [], []


def _limit(entry):
    """Bytes of memory that "scratch" may take."""
    return entry.get("limit") or LIMIT
