"""BIOS services for a guest that was entered in real mode: INT 11h to 1Ah.

The routines in the guest (vmm/loaders/bios.py) call by VMCALL; the program's registers and flags are in the vCPU and on
its stack (bios_call.py). bios_video.py is INT 10h, bios_keyboard.py INT 16h. Limits: no disks, no APM, no PCI BIOS, no
boot. An unsupported function returns the error of an older BIOS, and is counted. Source: IBM PC/AT Technical Reference,
"ROM BIOS"; ACPI, "System Address Map Interfaces".
"""

import struct

from micropython import const

from vmm import bda
from vmm.devices.mc146818 import CENTURY, DAY, HOURS, MINUTES, MONTH, SECONDS, YEAR
from vmm.devices.pc_ports import PIC_MASTER, PIC_SLAVE, PIT, RTC
from vmm.devices.uart16550_registers import LSR, LSR_DR
from vmm.handlers.bios_call import Call
from vmm.handlers.bios_keyboard import Keyboard
from vmm.handlers.bios_video import Video
from vmm.loaders import bios
from vmm.memory.e820 import ONE_MIB, RAM

_SMAP = const(0x534D4150)
_FROM_SETUP = const(0x86)  # AH of an unsupported function of INT 15h
_DAY = const(0x1800B0)  # timer ticks
_MOVED_MOST = const(0x8000)  # words of INT 15h, AH 87h


