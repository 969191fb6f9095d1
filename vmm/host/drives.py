"""The machine's disks, found when a guest first needs one, and which guest writes to which."""

import cpu
from micropython import const

from vmm.host import ata, pci, virtio

_BLOCK = const(2)  # virtio's device ID
_AHCI = const(0x010601)  # a class of PCI


class Drives:
    """found: the disks of the machine. pages: vmm.memory.pages.Pages. report(text): of a disk that does not work."""

    def __init__(self, scheduler, pages, report=print):
        self.found = []
        self._writers = []  # [(drive, name of the guest)]
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
        """Disks of a PCI function."""
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
        """The disk of this model or serial number. One guest alone may write to it, and then no other has it.
        ValueError."""
        for drive in self.found:
            if identity in (drive.model, drive.serial):
                break
        else:
            raise ValueError("the machine has no disk %s; it has %s" % (
                identity, ", ".join([d.model for d in self.found]) or "none",
            ))  # fmt: skip
        for taken, name, writes in self._writers:
            if taken is drive and (write or writes):
                raise ValueError("the guest %s has the disk %s already" % (name, identity))
        self._writers.append((drive, vm.name, write))
        return drive

    def give(self, drive, vm):
        """The guest has it no more."""
        for i, (taken, name, _) in enumerate(self._writers):
            if taken is drive and name == vm.name:
                del self._writers[i]
                return

    def close(self):
        """A soft reset: no disk goes on with what was under way. One by PIO moves nothing by itself."""
        for drive in self.found:
            drive.close()

    def __repr__(self):
        return "\n".join([repr(drive) for drive in self.found]) or "no disks"
