"""The display on PCI: registers of its framebuffer modes, and what of it is mapped where."""

import ctypes
import struct

import pytest
import uctypes
from clock import Clock
from support import Memory

from vmm.bus import MmioBus, PortBus
from vmm.devices import bochs_vbe as vbe
from vmm.devices.pci_header import COMMAND, ROM
from vmm.devices.vga import Vga
from vmm.pci import display
from vmm.pci.board import MEMORY, Board
from vmm.pci.display import PORTS

MIB = 1 << 20
RAM = 8 * MIB


class Ept:
    """What is mapped, {gpa: (hpa, size, rights)}."""

    def __init__(self):
        self.maps = {}
        self.joined = []

    def map(self, gpa, hpa, size, rights=7):
        self.maps[gpa] = hpa, size, rights

    def unmap(self, gpa, size):
        assert self.maps.pop(gpa)[1] == size

    def join(self, gpa):
        self.joined.append(gpa)


class Vm:
    def __init__(self, rom=b"\x55\xaa" + bytes(5000)):
        self.port_bus, self.mmio_bus, self.ept = PortBus(), MmioBus(), Ept()
        self.memory = Memory(RAM)
        ram = uctypes.addressof(self.memory.data)
        self.memory.segments = ((0, RAM, ram),)
        self.memory.hpa = lambda gpa, size: ram + gpa
        self.refused, self.said, self.flushes, self._taken = [], [], 0, []
        self.vga = Vga(Clock(100000000))
        self.board = Board(
            self.port_bus, self.mmio_bus, lambda n: None, None, 0x600, self.refused.append, self.said.append
        )
        self.display = display.Display(self, self.vga, rom and bytearray(rom))
        self.board.add(self.display)
        self.board.assign()

    def take(self, size, align=0x1000):
        self._taken.append(ctypes.create_string_buffer(size))
        return ctypes.addressof(self._taken[-1])

    def count_refused(self, what):
        self.refused.append(what)

    def flush(self):
        self.flushes += 1

    def set(self, n, value):
        self.port_bus.write(PORTS, 2, n)
        self.port_bus.write(PORTS + 1, 2, value)

    def get(self, n):
        self.port_bus.write(PORTS, 2, n)
        return self.port_bus.read(PORTS + 1, 2)

    def mode(self, width, height, bits, flags=vbe.ENABLED | vbe.LFB_ENABLED):
        self.set(vbe.ENABLE, 0)
        for n, value in ((vbe.XRES, width), (vbe.YRES, height), (vbe.BPP, bits), (vbe.ENABLE, flags)):
            self.set(n, value)


@pytest.fixture
def vm():
    return Vm()


def test_a_driver_finds_it(vm):
    assert vm.get(vbe.ID) == 0xB0C5
    vm.set(vbe.ID, 0xB0C0)
    assert vm.get(vbe.ID) == 0xB0C0
    vm.set(vbe.ID, 0x1234)
    assert vm.get(vbe.ID) == 0xB0C0
    assert vm.get(vbe.VIDEO_MEMORY_64K) == 256
    vm.set(vbe.ENABLE, vbe.GETCAPS)
    assert [vm.get(n) for n in (vbe.XRES, vbe.YRES, vbe.BPP)] == [2560, 1600, 32]
    assert vm.get(40) == 0


def test_a_mode(vm):
    ctypes.memset(vm.display.memory, 0x55, 4 * MIB)
    vm.mode(1024, 768, 32)
    assert vm.vga.graphics == (1024, 768, 32)
    assert vm.display.vbe.mode == (1024, 768, 32, 4096, 0)
    assert (vm.get(vbe.VIRT_WIDTH), vm.get(vbe.VIRT_HEIGHT)) == (1024, 4096)
    assert ctypes.string_at(vm.display.memory, 4 * MIB) == bytes(3 * MIB) + b"\x55" * MIB  # shown memory is cleared
    vm.set(vbe.XRES, 640)
    assert vm.get(vbe.XRES) == 1024
    vm.set(vbe.VIRT_WIDTH, 2048)
    vm.set(vbe.X_OFFSET, 5000)
    vm.set(vbe.Y_OFFSET, 100)
    assert vm.display.vbe.mode == (1024, 768, 32, 8192, 100 * 8192 + 4 * 1024)
    vm.set(vbe.Y_OFFSET, 60000)
    assert vm.get(vbe.Y_OFFSET) == 2048 - 768
    vm.set(vbe.VIRT_WIDTH, 65535)  # fewer lines than are shown would fit
    assert vm.get(vbe.VIRT_WIDTH) == 2048
    vm.set(vbe.ENABLE, 0)
    assert vm.vga.graphics is None
    ctypes.memset(vm.display.memory, 0x55, 16)
    vm.mode(640, 480, 8, vbe.ENABLED | 0x80)
    assert ctypes.string_at(vm.display.memory, 16) == b"\x55" * 16


@pytest.mark.parametrize(
    "mode", [(0, 480, 32), (640, 0, 32), (640, 480, 4), (640, 480, 7), (2560, 1601, 32), (3000, 9, 8)]
)
def test_a_mode_that_there_is_not(vm, mode):
    vm.mode(*mode)
    assert vm.get(vbe.ENABLE) == 0 and vm.vga.graphics is None


