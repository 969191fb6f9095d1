"""The machine's disks, found when a guest first asks for one, and which guest writes to which."""

import cpu
from micropython import const

from vmm.host import ata, pci, virtio, virtio_blk

_BLOCK = const(2)  # virtio's device ID


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
            if virtio.kind(function) == _BLOCK:
                try:
                    drive = virtio_blk.Drive(function, scheduler, pages.take)
                except ValueError as error:
                    report("%r: %s" % (function, error))
                    continue
                self.found.append(drive)
                scheduler.drivers.append(drive.look)

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
