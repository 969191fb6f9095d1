"""Multiboot 1: ELF32, ELF64 and images with address fields; modules, command line, map.

Limits: no symbols, drives, APM or VBE information, so a requested video mode (flag
2) is not set, as the information's flags say; addresses below 4 GiB.
Source: Multiboot Specification 0.6.96.
"""

import struct

from micropython import const

from vmm.loaders import elf
from vmm.loaders.place import LOW_FLOOR, Space
from vmm.loaders.state import GDT_SIZE, MULTIBOOT_SELECTORS, LoadError, State
from vmm.memory.e820 import FOUR_GIB, ONE_MIB, RAM
from vmm.vtx.x86 import PAGE

_HEADER_MAGIC = const(0x1BADB002)
_LOADER_MAGIC = const(0x2BADB002)
_SEARCH = const(8192)
_ADDRESS_FIELDS = const(1 << 16)
_KNOWN_REQUIREMENTS = const(0x0007)  # page-aligned modules, memory, video mode

_INFO_SIZE = const(120)
_INFO_FLAGS = const(0x24D)  # memory, command line, modules, map, boot loader name
_NAME = b"Pcanel/Py\0"
_STACK_SIZE = const(0x1000)  # the specification promises none; other loaders provide theirs


def header_offset(blob):
    """Where in `blob` the Multiboot header is; -1 for none."""
    for at in range(0, min(len(blob), _SEARCH) - 11, 4):
        if blob[at] == 0x02 and blob[at + 1] == 0xB0:
            magic, flags, checksum = struct.unpack_from("<III", blob, at)
            if magic == _HEADER_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
                return at
    return -1


def load(memory, config, blobs, e820, rsdp=0):
    """Puts kernel, modules and the information structure into `memory`; the State.

    config  'kernel', and optionally 'cmdline' and 'modules' [[blob's name, string], ...]
    Raises LoadError.
    """
    name = config["kernel"]
    if name not in blobs:
        raise LoadError("%s: no boot module of this name for the kernel" % name)
    blob = memoryview(blobs[name])
    space = Space(memory, e820, name)
    at = header_offset(blob)
    if at < 0:
        raise space.error("Multiboot: no header in the first 8192 bytes, at offset 0x0")
    flags = struct.unpack_from("<I", blob, at + 4)[0]
    if flags & 0xFFFF & ~_KNOWN_REQUIREMENTS:
        raise space.error("Multiboot: flags 0x%x require unknown features, at offset 0x%x" % (flags, at + 4))
    if flags & _ADDRESS_FIELDS:
        entry, end = _load_by_fields(space, blob, at)
    else:
        image = elf.Elf(name, blob)
        entry, end = image.entry_gpa(), image.end()
        image.load(space)
    if entry >= FOUR_GIB:
        raise space.error("Multiboot: entry 0x%x lies above 4 GiB" % entry)
    if not space.loaded(entry):
        raise space.error("Multiboot: entry 0x%x lies outside guest RAM" % entry)
    modules = _load_modules(space, config, blobs, end)
    info, gdt = _write_info(memory, space, config, e820, modules)
    stack = space.low(_STACK_SIZE, 16, LOW_FLOOR, "stack")
    state = State("protected", entry, stack + _STACK_SIZE, MULTIBOOT_SELECTORS)
    state.write_gdt(memory, gdt)
    state.gprs["rax"] = _LOADER_MAGIC
    state.gprs["rbx"] = info
    return state


def _load_by_fields(space, blob, at):
    """The a.out kludge: the header says what goes where. Returns entry and end."""
    if at + 32 > len(blob):
        raise space.error("Multiboot: address fields cut off, at offset 0x%x" % (at + 12))
    header_addr, load_addr, load_end_addr, bss_end_addr, entry = struct.unpack_from("<IIIII", blob, at + 12)
    offset = at - (header_addr - load_addr)
    if not 0 <= offset <= at:
        raise space.error("Multiboot: load_addr 0x%x does not fit, at offset 0x%x" % (load_addr, at + 16))
    size = load_end_addr - load_addr if load_end_addr else len(blob) - offset
    if size <= 0 or offset + size > len(blob):
        text = "Multiboot: load_end_addr 0x%x does not fit, at offset 0x%x"
        raise space.error(text % (load_end_addr, at + 20))
    end = max(bss_end_addr, load_addr + size)
    if not load_addr <= entry < end:
        raise space.error("Multiboot: entry 0x%x lies outside, at offset 0x%x" % (entry, at + 28))
    space.put(load_addr, blob[offset : offset + size], end - load_addr, "image")
    return entry, end


def _load_modules(space, config, blobs, floor):
    """Copies the modules behind the kernel; [(start, end, string), ...]."""
    placed = []
    floor = max(floor, ONE_MIB)
    for name, string in config.get("modules") or []:
        if name not in blobs:
            raise LoadError("%s: no boot module of this name for a module" % name)
        data = memoryview(blobs[name])
        gpa = space.low(max(len(data), 1), PAGE, floor, "module %s" % name)
        if gpa + len(data) > FOUR_GIB:
            raise space.error("no guest RAM below 4 GiB left for module %s" % name)
        space.fill(gpa, data, len(data))
        placed.append((gpa, gpa + len(data), string.encode() + b"\0"))
    return placed


def _upper_memory(e820):
    """KiB of RAM from 1 MiB to the first hole."""
    for base, size, kind in e820:
        if kind == RAM and base == ONE_MIB:
            return size >> 10
    return 0


def _write_info(memory, space, config, e820, modules):
    """The information structure, what it points to, and a GDT; their gpas."""
    cmdline = (config.get("cmdline") or "").encode() + b"\0"
    table_size = 16 * len(modules)
    map_size = 24 * len(e820)
    strings = [cmdline, _NAME] + [string for _, _, string in modules]
    total = GDT_SIZE + _INFO_SIZE + table_size + map_size + sum([len(s) for s in strings])
    gdt = space.low(total, 16, LOW_FLOOR, "boot information")
    info = gdt + GDT_SIZE
    table = info + _INFO_SIZE
    ranges = table + table_size
    at = ranges + map_size
    placed = []
    for string in strings:
        memory.write(at, string)
        placed.append(at)
        at += len(string)
    data = bytearray(_INFO_SIZE)
    lower = min(e820[0][1] if e820 else 0, 640 << 10) >> 10
    struct.pack_into("<IIIIIII", data, 0, _INFO_FLAGS, lower, _upper_memory(e820), 0,
                     placed[0], len(modules), table)  # fmt: skip
    struct.pack_into("<II", data, 44, map_size, ranges)
    struct.pack_into("<I", data, 64, placed[1])
    memory.write(info, data)
    for index in range(len(modules)):
        start, end, _ = modules[index]
        memory.write(table + 16 * index, struct.pack("<IIII", start, end, placed[2 + index], 0))
    for index in range(len(e820)):
        base, size, kind = e820[index]
        memory.write(ranges + 24 * index, struct.pack("<IQQI", 20, base, size, kind))
    return info, gdt
