"""Linux x86 boot protocol: bzImage, and the vmlinux ELF that is inside it.

A bzImage starts at its 64-bit entry where it has one, else at its 32-bit entry; a
vmlinux starts at its ELF entry with the registers of the same protocol. A bzImage of a
protocol before 2.10 (Linux 2.6.31), a zImage, and any other program with that header that is
loaded low are entered in real mode (setup16.py). Limits: no EFI hand-over, no setup_data;
initrd and command line below 4 GiB.
Source: Linux, Documentation/arch/x86/boot.rst and zero-page.rst. The offsets below hold in
the zero page (boot_params) and in the bzImage alike.
"""

import struct

from micropython import const

from vmm.loaders import elf, setup16
from vmm.loaders.boot_header import (
    CMD_LINE_PTR,
    HEADER,
    INITRD_ADDR_MAX,
    LOADED_HIGH,
    LOADER_UNDEFINED,
    LOADFLAGS,
    RAMDISK_IMAGE,
    SETUP_SECTS,
    TYPE_OF_LOADER,
    VERSION,
)
from vmm.loaders.identity import TABLES, TABLES_SIZE, identity_map
from vmm.loaders.place import Space
from vmm.loaders.state import GDT, LoadError, State
from vmm.vtx.x86 import PAGE

# Zero page
_ORIG_VIDEO_MODE = const(0x006)
_ORIG_VIDEO_COLS = const(0x007)
_ORIG_VIDEO_LINES = const(0x00E)
_ORIG_VIDEO_ISVGA = const(0x00F)
_ORIG_VIDEO_POINTS = const(0x010)
_ACPI_RSDP_ADDR = const(0x070)
_E820_ENTRIES = const(0x1E8)
_E820_TABLE = const(0x2D0)
_E820_MAX = const(128)
# Setup header
_SYSSIZE = const(0x1F4)
_BOOT_FLAG = const(0x1FE)
_HEADER_LENGTH = const(0x201)
_KERNEL_ALIGNMENT = const(0x230)
_RELOCATABLE_KERNEL = const(0x234)
_XLOADFLAGS = const(0x236)
_CMDLINE_SIZE = const(0x238)
_SETUP_DATA = const(0x250)
_PREF_ADDRESS = const(0x258)
_INIT_SIZE = const(0x260)
_HEADER_MAX_END = const(0x290)

_XLF_KERNEL_64 = const(1)
_ENTRY_64 = const(0x200)

# Where the loader's own data goes, below 640 KiB.
_STACK_TOP = const(0x7000)
_BOOT_PARAMS = const(0x7000)
_CMDLINE = const(0x20000)
_CMDLINE_MAX = const(0x10000)
_KERNEL_FLOOR = const(0x100000)
_VMLINUX_INITRD_MAX = const(0x7FFFFFFF)
_VMLINUX_CMDLINE_SIZE = const(2047)


def is_bzimage(blob):
    """Whether `blob` carries the boot protocol's signature."""
    return len(blob) > HEADER + 4 and bytes(blob[HEADER : HEADER + 4]) == b"HdrS"


def _named(blobs, name, role):
    if name not in blobs:
        raise LoadError("%s: no boot module of this name for the %s" % (name, role))
    return memoryview(blobs[name])


def load(memory, config, blobs, e820, rsdp=0):
    """Puts kernel, initrd, command line and zero page into `memory`; the vCPU's State.

    config  'kernel', and optionally 'initrd' (names in `blobs`) and 'cmdline'
    blobs   {name: buffer}, the boot modules
    e820    [(gpa, bytes, type), ...] of the guest
    rsdp    gpa of the ACPI RSDP, 0 for none
    Raises LoadError.
    """
    name = config["kernel"]
    blob = _named(blobs, name, "kernel")
    space = Space(memory, e820, name)
    if is_bzimage(blob):
        _check_bzimage(name, blob)
        if setup16.entered(blob):
            initrd = _named(blobs, config["initrd"], "initrd") if config.get("initrd") else None
            return setup16.load(space, memory, blob, initrd, (config.get("cmdline") or "").encode())
    params = bytearray(PAGE)
    space.claim(GDT, PAGE, "GDT")
    space.claim(_STACK_TOP - PAGE, PAGE, "stack")
    space.claim(_BOOT_PARAMS, PAGE, "zero page")
    space.claim(TABLES, TABLES_SIZE, "page tables")
    cmdline = (config.get("cmdline") or "").encode()
    space.claim(_CMDLINE, min(len(cmdline) + 1, _CMDLINE_MAX), "command line")
    if is_bzimage(blob):
        mode, rip = _load_bzimage(space, name, blob, params)
    elif len(blob) >= 4 and bytes(blob[:4]) == elf.MAGIC:
        mode, rip = _load_vmlinux(space, name, blob, params)
    else:
        raise LoadError("%s: neither bzImage (HdrS at 0x202) nor ELF (at 0x0)" % name)
    _finish_params(space, config, blobs, e820, rsdp, cmdline, params)
    memory.write(_CMDLINE, cmdline + b"\0")
    memory.write(_BOOT_PARAMS, params)
    return _start(memory, mode, rip)


