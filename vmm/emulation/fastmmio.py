"""The short way of a 64-bit guest's MOV to or from a device's register: no allocation.

It serves what nearly all accesses are (a MOV or MOVZX of 1, 2 or 4 bytes, 4-level
paging, code within one page and in the RAM below the device hole) and answers MISS for
everything else, having changed nothing; vmm/emulation/access.py is the long way. Rights of the
code's page are not looked at: the CPU has just fetched from it.
"""

from array import array

import micropython
from micropython import const

from vmm.emulation.fastmov import decode, load, source
from vmm.vtx.frame import DR7, LENGTH, RIP, VECTORING_INFO
from vmm.vtx.vmcs import GUEST_CR3, GUEST_CS_ACCESS_RIGHTS
from vmm.vtx.vmcs_bits import RIGHTS_L

MISS = const(-1)

_WRITE = const(1 << 13)  # as in vmm/emulation/fastmov.py


@micropython.viper
def code_at(rip: int, cr3: int, ram: int, size: int) -> int:
    """Host address of the 15 bytes at canonical address `rip`, 0 where that is not simple.

    cr3: of 4-level paging. ram, size: host address and bytes of the guest's RAM from gpa 0.
    """
    if rip & 0xFFF > 0xFF1:
        return 0
    table = cr3 & 0xFFFFFFFFFF000
    shift = 39
    while True:
        if table >= size:
            return 0
        entry = ptr32(ram + table + ((rip >> shift & 511) << 3))
        low = int(entry[0])
        if not low & 1:
            return 0
        table = (int(entry[1]) & 0xFFFFF) << 32 | low & 0xFFFFF000
        if shift == 12:
            break
        if low & 0x80:
            if shift > 30:
                return 0
            break
        shift -= 9
    offset = (1 << shift) - 1
    gpa = table & (offset ^ -1) | rip & offset
    if gpa + 15 > size:
        return 0
    return ram + gpa


class FastMmio:
    """devices {gpa >> 12: device with read(offset in the page, size), write(offset, size, value)}.

    ram, size: host address and bytes of the guest's RAM from gpa 0. ports: the PortIo
    whose `outcome` says what a device asked for.
    """

    def __init__(self, devices, ram, size, ports):
        self.devices = devices
        self._ram = array("Q", (ram, size))
        self._ports = ports

    @micropython.viper
    def access(self, vcpu, gpa: int) -> int:
        """Execute the access to the register at `gpa` that made `vcpu` exit: a verdict, or MISS."""
        f = ptr32(vcpu)
        if int(f[VECTORING_INFO]) & 0x80000000 or f[DR7] & 0xFF:
            return MISS
        device = self.devices.get(gpa >> 12, self)
        if device is self or not int(vcpu.read(GUEST_CS_ACCESS_RIGHTS)) & RIGHTS_L:
            return MISS
        rip = int(f[RIP]) | int(f[RIP + 1]) << 32
        ram = ptr32(self._ram)
        base = int(ram[0]) | int(ram[1]) << 32
        code = int(code_at(rip, vcpu.read(GUEST_CR3), base, int(ram[2]) | int(ram[3]) << 32))
        if code == 0:
            return MISS
        number = int(decode(code, 64))
        size = number >> 4 & 15
        offset = gpa & 0xFFF
        if number == 0 or offset + size > 0x1000:
            return MISS
        f[LENGTH] = number & 15
        f[LENGTH + 1] = 0
        if number & _WRITE:
            device.write(offset, size, source(vcpu, number, code))
            return int(self._ports.outcome) | 1
        value = int(device.read(offset, size))
        if size == 4:
            at = number >> 7 & 30
            f[at] = value
            f[at + 1] = 0
        else:
            load(vcpu, number, value & ((1 << (size << 3)) - 1))
        return 1
