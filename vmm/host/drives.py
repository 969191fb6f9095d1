"""The host's disks, which are searched when a guest first needs one, and the guests that use them."""

import cpu
from micropython import const

from vmm.host import ata, pci, virtio

_BLOCK = const(2)  # virtio's device ID
_AHCI = const(0x010601)  # a class of PCI


class Drives:
    """found: the disks of the host. pages: vmm.memory.pages.Pages. report(text): called for a disk that does not
    work."""

    def __init__(self, scheduler, pages, report=print):
        self.found = []
        self._users = []  # [(drive, name of the guest, whether it writes)]
        for place in ata.CHANNELS:
            channel = ata.Channel(cpu, scheduler, *place)
            drives = channel.probe()
            if drives:
                self.found += drives
                scheduler.drivers.append(channel.look)
        for function in pci.functions():
            try:
                self._find(function, scheduler, pages.take, report)
            except ValueError as error:
                report("%r: %s" % (function, error))

    def _find(self, function, scheduler, take, report):
        """Add the disks of a PCI function. ValueError."""
        if virtio.kind(function) == _BLOCK:
            from vmm.host.virtio_blk import VirtioBlk

            drive = VirtioBlk(function, scheduler, take)
            self.found.append(drive)
            scheduler.drivers.append(drive.look)
        elif function.kind == _AHCI:
            from vmm.host.ahci import Controller

            controller = Controller(function, scheduler, take, report)
            self.found += controller.disks
            scheduler.drivers.append(controller.look)

    def take(self, identity, vm, write):
        """The disk of this model or serial number, for a guest. Only one guest may use a disk that it writes to.
        ValueError."""
        for drive in self.found:
            if identity in (drive.model, drive.serial):
                break
        else:
            raise ValueError("the machine has no disk %s; it has %s" % (
                identity, ", ".join([d.model for d in self.found]) or "none",
            ))  # fmt: skip
        for taken, name, writes in self._users:
            if taken is drive and (write or writes):
                raise ValueError("the guest %s has the disk %s already" % (name, identity))
        self._users.append((drive, vm.name, write))
        return drive

    def give(self, drive, vm):
        """The guest does not use the disk any more."""
        for i, (taken, name, _) in enumerate(self._users):
            if taken is drive and name == vm.name:
                del self._users[i]
                return

    def close(self):
        """Stop all disks before a soft reset."""
        for drive in self.found:
            drive.close()

    def __repr__(self):
        return "\n".join([repr(drive) for drive in self.found]) or "no disks"
