"""Programs with the Linux boot header that are entered in real mode, by their own set-up code: kernels of protocols
before 2.10, zImages, and other programs with that header (iPXE, memdisk, GRUB, old memtest86).

They get the services of a BIOS (vmm/loaders/bios.py). Limits: protocol 2.00 or later; a kernel loaded low has to fit
below the set-up code at 0x90000. Source: Linux, Documentation/arch/x86/boot.rst, "Memory Layout", "The Real-Mode Kernel
Header".
"""

import struct

from micropython import const

from vmm.disks import SECTOR
from vmm.loaders.boot_header import (
    CMD_LINE_PTR,
    INITRD_ADDR_MAX,
    LOADED_HIGH,
    LOADER_UNDEFINED,
    LOADFLAGS,
    RAMDISK_IMAGE,
    SETUP_SECTS,
    TYPE_OF_LOADER,
    VERSION,
)
from vmm.loaders.state import State
from vmm.vtx.x86 import PAGE

# Offsets in the set-up code.
_CL_MAGIC = const(0x020)
_HEAP_END_PTR = const(0x224)

_CAN_USE_HEAP = const(0x80)
_MAGIC = const(0xA33F)
_OLD_INITRD_MAX = const(0x37FFFFFF)
_CMDLINE_MAX = const(255)  # a protocol before 2.06 does not say how much it takes

# Set-up code, its heap and stack; the command line behind them: (place, bytes, place of the command line).
_NEW = (0x10000, 0x10000, 0x20000)
_OLD = (0x90000, 0x9000, 0x99000)  # before 2.02, or loaded low
_HIGH = const(0x100000)
_LOW = const(0x10000)


def entered(blob):
    """Whether a program with the header has to be entered in real mode."""
    return struct.unpack_from("<H", blob, VERSION)[0] < 0x20A or not blob[LOADFLAGS] & LOADED_HIGH


def load(space, memory, blob, initrd, cmdline):
    """Places set-up code, kernel, command line (bytes) and initrd (a buffer or None); the vCPU's State.

    Raises LoadError by space.
    """
    version = struct.unpack_from("<H", blob, VERSION)[0]
    if version < 0x200:
        raise space.error("bzImage: boot protocol %d.%02d is older than 2.00, at offset 0x206" % divmod(version, 256))
    high = blob[LOADFLAGS] & LOADED_HIGH
    base, room, line = _NEW if high and version >= 0x202 else _OLD
    length = ((blob[SETUP_SECTS] or 4) + 1) * SECTOR
    if length >= len(blob) or length > room - PAGE:
        raise space.error("bzImage: set-up code of %d bytes does not fit, at offset 0x1f1" % length)
    if len(cmdline) > _CMDLINE_MAX:
        raise space.error("command line of %d bytes, the program takes %d" % (len(cmdline), _CMDLINE_MAX))
    space.claim(base, room, "set-up code")
    space.claim(line, len(cmdline) + 1, "command line")
    kernel = blob[length:]
    space.copy(_HIGH if high else _LOW, kernel, len(kernel), "kernel")
    setup = bytearray(blob[:length])
    setup[TYPE_OF_LOADER] = LOADER_UNDEFINED
    if version >= 0x201:
        setup[LOADFLAGS] |= _CAN_USE_HEAP
        struct.pack_into("<H", setup, _HEAP_END_PTR, room - 0x200)
    if version >= 0x202:
        struct.pack_into("<I", setup, CMD_LINE_PTR, line)
    else:
        struct.pack_into("<HH", setup, _CL_MAGIC, _MAGIC, line - base)
    if initrd is not None:
        top = struct.unpack_from("<I", setup, INITRD_ADDR_MAX)[0] if version >= 0x203 else _OLD_INITRD_MAX
        gpa = space.high(len(initrd), PAGE, top + 1, "initrd")
        space.fill(gpa, initrd, len(initrd))
        struct.pack_into("<II", setup, RAMDISK_IMAGE, gpa, len(initrd))
    memory.write(base, setup)
    memory.write(line, cmdline + b"\0")
    state = State("real", 0, room - 0x10)
    for name in ("ds", "es", "fs", "gs", "ss"):
        state.segment_real(name, base >> 4)
    state.segment_real("cs", (base >> 4) + 0x20)
    state.bios = True
    return state
