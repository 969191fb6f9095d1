"""The variables of a guest's UEFI firmware: a flash chip below the firmware's ROM, whose contents are a boot module.

Where that module is a file that is also a disk of the machine, what the guest changes is written to this disk, in the
guest's order: sectors as they are when the guest returns the chip to its array mode, then the disk's flush. The guest
runs meanwhile. Without such a disk the contents outlive resets and are forgotten when the guest is switched
off.
"""

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.flash import BLOCK, Flash
from vmm.disks import SECTOR
from vmm.host import FLUSH, WRITE, Request, words_of
from vmm.memory import ept
from vmm.memory.guest import PIECE

_UNDER_WAY = const(32)  # writes to the disk, at most; then changes gather


class Variables:
    """Of one guest. blob: the module; end: the gpa behind the chip; drive: of vmm.host, or None.

    flash: vmm.devices.flash.Flash; kept: whether changes are in the disk by now; failures: writes that the disk has
    refused. ValueError for a module that is no contents of such a chip."""

    def __init__(self, vm, blob, end, drive):
        self.size = size = len(blob)
        if not size or size % BLOCK:
            raise ValueError("%d bytes are no variable store: whole blocks of 4 KiB" % size)
        self.vm = vm
        self._drive = drive
        self._module = blob  # so that it stays where it is
        self._blob = uctypes.addressof(blob)
        self._gpa = end - size
        self._hpa = vm.take(size)
        self._data = uctypes.bytearray_at(self._hpa, size)
        self._changes = bytearray(size // SECTOR)  # 1 for each sector that the disk is to get
        self._writes = 0  # under way
        self.failures = 0
        changed = bind(_mark, uctypes.addressof(self._changes)) if drive else _nothing
        self.flash = Flash(self._data, self._direct, changed, self._write, vm.count_refused)
        self._fill()
        self._map(True)
        vm.mmio_bus.claim(self._gpa, size, self.flash)

    @property
    def kept(self):
        return not self._writes and self._changed() < 0

    def _map(self, on):
        self.vm.ept.map(self._gpa, self._hpa, self.size, ept.R | ept.X if on else 0)

    def _direct(self, on):
        """The CPU reads the chip itself, or asks the monitor."""
        self._map(on)
        self.vm.flush()

    def _changed(self):
        """The first sector that the disk is to get, or -1."""
        count = len(self._changes)
        first = _run(self._changes, 0, count, 0)
        return first if first < count else -1

    def forget(self):
        """The guest is switched off: what is on no disk is as in the module again."""
        if not self._drive:
            self._fill()

    def _fill(self):
        for at in range(0, self.size, PIECE):
            cpu.copy(self._hpa + at, self._blob + at, min(PIECE, self.size - at))

    def _write(self):
        """Changed sectors to the disk, with a copy, so that later changes do not overtake earlier ones."""
        changes = self._changes
        while self._writes < _UNDER_WAY:
            first = self._changed()
            if first < 0:
                return
            end = _run(changes, first, len(changes), 1)
            at, size = first * SECTOR, (end - first) * SECTOR
            try:
                place = self.vm.take(size)
            except MemoryError:
                self._failed()
                return  # the next change tries again
            changes[first:end] = bytes(end - first)
            for copy in (place, self._blob + at):  # the module, too: the guest may be made anew from it
                for i in range(0, size, PIECE):
                    cpu.copy(copy + i, self._hpa + at + i, min(PIECE, size - i))
            self._writes += 1
            words, sectors = words_of([(place, size)])
            self._drive.submit(Request(self, WRITE, first, words, sectors, self._written(place)))

    def _written(self, place):
        def done(ok):
            self.vm.give(place)
            self._writes -= 1
            if not ok:
                self._failed()
            if self._changed() >= 0:
                self._write()
            elif not self._writes:
                self._drive.submit(Request(self, FLUSH, 0, words_of([])[0], 0, self._flushed))

        return done

    def _flushed(self, ok):
        if not ok:
            self._failed()

    def _failed(self):
        self.failures += 1
        if self.failures == 1:
            self.vm.log("its variables could not be written to their file")

    def close(self):
        """The guest is destroyed: what is under way is done when this returns."""
        if self._drive:
            self._write()
            self._drive.finish(self)
            self.vm.monitor.drives.give(self._drive, self.vm)
            self._drive = None

    # -- state as data

    def save(self):
        """Plain data: the chip's state, and the blocks that differ from the module where no disk has them."""
        blocks = {}
        for at in range(0, 0 if self._drive else self.size, BLOCK):
            now = uctypes.bytes_at(self._hpa + at, BLOCK)
            if now != uctypes.bytes_at(self._blob + at, BLOCK):
                blocks[at] = now
        return {"flash": self.flash.save(), "blocks": blocks}

    def load(self, saved):
        self.forget()  # a disk's are those of the disk
        for at, data in saved["blocks"].items():
            self._data[at : at + BLOCK] = data
        self.flash.load(saved["flash"])


@micropython.viper
def _mark(changes: ptr8, offset: int, size: int):
    """Flash's `changed`, for the disk."""
    sector = offset >> 9
    while sector <= offset + size - 1 >> 9:
        changes[sector] = 1
        sector += 1


@micropython.viper
def _run(changes: ptr8, at: int, end: int, value: int) -> int:
    """The end of a run of bytes of this value."""
    while at < end:
        if int(changes[at]) != value:
            break
        at += 1
        if at & 127 == 0:
            cpu.look()
    return at


@micropython.viper
def _nothing(offset: int, size: int):
    """The same without a disk."""