def test_its_registers_in_memory(vm):
    at = vm.display.bars[2].at
    vm.mode(800, 600, 16)
    assert vm.mmio_bus.read(at + 0x500 + 2 * vbe.XRES, 2) == 800
    vm.mmio_bus.write(at + 0x500 + 2 * vbe.ENABLE, 2, 0)
    assert vm.get(vbe.ENABLE) == 0
    vm.mmio_bus.write(at + 0x400 + 0x14, 2, 0x050E)  # CRTC index and data at once
    assert vm.vga.crtc(0x0E) == 5
    assert vm.mmio_bus.read(at + 0x400 + 0x0C, 1) == 0x67
    assert vm.mmio_bus.read(at, 8) == 0  # no EDID


def test_video_memory_is_mapped_where_its_bar_is(vm):
    assert vm.display.bars[0].at == MEMORY
    assert vm.ept.maps[MEMORY] == (vm.display.memory, 16 * MIB, 7)
    vm.mmio_bus.write(MEMORY + 8, 4, 0x11223344)  # what the monitor does in the CPU's place
    assert ctypes.string_at(vm.display.memory + 8, 4) == b"\x44\x33\x22\x11"
    assert vm.mmio_bus.read(MEMORY + 8, 8) == 0x11223344
    vm.display.write(0x10, 4, 0xFFFFFFFF)  # sizing
    assert vm.display.read(0x10, 4) == 0xFF000008 and MEMORY not in vm.ept.maps
    vm.display.write(0x10, 4, 0xF1000000)
    assert vm.ept.maps[0xF1000000][0] == vm.display.memory
    vm.display.write(COMMAND, 2, 0)
    assert 0xF1000000 not in vm.ept.maps
    vm.display.write(0x10, 4, 0)
    vm.display.write(COMMAND, 2, 3)
    assert list(vm.ept.maps) == []


def test_a_bar_over_ram_is_refused(vm):
    vm.memory.segments += ((1 << 30, 64 * MIB, 0),)
    vm.display.write(0x10, 4, (1 << 30) + 32 * MIB)
    assert vm.said == ["a BAR of PCI device 00:02.0 is at an address that is taken: the guest's RAM"]
    assert vm.refused == ["BAR at an address that is taken"] and vm.display.bars[0].at is None
    assert list(vm.ept.maps) == [] and vm.mmio_bus.find((1 << 30) + 32 * MIB) is None
    vm.display.write(0x10, 4, MEMORY)
    assert vm.display.bars[0].at == MEMORY


def test_the_rom(vm):
    vm.display.write(ROM, 4, 0xFFFFFFFE)
    assert vm.display.read(ROM, 4) == 0xFFFFE000
    vm.display.write(ROM, 4, 0xF2000001)
    hpa, size, rights = vm.ept.maps[0xF2000000]
    assert (size, rights) == (0x2000, 5) and ctypes.string_at(hpa, 2) == b"\x55\xaa"
    vm.mmio_bus.write(0xF2000000, 2, 0)
    assert vm.mmio_bus.read(0xF2000000, 2) == 0xAA55 and vm.refused == ["write to the firmware's ROM"]
    vm.display.write(ROM, 4, 0xF2000000)
    assert 0xF2000000 not in vm.ept.maps
    assert Vm(None).display.rom is None


def test_banks(vm):
    ram = vm.memory.segments[0][2]
    window = display.WINDOW
    assert window not in vm.ept.maps
    vm.mode(640, 480, 32)
    assert vm.ept.maps[window] == (vm.display.memory, 0x10000, 7)
    vm.set(vbe.BANK, 17)
    vm.set(vbe.BANK, 256)  # there are 256
    assert vm.ept.maps[window] == (vm.display.memory + (17 << 16), 0x10000, 7) and vm.get(vbe.BANK) == 17
    assert vm.flushes == 2
    vm.display.reset()
    assert vm.ept.maps[window] == (ram + window, 0x10000, 7) and vm.ept.joined == [window]


def test_the_palette_can_have_8_bits(vm):
    def colour(value):
        vm.vga.write(8, 1, 0)
        vm.vga.write(9, 1, value)
        return vm.vga.palette[0]

    vm.mode(640, 480, 8, vbe.ENABLED | 0x20)
    assert colour(0xFF) == 0xFF
    vm.set(vbe.ENABLE, 0)
    assert colour(0xFF) == 0x3F


def test_graphics_of_the_vga_alone():
    vga = Vga(Clock(100000000))
    assert vga.graphics is None
    vga.write(0x0E, 1, 6)
    vga.write(0x0F, 1, 5)
    vga.write(4, 1, 4)
    vga.write(5, 1, 0x0E)
    assert vga.graphics == (320, 200, 8)  # mode 13h
    vga.write(5, 1, 6)
    assert vga.graphics == (640, 400, 4)


def test_state(vm):
    vm.mode(1024, 768, 32)
    vm.set(vbe.BANK, 3)
    vm.port_bus.write(PORTS, 2, vbe.YRES)
    state = vm.display.save()
    other = Vm()
    other.mode(640, 480, 16)
    other.display.load(state)
    assert other.display.save() == state
    assert other.port_bus.read(PORTS + 1, 2) == 768
    assert other.ept.maps[MEMORY][0] == other.display.memory
    assert other.ept.maps[display.WINDOW][0] == other.display.memory + (3 << 16)
    assert struct.unpack_from("<I", state["config"], 0x10)[0] == MEMORY | 8
    with pytest.raises(ValueError, match="the saved state has no state"):
        other.display.vbe.load({})