class Bios:
    """The BIOS of one guest: the chips' state after the power-on self-test, and the services."""

    def __init__(self, vm):
        self._vm = vm
        self._memory = vm.memory
        self._until = 0
        self._keyboard = Keyboard(vm.memory, vm.pc.com1)
        self._video = Video(vm.memory, vm.pc.vga)
        self._services = {
            0x10: self._video.call, 0x11: self._equipment, 0x12: self._base_memory, 0x13: self._disk,
            0x14: self._serial, 0x15: self._system, 0x16: self._keyboard.call, 0x17: self._printer,
            0x18: self._boot, 0x19: self._boot, 0x1A: self._time, bios.TIMER: self._tick,
        }  # fmt: skip
        for vector in self._services:
            vm.hypercalls.add(bios.CALLS + vector, self.answer)
        vm.hypercalls.calls[bios.CALLS + 0x16] = self._keyboard.poll(self.answer)

    def start(self):
        """Program the 8259s (vectors 08h and 70h, IRQ 0 unmasked) and the 8254 (18.2 Hz); write vectors and
        routines."""
        write = self._vm.port_bus.write
        for port, value in (
            (PIC_MASTER, 0x11), (PIC_MASTER + 1, 0x08), (PIC_MASTER + 1, 0x04), (PIC_MASTER + 1, 0x01),
            (PIC_SLAVE, 0x11), (PIC_SLAVE + 1, 0x70), (PIC_SLAVE + 1, 0x02), (PIC_SLAVE + 1, 0x01),
            (PIC_MASTER + 1, 0xF8), (PIC_SLAVE + 1, 0xFF), (PIT + 3, 0x36), (PIT, 0), (PIT, 0),
        ):  # fmt: skip
            write(port, 1, value)
        self._until = 0
        self._keyboard.reset()
        bios.install(self._memory)

    def answer(self, vcpu):
        """Handle the VMCALL of a routine. Returns the program's EAX."""
        vector = (vcpu.rax & 0xFFFFFFFF) - bios.CALLS
        try:
            call = Call(vcpu)
            if self._services[vector](call) is False:
                self._vm.count_refused("BIOS function of INT %02Xh" % vector)
            return call.finish()
        except ValueError:  # the program's stack or buffer lies outside its memory
            self._vm.count_refused("BIOS call with an address outside RAM")
            return 0

    # -- interrupts: each returns False for an unsupported function

    def _tick(self, call):
        count = self._memory.read_u32(bios.TICKS) + 1
        if count >= _DAY:
            count = 0
            self._memory.write_u8(bios.TICKS + 4, 1)  # midnight has passed
        self._memory.write_u32(bios.TICKS, count)

    def _equipment(self, call):
        call.ax = self._memory.read_u16(bda.EQUIPMENT)

    def _base_memory(self, call):
        call.ax = self._memory.read_u16(bda.BASE_MEMORY_KIB)

    def _disk(self, call):
        """No drive is present."""
        call.carry(call.ah != 0x15)
        call.ah = 0 if call.ah == 0x15 else 0x01

    def _serial(self, call):
        port = call.vcpu.rdx & 0xFFFF
        uart = self._vm.pc.coms[port] if port < 4 else None
        function = call.ah
        if uart is None or function > 3:
            call.ah = 0x80
            return function <= 3
        if function == 1:
            uart.write(0, 1, call.al)
        elif function == 2:
            if not uart.read(LSR, 1) & LSR_DR:
                call.ah = 0x80
                return True
            call.al = uart.read(0, 1)
        call.ah = uart.read(LSR, 1)
        if function in (0, 3):
            call.al = uart.read(6, 1)
        return True

    def _printer(self, call):
        call.ah = 0x01  # time-out

    def _boot(self, call):
        """No boot device: print that and halt."""
        if not self._until:
            self._until = 1
            self._video.write("No bootable device.\r\n")
            self._vm.log("its BIOS has nothing to boot from")
        call.again = True

    def _system(self, call):
        vcpu = call.vcpu
        call.carry(False)
        function = call.ah
        if call.ax == 0xE820 and vcpu.rdx & 0xFFFFFFFF == _SMAP:
            return self._memory_map(call)
        if call.ax == 0xE801:
            kib = self._above_1_mib()
            low, high = min(kib, 15 << 10), max(kib - (15 << 10), 0) >> 6
            call.ax = low
            call.put(bx=high, cx=low, dx=high)
        elif function == 0x88:
            call.ax = min(self._above_1_mib(), 0xFC00)
        elif function == 0x87:
            return self._move(call)
        elif function == 0x86:
            return self._wait(call)
        elif call.ax in (0x2400, 0x2401, 0x2402, 0x2403):  # the A20 gate, which is always open
            call.ah = 0
            if call.al == 2:
                call.al = 1
            elif call.al == 3:
                call.put(bx=3)
        elif function == 0xC1:
            vcpu.set_segment("es", *self._segment(vcpu, self._memory.read_u16(bda.EBDA_SEGMENT)))
        else:
            call.ah = _FROM_SETUP
            call.carry(True)
            return False
        return True

    @staticmethod
    def _segment(vcpu, selector):
        return (selector, selector << 4) + vcpu.segment("es")[2:]

    def _above_1_mib(self):
        """KiB from 1 MiB to the first hole."""
        for base, size, kind in self._vm.e820:
            if kind == RAM and base == ONE_MIB:
                return size >> 10
        return 0

    def _memory_map(self, call):
        vcpu = call.vcpu
        index = vcpu.rbx & 0xFFFFFFFF
        ranges = self._vm.e820
        if index >= len(ranges) or vcpu.rcx & 0xFFFFFFFF < 20:
            call.carry(True)
            call.ah = _FROM_SETUP
            return True
        vcpu.poke(vcpu.segment("es")[1] + (vcpu.rdi & 0xFFFF), struct.pack("<QQI", *ranges[index]))
        vcpu.rbx = index + 1 if index + 1 < len(ranges) else 0
        vcpu.rcx = 20
        call.eax = _SMAP
        return True

    def _move(self, call):
        """INT 15h, AH 87h: copy a block of memory between the bases in the caller's descriptors."""
        vcpu = call.vcpu
        table = vcpu.peek(vcpu.segment("es")[1] + (vcpu.rsi & 0xFFFF), 0x20)
        source, target = [int.from_bytes(table[at + 2 : at + 5], "little") | table[at + 7] << 24 for at in (0x10, 0x18)]
        size = 2 * (vcpu.rcx & 0xFFFF)
        if size > 2 * _MOVED_MOST or not self._memory.has(source, size) or not self._memory.has(target, size):
            call.ah = 0x02
            call.carry(True)
            return True
        self._memory.write(target, self._memory.read(source, size))
        call.ah = 0
        return True

    def _wait(self, call):
        clock = self._vm.clock
        if not self._until:
            microseconds = (call.vcpu.rcx & 0xFFFF) << 16 | call.vcpu.rdx & 0xFFFF
            self._until = clock.now() + microseconds * (clock.hz // 1000) // 1000
        call.again = clock.now() < self._until
        if not call.again:
            self._until = 0
        return True

    # -- time

    def _time(self, call):
        function = call.ah
        call.carry(False)
        if function == 0:
            ticks = self._memory.read_u32(bios.TICKS)
            call.put(cx=ticks >> 16, dx=ticks)
            call.al = self._memory.read_u8(bios.TICKS + 4)
            self._memory.write_u8(bios.TICKS + 4, 0)
        elif function == 1:
            self._memory.write_u32(bios.TICKS, (call.vcpu.rcx & 0xFFFF) << 16 | call.vcpu.rdx & 0xFFFF)
        elif function == 2:
            call.put(cx=self._cmos(HOURS) << 8 | self._cmos(MINUTES), dx=self._cmos(SECONDS) << 8)
        elif function == 4:
            call.put(cx=self._cmos(CENTURY) << 8 | self._cmos(YEAR), dx=self._cmos(MONTH) << 8 | self._cmos(DAY))
        else:
            call.carry(True)
            if function == 0xB1:
                call.ah = 0x81
            return False
        return True

    def _cmos(self, register):
        self._vm.port_bus.write(RTC, 1, register)
        return self._vm.port_bus.read(RTC + 1, 1)
