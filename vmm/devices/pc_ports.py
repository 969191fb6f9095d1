"""Where a PC has its devices: their first ports, and the ISA interrupts of COM1 to COM4.

They are those of the guests' PC (vmm/pc.py) and of the machine, whose own devices the port drives. Addresses in memory
are in vmm/vtx/x86.py; ports of the guests' PC alone in vmm/acpi/tables.py.
"""

from micropython import const

PIC_MASTER = const(0x20)
PIT = const(0x40)
KEYBOARD = const(0x60)
SYSTEM_CONTROL_B = const(0x61)
KEYBOARD_COMMAND = const(0x64)
RTC = const(0x70)
SYSTEM_CONTROL_A = const(0x92)
PIC_SLAVE = const(0xA0)
COM4 = const(0x2E8)
COM2 = const(0x2F8)
VGA = const(0x3C0)
VGA_CRTC = const(0x3D4)
VGA_STATUS = const(0x3DA)
COM3 = const(0x3E8)
COM1 = const(0x3F8)
ELCR = const(0x4D0)
RESET_CONTROL = const(0xCF9)

COM1_IRQ = const(4)  # also COM3's
COM2_IRQ = const(3)  # also COM4's
