"""The BIOS data area: the words at 0x400 that kernels read without asking the BIOS.

Limits: only COM ports, the EBDA segment, memory sizes and equipment are filled in.
Source: the IBM PC/AT technical reference, "ROM BIOS data areas".
"""

from vmm.memory.e820 import EBDA

COM_PORTS = 0x400  # four words
EBDA_SEGMENT = 0x40E
EQUIPMENT = 0x410
BASE_MEMORY_KIB = 0x413
_SERIAL_COUNT = 9  # first bit of the number of serial ports in EQUIPMENT


def install(memory, com_ports):
    """Writes the data area. `com_ports`: base ports of COM1.., 0 where absent."""
    count = 0
    for index in range(4):
        port = com_ports[index] if index < len(com_ports) else 0
        memory.write_u16(COM_PORTS + 2 * index, port)
        if port:
            count += 1
    memory.write_u16(EQUIPMENT, count << _SERIAL_COUNT)
    if memory.size >= EBDA + 1024:
        memory.write_u16(EBDA_SEGMENT, EBDA >> 4)
        memory.write_u8(EBDA, 1)  # the EBDA's own size in KiB
    memory.write_u16(BASE_MEMORY_KIB, min(memory.size, EBDA) >> 10)