def _check_bzimage(name, blob):
    if len(blob) < _HEADER_MAX_END:
        raise LoadError("%s: bzImage: setup header cut off, at offset 0x%x" % (name, len(blob)))
    if struct.unpack_from("<H", blob, _BOOT_FLAG)[0] != 0xAA55:
        raise LoadError("%s: bzImage: no boot flag AA55h, at offset 0x1fe" % name)


def _load_bzimage(space, name, blob, params):
    version = struct.unpack_from("<H", blob, VERSION)[0]
    header_end = min(HEADER + blob[_HEADER_LENGTH], _HEADER_MAX_END)
    params[SETUP_SECTS:header_end] = blob[SETUP_SECTS:header_end]
    offset = ((blob[SETUP_SECTS] or 4) + 1) * 512
    size = struct.unpack_from("<I", blob, _SYSSIZE)[0] * 16
    if size == 0 or offset + size > len(blob) + 15:
        text = "%s: bzImage: kernel of 0x%x bytes cut off, at offset 0x%x"
        raise LoadError(text % (name, size, offset))
    data = blob[offset : offset + size]
    gpa = _place_kernel(space, blob, len(data))
    space.fill(gpa, data, len(data))
    if version >= 0x20C and struct.unpack_from("<H", blob, _XLOADFLAGS)[0] & _XLF_KERNEL_64:
        return "long", gpa + _ENTRY_64
    return "protected", gpa


def _place_kernel(space, blob, length):
    """Claims the room that the kernel needs while it unpacks itself."""
    pref_address = struct.unpack_from("<Q", blob, _PREF_ADDRESS)[0]
    size = max(struct.unpack_from("<I", blob, _INIT_SIZE)[0], length)
    if not blob[_RELOCATABLE_KERNEL]:
        return space.claim(pref_address or _KERNEL_FLOOR, size, "kernel")
    if pref_address and space.fits(pref_address, size):
        return space.claim(pref_address, size, "kernel")
    align = struct.unpack_from("<I", blob, _KERNEL_ALIGNMENT)[0]
    if align & (align - 1) or not PAGE <= align <= 1 << 30:
        raise space.error("bzImage: kernel alignment 0x%x, at offset 0x230" % align)
    return space.low(size, align, _KERNEL_FLOOR, "kernel")


def _load_vmlinux(space, name, blob, params):
    image = elf.Elf(name, blob)
    rip = image.entry_gpa()
    image.load(space)
    params[HEADER : HEADER + 4] = b"HdrS"
    struct.pack_into("<H", params, _BOOT_FLAG, 0xAA55)
    struct.pack_into("<H", params, VERSION, 0x20F)
    params[LOADFLAGS] = LOADED_HIGH
    struct.pack_into("<I", params, INITRD_ADDR_MAX, _VMLINUX_INITRD_MAX)
    struct.pack_into("<I", params, _CMDLINE_SIZE, _VMLINUX_CMDLINE_SIZE)
    return "long" if image.bits == 64 else "protected", rip


def _fill_screen_info(params):
    """screen_info: VGA's mode 3, its cursor at the start of the page."""
    params[_ORIG_VIDEO_MODE] = 3
    params[_ORIG_VIDEO_COLS] = 80
    params[_ORIG_VIDEO_LINES] = 25
    params[_ORIG_VIDEO_ISVGA] = 1
    struct.pack_into("<H", params, _ORIG_VIDEO_POINTS, 16)


def _finish_params(space, config, blobs, e820, rsdp, cmdline, params):
    limit = struct.unpack_from("<I", params, _CMDLINE_SIZE)[0]
    limit = min(limit or 255, _CMDLINE_MAX - 1)
    if len(cmdline) > limit:
        raise space.error("command line of %d bytes, the kernel takes %d" % (len(cmdline), limit))
    params[TYPE_OF_LOADER] = LOADER_UNDEFINED
    if (config.get("screen") or "off") != "off":
        _fill_screen_info(params)
    struct.pack_into("<I", params, CMD_LINE_PTR, _CMDLINE)
    struct.pack_into("<Q", params, _SETUP_DATA, 0)
    struct.pack_into("<Q", params, _ACPI_RSDP_ADDR, rsdp)
    if config.get("initrd"):
        initrd = _named(blobs, config["initrd"], "initrd")
        end = struct.unpack_from("<I", params, INITRD_ADDR_MAX)[0] + 1
        what = "initrd %s" % config["initrd"]
        gpa = space.high(len(initrd), PAGE, end, what)
        space.fill(gpa, initrd, len(initrd))
        struct.pack_into("<II", params, RAMDISK_IMAGE, gpa, len(initrd))
    if len(e820) > _E820_MAX:
        raise space.error("%d memory ranges, the zero page takes %d" % (len(e820), _E820_MAX))
    params[_E820_ENTRIES] = len(e820)
    for index in range(len(e820)):
        base, size, kind = e820[index]
        struct.pack_into("<QQI", params, _E820_TABLE + 20 * index, base, size, kind)


def _start(memory, mode, rip):
    """The registers of the 32-bit and 64-bit boot protocol, GDT and page tables."""
    state = State(mode, rip, _STACK_TOP)
    state.write_gdt(memory, GDT)
    state.gprs["rsi"] = _BOOT_PARAMS
    if mode == "long":
        identity_map(memory, TABLES)
        state.cr3 = TABLES
    return state
