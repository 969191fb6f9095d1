"""The BIOS data area: the words at 0x400 that kernels read without asking the BIOS.

Limits: only COM ports, the EBDA segment, memory sizes, equipment and the video mode are filled in.
Source: the IBM PC/AT technical reference, "ROM BIOS data areas".
"""

from vmm.devices.pc_ports import VGA_CRTC
from vmm.memory.e820 import EBDA

COM_PORTS = 0x400  # four words
EBDA_SEGMENT = 0x40E
EQUIPMENT = 0x410
BASE_MEMORY_KIB = 0x413
VIDEO_MODE = 0x449
COLUMNS = 0x44A
PAGE_SIZE = 0x44C
CURSOR = 0x450  # column and row, of page 0
CURSOR_SHAPE = 0x460
CRTC_PORT = 0x463
ROWS = 0x484  # less 1
CHARACTER_HEIGHT = 0x485
_COLOUR_80 = 0x20  # in EQUIPMENT: the display starts in colour, 80 columns
_SERIAL_COUNT = 9  # first bit of the number of serial ports in EQUIPMENT


def install(memory, com_ports):
    """Writes the data area. `com_ports`: base ports of COM1.., 0 where absent."""
    count = 0
    for index in range(4):
        port = com_ports[index] if index < len(com_ports) else 0
        memory.write_u16(COM_PORTS + 2 * index, port)
        if port:
            count += 1
    memory.write_u16(EQUIPMENT, count << _SERIAL_COUNT | _COLOUR_80)
    memory.write_u8(VIDEO_MODE, 3)
    memory.write_u16(COLUMNS, 80)
    memory.write_u16(PAGE_SIZE, 0x1000)
    memory.write_u16(CURSOR_SHAPE, 0x0D0E)
    memory.write_u16(CRTC_PORT, VGA_CRTC)
    memory.write_u8(ROWS, 24)
    memory.write_u16(CHARACTER_HEIGHT, 16)
    if memory.size >= EBDA + 1024:
        memory.write_u16(EBDA_SEGMENT, EBDA >> 4)
        memory.write_u8(EBDA, 1)  # the EBDA's own size in KiB
    memory.write_u16(BASE_MEMORY_KIB, min(memory.size, EBDA) >> 10)
