"""PVH: ELF kernels with the note XEN_ELFNOTE_PHYS32_ENTRY, entered in 32-bit protected mode with EBX at the start
information (Linux with CONFIG_PVH, FreeBSD, NetBSD, Unikraft).

ECX and the rest are 0, paging is off, segments are flat. Limits: one module, `initrd` of the guest's file; all below
4 GiB. Source: Xen, docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h.
"""

import struct

from micropython import const

from vmm.loaders import elf
from vmm.loaders.place import LOW_FLOOR, Space
from vmm.loaders.state import GDT_SIZE, LoadError, State
from vmm.memory.e820 import FOUR_GIB
from vmm.vtx.x86 import PAGE

_PHYS32_ENTRY = const(18)
_MAGIC = const(0x336EC578)
_VERSION = const(1)
_INFO = "<IIIIQQQQII"  # magic, version, flags, modules, their list, command line, RSDP, map, entries of it, reserved
_MODULE = "<QQQQ"  # address, bytes, command line, reserved
_RANGE = "<QQII"


def entry(name, image, blob):
    """The entry point of an elf.Elf by its note. LoadError where it has none."""
    for at, size in image.notes:
        end = at + size
        while at + 12 <= end:
            owner, length, kind = struct.unpack_from("<III", blob, at)
            data = at + 12 + (owner + 3 & ~3)
            if data + length > end:
                break
            if kind == _PHYS32_ENTRY and bytes(blob[at + 12 : at + 12 + owner]) == b"Xen\0" and length in (4, 8):
                return int.from_bytes(blob[data : data + length], "little")
            at = data + (length + 3 & ~3)
    raise LoadError("%s: PVH: no note XEN_ELFNOTE_PHYS32_ENTRY in its program headers" % name)


def load(memory, config, blobs, e820, rsdp=0):
    """Puts kernel, initrd, command line and start information into `memory`; the vCPU's State. LoadError."""
    name = config["kernel"]
    if name not in blobs:
        raise LoadError("%s: no boot module of this name for the kernel" % name)
    blob = memoryview(blobs[name])
    space = Space(memory, e820, name)
    image = elf.Elf(name, blob)
    rip = entry(name, image, blob)
    image.load(space)
    if not space.loaded(rip):
        raise space.error("PVH: entry 0x%x lies in no segment" % rip)
    modules = []
    if config.get("initrd"):
        if config["initrd"] not in blobs:
            raise LoadError("%s: no boot module of this name for the initrd" % config["initrd"])
        data = memoryview(blobs[config["initrd"]])
        gpa = space.high(max(len(data), 1), PAGE, FOUR_GIB, "initrd")
        space.fill(gpa, data, len(data))
        modules.append(struct.pack(_MODULE, gpa, len(data), 0, 0))
    cmdline = (config.get("cmdline") or "").encode() + b"\0"
    ranges = b"".join([struct.pack(_RANGE, base, size, kind, 0) for base, size, kind in e820])
    info_size = struct.calcsize(_INFO)
    parts = (b"".join(modules), ranges, cmdline)
    gdt = space.low(GDT_SIZE + info_size + sum([len(part) for part in parts]), 16, LOW_FLOOR, "start information")
    info = gdt + GDT_SIZE
    places = []
    at = info + info_size
    for part in parts:
        places.append(at)
        memory.write(at, part)
        at += len(part)
    memory.write(info, struct.pack(
        _INFO, _MAGIC, _VERSION, 0, len(modules), places[0] if modules else 0, places[2], rsdp, places[1], len(e820), 0,
    ))  # fmt: skip
    state = State("protected", rip)
    state.write_gdt(memory, gdt)
    state.gprs["rbx"] = info
    return state
