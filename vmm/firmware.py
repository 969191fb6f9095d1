"""A guest's own firmware: its ROM, and what it asks the machine for by fw_cfg and CMOS. It is made for Debian's SeaBIOS
and OVMF (docs/firmware.md).

The whole file lies at 4 GiB - its size, readable and executable. Of a BIOS the last part, at most 256 KiB, is also in
RAM below 1 MiB, as after a chipset's shadowing, and is fresh at each start; below UEFI firmware is the flash with its
variables. The vCPU starts at the reset vector.
"""

import struct

import cpu
import uctypes
from micropython import const

from vmm.acpi import loader
from vmm.devices.debug_console import DebugConsole
from vmm.devices.fw_cfg import PORTS, FwCfg
from vmm.devices.pc_ports import COM1
from vmm.devices.rom import Rom
from vmm.memory import ept
from vmm.memory.e820 import FOUR_GIB, ONE_MIB, RAM, ram
from vmm.memory.guest import PIECE
from vmm.vtx.x86 import PAGE

SIZES_MOST = const(8 << 20)  # bytes of a firmware
_SHADOW_MOST = const(0x40000)
_DEBUG = const(0x402)

# fw_cfg's numbers
_NO_GRAPHICS = const(0x04)
_CPUS = const(0x05)
_NUMA = const(0x0D)
_BOOT_MENU = const(0x0E)
_CPUS_MOST = const(0x0F)
_IRQ0_OVERRIDE = const(0x8002)
_E820 = "etc/e820"

# CMOS
_SHUTDOWN = const(0x0F)
_ABOVE_1_MIB = const(0x30)  # KiB, 16 bits
_ABOVE_16_MIB = const(0x34)  # in 64 KiB, 16 bits
_ABOVE_4_GIB = const(0x5B)  # in 64 KiB, 24 bits
_MORE_CPUS = const(0x5F)


class Firmware:
    """Of one guest. log: what it has said on its debug console, a text."""

    def __init__(self, vm):
        for key in ("firmware", "variables", "vgabios"):
            name = vm.config.get(key)
            if name and name not in vm.blobs:
                raise ValueError("guest %s: %s: there is no boot module %s" % (vm.name, key, name))
        blob = vm.blobs[vm.config["firmware"]]
        video = vm.config.get("vgabios")
        self._video = memoryview(vm.blobs[video]) if video else None
        size = len(blob)
        if size % PAGE or not 0 < size <= SIZES_MOST:
            raise ValueError("guest %s: firmware: %d bytes are no ROM: whole pages, at most 8 MiB" % (vm.name, size))
        self._vm = vm
        self.fw_cfg = FwCfg(vm.memory, vm.count_refused)
        self.debug_console = DebugConsole()
        for port, count, offset, widest in PORTS:
            vm.port_bus.claim(port, count, self.fw_cfg, offset, widest)
        vm.port_bus.claim(_DEBUG, 1, self.debug_console)
        hpa = vm.take(size)
        self._data = uctypes.bytearray_at(hpa, size)
        source = uctypes.addressof(blob)
        for at in range(0, size, PIECE):
            cpu.copy(hpa + at, source + at, min(PIECE, size - at))
        vm.ept.map(FOUR_GIB - size, hpa, size, ept.R | ept.X)
        vm.mmio_bus.claim(FOUR_GIB - size, size, Rom(self._data, vm.count_refused))
        self._shadows = vm.config["protocol"] == "bios"
        self.variables = None  # vmm.variables.Variables
        if vm.config.get("variables"):
            self.variables = self._make_variables(FOUR_GIB - size)

    def _make_variables(self, end):
        from vmm.variables import Variables

        vm, drive = self._vm, None
        place = vm.config.get("variables_disk")
        try:
            if place:
                drive = vm.monitor.drives.take(place, vm, True)
            return Variables(vm, vm.blobs[vm.config["variables"]], end, drive)
        except ValueError as error:
            if drive:
                vm.monitor.drives.give(drive, vm)
            raise ValueError("guest %s: variables: %s" % (vm.name, error)) from None

    @property
    def log(self):
        return self.debug_console.text

    def __repr__(self):
        return self.log or "<firmware of %d KiB, which has said nothing>" % (len(self._data) >> 10)

    def start(self, order, aml, cpus, **acpi):
        """The machine is switched on or reset: RAM, CMOS and fw_cfg are as the firmware expects them.

        order: device paths of what it may boot, the first one first; aml, acpi: as for vmm.acpi.loader.files().
        """
        if self._shadows:
            self._shadow()
        self._set_cmos()
        self.debug_console.clear()
        items = self.fw_cfg
        items.clear()
        items.reset()
        for key, code, value in (
            (_NO_GRAPHICS, "<H", 0), (_CPUS, "<H", cpus), (_CPUS_MOST, "<H", cpus), (_NUMA, "<Q", 0),
            (_BOOT_MENU, "<H", 0), (_IRQ0_OVERRIDE, "<B", 1),
        ):  # fmt: skip
            items.put(key, struct.pack(code, value))
        items.put_file(_E820, b"".join([struct.pack("<QQI", at, size, RAM) for at, size in ram(self._vm.memory.size)]))
        screen = self._vm.config.get("screen") or "off"
        if screen == "off":
            items.put_file("etc/sercon-port", struct.pack("<H", COM1))
        elif screen != "graphics" and self._video is not None:  # else the display has it in its ROM
            items.put_file("vgaroms/vgabios.bin", self._video)
        items.put_file("etc/boot-fail-wait", struct.pack("<I", 0xFFFFFFFF))  # then it stays where it is
        if order:
            items.put_file("bootorder", ("\n".join(order) + "\n").encode() + b"\0")
        for name, data in loader.files(aml, cpus=cpus, **acpi).items():
            items.put_file(name, data)

    def _shadow(self):
        """The end of the ROM in RAM below 1 MiB."""
        size = min(len(self._data), _SHADOW_MOST)
        self._vm.memory.write(ONE_MIB - size, memoryview(self._data)[-size:])

    def _set_cmos(self):
        ram = self._vm.pc.rtc.ram
        size = self._vm.memory.size
        low, high = self._vm.memory.segments[0][1], 0
        if len(self._vm.memory.segments) > 1:
            high = size - low
        ram[_SHUTDOWN] = 0
        struct.pack_into("<H", ram, _ABOVE_1_MIB, min((low - ONE_MIB) >> 10, 0xFC00))
        struct.pack_into("<H", ram, _ABOVE_16_MIB, max(low - (16 << 20), 0) >> 16)
        ram[_ABOVE_4_GIB : _ABOVE_4_GIB + 3] = (high >> 16).to_bytes(3, "little")
        ram[_MORE_CPUS] = 0  # fw_cfg tells

    def reset(self):
        """The reset line."""
        if self.variables:
            self.variables.flash.reset()

    def power_off(self):
        """The guest is switched off."""
        if self.variables:
            self.variables.forget()

    def close(self):
        """The guest is destroyed."""
        if self.variables:
            self.variables.close()

    # -- state as data

    def save(self):
        """Plain data of fw_cfg and the variables."""
        return {"fw_cfg": self.fw_cfg.save(), "variables": self.variables.save() if self.variables else None}

    def load(self, saved):
        self.fw_cfg.load(saved["fw_cfg"])
        if self.variables:
            self.variables.load(saved["variables"])
