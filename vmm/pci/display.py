"""A VGA on PCI with a linear framebuffer: 1234:1111, with drivers in SeaBIOS's VGA BIOS, OVMF and Linux (bochs-drm).

BAR 0 is its video memory, mapped into the guest, so that drawing causes no exit. BAR 2 has the registers of the VGA (at
400h) and of the display interface (at 500h), which are at their ports, too. The ROM is a VGA BIOS. While a mode with a
framebuffer is on, A0000h shows the bank that the guest has selected.

Limits: no modes with planes, no EDID, little-endian only. The decoding of legacy VGA does not depend on the command
register. Source: QEMU, docs/specs/standard-vga.
"""

import cpu
import uctypes
from micropython import const

from vmm.devices.bochs_vbe import BANK, BANK_SIZE, REGISTERS, BochsVbe
from vmm.devices.rom import Rom
from vmm.memory import ept
from vmm.pci.function import Function
from vmm.vtx.x86 import PAGE

VENDOR = const(0x1234)
DEVICE = const(0x1111)
VIDEO_MEMORY = const(16 << 20)
PORTS = const(0x1CE)
WINDOW = const(0xA0000)
_CLASS = const(0x030000)  # VGA compatible
_REVISION = const(2)
_SUBSYSTEM = (0x1AF4, 0x1100)
_ALIGN = const(0x200000)
_VGA_AT = const(0x400)
_VGA_SIZE = const(0x20)
_VBE_AT = const(0x500)
_VBE_END = const(0x500 + 2 * REGISTERS)


class Display(Function):
    """vm: the guest; vga: its VGA (vmm/devices/vga.py), with the same screen; rom: the VGA BIOS, a buffer, or None.

    memory: the video memory's hpa; vbe: its BochsVbe.
    """

    def __init__(self, vm, vga, rom):
        Function.__init__(self, VENDOR, DEVICE, _CLASS, _REVISION, _SUBSYSTEM)
        self._vm = vm
        self._vga = vga
        self._banked = None  # the offset of the bank at A0000h, None: the guest's RAM is there
        self.memory = vm.take(VIDEO_MEMORY, _ALIGN)
        cpu.zero(self.memory, VIDEO_MEMORY)
        self.vbe = vga.vbe = BochsVbe(VIDEO_MEMORY, self._clear, self._changed)
        self._at = None
        self._rom_at = None
        self.bar(0, "memory", VIDEO_MEMORY, [(0, VIDEO_MEMORY, Video(self.memory))], True, self._moved)
        self.bar(2, "memory", PAGE, [(0, PAGE, Registers(vga, self.vbe))])
        vm.port_bus.claim(PORTS, 3, self.vbe, widest=2)
        if rom is not None:
            self._add_rom(rom)

    def _add_rom(self, rom):
        size = PAGE
        while size < len(rom):
            size *= 2
        self._rom = self._vm.take(size)
        data = uctypes.bytearray_at(self._rom, size)
        cpu.zero(self._rom, size)
        cpu.copy(self._rom, uctypes.addressof(rom), len(rom))
        self.rom_bar(size, [(0, size, Rom(data, self._vm.count_refused))], self._rom_moved)

    # -- mappings of the guest

    def _moved(self, at):
        self._at = self._map(self._at, at, self.memory, VIDEO_MEMORY, ept.RWX)

    def _rom_moved(self, at):
        self._rom_at = self._map(self._rom_at, at, self._rom, self.rom.size, ept.R | ept.X)

    def _map(self, old, at, hpa, size, rights):
        if at is not None:
            for base, length, _ in self._vm.memory.segments:
                if base < at + size and at < base + length:
                    raise ValueError("the guest's RAM")
            self._vm.ept.map(at, hpa, size, rights)
        elif old is not None:
            self._vm.ept.unmap(old, size)
        return at

    def _changed(self):
        """The mode or the bank may have changed."""
        vbe = self.vbe
        self._vga.colour_bits(vbe.wide_dac)
        banked = vbe.state[BANK] * BANK_SIZE if vbe.on else None
        if banked == self._banked:
            return
        vm = self._vm
        self._banked = banked
        hpa = vm.memory.hpa(WINDOW, BANK_SIZE) if banked is None else self.memory + banked
        vm.ept.map(WINDOW, hpa, BANK_SIZE)
        vm.flush()
        if banked is None:
            vm.ept.join(WINDOW)

    def _clear(self, size):
        cpu.zero(self.memory, size)

    # -- as a device

    def was_reset(self):
        self.vbe.reset()

    def save(self):
        """Plain data, without the video memory, which is saved as RAM is."""
        state = Function.save(self)
        state["vbe"] = self.vbe.save()
        return state

    def load(self, saved):
        Function.load(self, saved)
        self.vbe.load(saved["vbe"])


class Video:
    """The video memory on the bus, for accesses that the monitor emulates."""

    def __init__(self, hpa):
        self._hpa = hpa

    def read(self, offset, size):
        return int.from_bytes(uctypes.bytes_at(self._hpa + offset, size), "little")

    def write(self, offset, size, value):
        uctypes.bytearray_at(self._hpa + offset, size)[:] = value.to_bytes(size, "little")


class Registers:
    """BAR 2: the VGA's ports from 3C0h on, byte by byte, and the registers of the display interface."""

    def __init__(self, vga, vbe):
        self._vga = vga
        self._vbe = vbe

    def read(self, offset, size):
        if _VBE_AT <= offset < _VBE_END:
            return self._vbe.register(offset - _VBE_AT >> 1)
        value = 0
        if _VGA_AT <= offset and offset + size <= _VGA_AT + _VGA_SIZE:
            for i in range(size):
                value |= (self._vga.read(offset - _VGA_AT + i, 1) & 0xFF) << 8 * i
        return value

    def write(self, offset, size, value):
        if _VBE_AT <= offset < _VBE_END:
            self._vbe.set(offset - _VBE_AT >> 1, value & 0xFFFF)
        elif _VGA_AT <= offset and offset + size <= _VGA_AT + _VGA_SIZE:
            for i in range(size):
                self._vga.write(offset - _VGA_AT + i, 1, value >> 8 * i & 0xFF)
