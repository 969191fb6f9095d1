"""Fields of the Linux boot header, by their offsets in a bzImage and in the zero page.

Source: Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
"""

from micropython import const

SETUP_SECTS = const(0x1F1)
HEADER = const(0x202)  # "HdrS"
VERSION = const(0x206)
TYPE_OF_LOADER = const(0x210)
LOADFLAGS = const(0x211)
RAMDISK_IMAGE = const(0x218)
CMD_LINE_PTR = const(0x228)
INITRD_ADDR_MAX = const(0x22C)

# Values
LOADED_HIGH = const(1)  # of LOADFLAGS
LOADER_UNDEFINED = const(0xFF)  # of TYPE_OF_LOADER
