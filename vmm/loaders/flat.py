"""A flat binary at an address, started there in real, protected or 64-bit mode.

Real mode enters at CS:IP = 0:address below 64 KiB, else at (address / 16):(address
mod 16). Protected and 64-bit mode have flat segments and a GDT at 0x1000, 64-bit mode
an identity map of 4 GiB at 0x9000. The stack grows down from the address; in real mode
from 64 KiB up SS lies 64 KiB below CS for that. Limits: no firmware is there, so
interrupt vectors and BIOS calls are the guest's own business.
"""

from micropython import const

from vmm.loaders.identity import TABLES_SIZE, identity_map
from vmm.loaders.place import Space
from vmm.loaders.state import GPRS, LoadError, State

_GDT = const(0x1000)
_PAGE_TABLES = const(0x9000)
_SEGMENT = const(0x10000)  # what SP reaches
_LEGACY = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_SELECTORS = ("cs", "ds", "es", "ss", "fs", "gs")


def load(memory, config, blobs, e820, rsdp=0):
    """Copies config['kernel'] to config['address']; the vCPU's State.

    config['mode'] is 'real' (default), 'protected' or 'long'; config['registers'] gives
    {name: value} as set_register() takes them. Raises LoadError.
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
    registers = config.get("registers") or {}
    state = State(mode, gpa, gpa)
    if mode == "real" and gpa >= _SEGMENT:
        state.rip = gpa & 15
        state.segment_real("cs", gpa >> 4)
        state.gprs["rsp"] = 0  # the first push goes to SS:FFFE
        if not [name for name in ("sp", "esp", "rsp") if name in registers]:
            state.segment_real("ss", (gpa - _SEGMENT) >> 4)
    if mode != "real":
        state.write_gdt(memory, _GDT)
    if mode == "long":
        identity_map(memory, _PAGE_TABLES)
        state.cr3 = _PAGE_TABLES
    for register in registers:
        try:
            set_register(state, register, registers[register])
        except ValueError as error:
            raise space.error("flat: %s" % error) from None
    return state


def set_register(state, register, value):
    """Puts one register into `state`: a general one (ax, eax, rax), ip, flags or, in real mode, a selector.

    ValueError for a name that is none, and for a value that it cannot hold.
    """
    bits = 64 if register[:1] == "r" else 32 if register[:1] == "e" and register != "es" else 16
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise ValueError("register %s: %r is no %d-bit number" % (register, value, bits))
    name = register[1:] if bits > 16 else register
    if register in GPRS:
        state.gprs[register] = value
    elif name in _LEGACY:
        state.gprs["r" + name] = value
    elif name == "ip":
        state.rip = value
    elif name == "flags":
        state.rflags = value | 2
    elif register in _SELECTORS and state.mode == "real":
        state.segment_real(register, value)
    else:
        raise ValueError("register %s is unknown in %s mode" % (register or "''", state.mode))
