"""A flat binary at an address, started there in real, protected or 64-bit mode.

Real mode enters at CS:IP = 0:address below 64 KiB, else at (address / 16):(address
mod 16). Protected and 64-bit mode have flat segments and a GDT at 0x1000, 64-bit mode
an identity map of 4 GiB at 0x9000. The stack grows down from the address. Limits: no
firmware is there, so interrupt vectors and BIOS calls are the guest's own business.
"""

from micropython import const

from vmm.loaders.identity import TABLES_SIZE, identity_map
from vmm.loaders.place import Space
from vmm.loaders.state import GPRS, LoadError, State

_GDT = const(0x1000)
_PAGE_TABLES = const(0x9000)
_LEGACY = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")


def load(memory, config, blobs, e820, rsdp=0):
    """Copies config['kernel'] to config['address']; the vCPU's State.

    config['mode'] is 'real' (default), 'protected' or 'long'; config['registers'] gives
    {name: value} for general registers (ax, eax, rax), ip, flags and, in real mode,
    the selectors cs, ds, es, ss, fs, gs. Raises LoadError.
    """
    name = config["kernel"]
    if name not in blobs:
        raise LoadError("%s: no boot module of this name for the kernel" % name)
    blob = memoryview(blobs[name])
    if not len(blob):
        raise LoadError("%s: empty image, at offset 0x0" % name)
    space = Space(memory, e820, name)
    mode = config.get("mode") or "real"
    if mode not in ("real", "protected", "long"):
        raise space.error("flat: mode %s is unknown" % mode)
    gpa = config.get("address") or 0
    if mode == "real" and gpa >= 0x100000:
        raise space.error("flat: real mode cannot start at 0x%x" % gpa)
    if mode != "real":
        space.claim(_GDT, 32, "GDT")
    if mode == "long":
        space.claim(_PAGE_TABLES, TABLES_SIZE, "page tables")
    space.copy(gpa, blob, len(blob), "image")
    state = State(mode, gpa, gpa & 0xFFFF if mode == "real" else gpa)
    if mode == "real" and gpa >= 0x10000:
        state.rip = gpa & 15
        state.segment_real("cs", gpa >> 4)
    if mode != "real":
        state.write_gdt(memory, _GDT)
    if mode == "long":
        identity_map(memory, _PAGE_TABLES)
        state.cr3 = _PAGE_TABLES
    registers = config.get("registers") or {}
    for register in registers:
        _set(space, state, register, registers[register])
    return state


def _set(space, state, register, value):
    """Puts one of the guest file's registers into `state`."""
    bits = 64 if register[0] == "r" else 32 if register[0] == "e" and register != "es" else 16
    if not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise space.error("flat: register %s: %s is no %d-bit number" % (register, value, bits))
    name = register[1:] if bits > 16 else register
    if register in GPRS:
        state.gprs[register] = value
    elif name in _LEGACY:
        state.gprs["r" + name] = value
    elif name == "ip":
        state.rip = value
    elif name == "flags":
        state.rflags = value | 2
    elif name in ("cs", "ds", "es", "ss", "fs", "gs") and state.mode == "real":
        state.segment_real(name, value)
    else:
        raise space.error("flat: register %s is unknown in %s mode" % (register, state.mode))
