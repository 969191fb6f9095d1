"""What a guest's file plugs into its PC: PCI, and the devices behind it.

A guest without such keys has none of this, and pays nothing for it.
"""

import uctypes

from vmm.acpi import tables
from vmm.acpi.pci_aml import AML
from vmm.devices.virtio.blk import Blk
from vmm.devices.virtio.rng import Rng
from vmm.disks.memory import MemoryDisk
from vmm.pci.board import LINES, Board
from vmm.pci.virtio import VirtioPci


class Expansion:
    """Of one guest. board: vmm.pci.board.Board; disks: what its [[disk]]s and [[cd]]s consist of, in their order."""

    def __init__(self, vm, line, deliver):
        """line(n): a new source on interrupt line n; deliver(low, destination): messages to the local APICs."""
        self._deliver = deliver
        self.board = Board(vm.port_bus, vm.mmio_bus, line, tables.PM_BASE, vm.count_refused)
        self.disks = []
        self._bootable = []  # device paths as SeaBIOS has them
        config = vm.config
        try:
            for number, entry in enumerate(config.get("disks") or []):
                self._add_disk(vm, number, entry)
            for number, entry in enumerate(config.get("cds") or []):
                self._add_cd(vm, number, entry)
            if config.get("rng"):
                self.plug(Rng(vm.memory, vm.count_refused))
        except BaseException:
            self.close()
            raise

    def _add_disk(self, vm, number, entry):
        disk = self._image(vm, "disks", number, entry, 512, entry.get("mode") or "scratch", b"disk%d" % number)
        function = self.plug(Blk(vm.memory, vm.count_refused, disk))
        self._bootable.append("/pci@i0cf8/scsi@%x/disk@0,0" % (function.address >> 3))

    def _add_cd(self, vm, number, entry):
        from vmm.devices.scsi_cdrom import BLOCK, ScsiCdrom
        from vmm.devices.virtio.scsi import Scsi

        disk = self._image(vm, "cds", number, entry, BLOCK, "ro", b"cd%d" % number)
        function = self.plug(Scsi(vm.memory, vm.count_refused, ScsiCdrom(disk, disk.identity)))
        self._bootable.append("/pci@i0cf8/scsi@%x/channel@0/disk@0,0" % (function.address >> 3))

    def _image(self, vm, key, number, entry, block, mode, identity):
        """The boot module that an entry of config[key] names, as a disk of blocks of that many bytes."""
        name = entry["image"]
        blob = vm.blobs.get(name)
        if blob is None:
            raise ValueError("guest %s: %s[%d].image: there is no boot module %s" % (vm.name, key, number, name))
        if len(blob) < block:
            raise ValueError("guest %s: %s[%d].image: %s has no whole sector" % (vm.name, key, number, name))
        disk = MemoryDisk(uctypes.addressof(blob), len(blob), mode, vm.monitor.pages, identity)
        self.disks.append(disk)
        return disk

    def plug(self, device):
        """A virtio device into the next free slot; its function."""
        function = VirtioPci(device, self._deliver)
        self.board.add(function)
        return function

    def acpi(self):
        """What vmm.acpi.tables.install() has to know: (SSDT, lines that are levels)."""
        return AML, sorted(set(LINES))

    def order(self):
        """Where firmware finds what it may boot: device paths as SeaBIOS has them, disks first, then CDs."""
        return self._bootable

    def reset(self):
        """The reset line."""
        self.board.reset()

    def assign(self):
        """What firmware does before a kernel is entered."""
        self.board.assign()

    def power_off(self):
        """The guest is switched off: what disks keep only until then is gone."""
        for disk in self.disks:
            disk.forget()

    def close(self):
        """The guest is destroyed."""
        for disk in self.disks:
            disk.close()
        self.disks = []
