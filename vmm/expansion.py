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
from vmm.pci.board import ECAM, LINES, Board
from vmm.pci.virtio import VirtioPci
from vmm.terminal import DETACH, attach


class Expansion:
    """Of one guest. board: vmm.pci.board.Board, None where its description has pci = False; disks: what its [[disk]]s
    and [[cd]]s consist of, in their order; ports: its [[net]]s at their switches (vmm/network/port.py); hvc: the end of
    its virtio-console."""

    def __init__(self, vm, vga, line, deliver):
        """vga: its VGA; line(n): a new source on interrupt line n; deliver(low, destination): messages to the local
        APICs."""
        self._deliver = deliver
        self.board = None
        if vm.config.get("pci") is not False:
            self.board = Board(vm.port_bus, vm.mmio_bus, line, deliver, tables.PM_BASE, vm.count_refused, vm.log)
        self.places = None  # of virtio by registers in memory (vmm/devices/virtio/places.py)
        self._mmio_bus = vm.mmio_bus
        self._line = line
        self.disks = []
        self.ports = []
        self.packets = None  # vmm.policies.packets.Packets, once there was a policy on PACKET
        self.display = None  # vmm.pci.display.Display
        self.capture = None  # vmm.network.capture.Capture while frames are captured
        self.hvc = None  # vmm.console.Console of its virtio-console
        self._bootable = []  # device paths as SeaBIOS has them
        config = vm.config
        try:
            if config.get("screen") == "graphics":
                self._add_display(vm, vga)
            for number, entry in enumerate(config.get("disks") or []):
                self._add_disk(vm, number, entry)
            for number, entry in enumerate(config.get("cds") or []):
                self._add_cd(vm, number, entry)
            for number, (module, name) in enumerate(config.get("devices") or []):
                self._add_device(vm, number, module, name)
            if config.get("rng"):
                self.plug(Rng(vm.memory, vm.count_refused))
            for number, entry in enumerate(config.get("nets") or []):
                self._add_net(vm, number, entry)
            if config.get("hvc"):
                self._add_hvc(vm)
        except BaseException:
            self.close()
            raise

    def _add_device(self, vm, number, module, name):
        """A PCI device of the user's own: a class in Python that a boot module has."""
        where = "guest %s: devices[%d]: " % (vm.name, number)
        source = vm.blobs.get(module)
        if source is None:
            raise ValueError(where + "there is no boot module %s" % module)
        words = {"__name__": module}
        try:
            exec(compile(str(source, "utf-8"), module, "exec"), words)
            self._add(words[name](vm))
        except KeyError:
            raise ValueError(where + "%s has no class %s" % (module, name)) from None
        except Exception as error:
            raise ValueError(where + "%s: %s: %s" % (name, type(error).__name__, error)) from error

    def _add_display(self, vm, vga):
        from vmm.pci.display import Display

        self.display = Display(vm, vga, vm.blobs.get(vm.config.get("vgabios")))
        self._add(self.display)

    def _add_disk(self, vm, number, entry):
        disk = self._image(vm, "disks", number, entry, 512, entry.get("mode") or "scratch", b"disk%d" % number)
        function = self.plug(Blk(vm.memory, vm.count_refused, disk), entry.get("transport"))
        if function:
            self._bootable.append("/pci@i0cf8/scsi@%x/disk@0,0" % (function.address >> 3))
        else:
            self._bootable.append("/virtio-mmio@%016x/disk@0,0" % self.places.last)

    def _add_cd(self, vm, number, entry):
        from vmm.devices.scsi_cdrom import BLOCK, ScsiCdrom
        from vmm.devices.virtio.scsi import Scsi

        disk = self._image(vm, "cds", number, entry, BLOCK, "ro", b"cd%d" % number)
        function = self.plug(Scsi(vm.memory, vm.count_refused, ScsiCdrom(disk, disk.identity)))
        self._bootable.append("/pci@i0cf8/scsi@%x/channel@0/disk@0,0" % (function.address >> 3))

    def _image(self, vm, key, number, entry, block, mode, identity):
        """What an entry of config[key] names, as a disk of blocks of that many bytes."""
        make = self._host_disk if entry["image"].startswith(HOST) else self._memory_disk
        try:
            disk = make(vm, entry, block, mode, identity)
        except ValueError as error:
            raise ValueError("guest %s: %s[%d].image: %s" % (vm.name, key, number, error)) from None
        self.disks.append(disk)
        return disk

    def _memory_disk(self, vm, entry, block, mode, identity):
        """A boot module."""
        name = entry["image"]
        blob = vm.blobs.get(name)
        if blob is None:
            raise ValueError("there is no boot module %s" % name)
        if len(blob) < block:
            raise ValueError("%s has no whole sector" % name)
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

    def _add_hvc(self, vm):
        """A virtio-console, with an end at the prompt like that of COM1: vm.expansion.hvc()."""
        from vmm.console import RING
        from vmm.console import Console as Line
        from vmm.devices.virtio.console import Console

        line = self.hvc = Line(None, vm.more_typed, uctypes.bytearray_at(vm.take(RING), RING))
        line.uart = Console(vm.memory, vm.count_refused, line.tx)
        line.attach = lambda key=DETACH: attach(vm.monitor, vm, key, line)
        self.plug(line.uart)

    def _host_disk(self, vm, entry, block, mode, identity):
        """A disk of the host's machine."""
        from vmm.disks.host import HostDisk, Scratch

        drives = vm.monitor.drives
        drive = drives.take(entry["image"][len(HOST) :], vm, mode == "rw")
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
        self._add(function)
        return function

    def _add(self, function):
        if self.board is None:
            raise ValueError("pci: is False, and a device needs PCI")
        self.board.add(function)

    def acpi(self):
        """What vmm.acpi.tables.install() has to know: (SSDTs, lines that are levels, gpa of configuration space, AML of
        devices that the DSDT gets)."""
        devices = self.places.aml() if self.places else b""
        if self.board is None:
            return [], [], None, devices
        return [AML], sorted(set(LINES)), ECAM, devices

    def order(self):
        """Where firmware finds what it may boot: device paths as SeaBIOS has them, disks first, then CDs."""
        return self._bootable

    def reset(self):
        """The reset line."""
        if self.board:
            self.board.reset()
        if self.places:
            self.places.reset()

    def assign(self):
        """What firmware does before a kernel is entered."""
        if self.board:
            self.board.assign()

    def power_on(self):
        """The guest is started."""
        for port in self.ports:
            port.power(True)

    def save(self):
        """Plain data of the board, its devices and the disks."""
        return {
            "board": self.board and self.board.host.save(),
            "places": self.places.save() if self.places else [],
            "disks": [disk.save() for disk in self.disks],
        }

    def check(self, saved):
        """ValueError where a state is that of another board."""
        places = len(self.places.transports) if self.places else 0
        found = len(saved["disks"]), len(saved["places"]), bool(saved["board"])
        if found != (len(self.disks), places, bool(self.board)):
            raise ValueError("the saved state is of other disks or devices")
        if self.board:
            self.board.host.check(saved["board"])

    def load(self, saved):
        for disk, state in zip(self.disks, saved["disks"]):
            disk.load(state)
        if self.board:
            self.board.host.load(saved["board"])
        if self.places:
            self.places.load(saved["places"])

    def resume(self):
        """All of the guest has been loaded: devices go on with what was under way, and may raise interrupts."""
        if self.board:
            self.board.host.resume()
        if self.places:
            self.places.resume()

    def power_off(self):
        """The guest is switched off: what disks keep only until then is gone."""
        for disk in self.disks:
            disk.forget()
        for port in self.ports:
            port.power(False)

    def close(self):
        """The guest is destroyed."""
        if self.capture is not None:
            self.capture.close()
            self.capture = None
        for disk in self.disks:
            disk.close()
        for port in self.ports:
            port.vm.monitor.switches.leave(port)
        self.disks, self.ports = [], []


def _limit(entry):
    """Bytes of memory that "scratch" may take."""
    return entry.get("limit") or LIMIT
