"""A flat binary at an address, started there in real, protected or 64-bit mode.

Real mode enters at CS:IP = 0:address below 64 KiB, else at (address / 16):(address mod 16). Protected and 64-bit mode
have flat segments and a GDT at 0x1000, 64-bit mode an identity map of 4 GiB at 0x9000; both move elsewhere where the
image covers them. The stack grows down from the address; in real mode from 64 KiB up, SS therefore lies 64 KiB below
CS. Limits: no firmware, so the guest sets up interrupt vectors itself and has no BIOS calls.
"""

from micropython import const

from vmm.loaders.identity import TABLES, TABLES_SIZE, identity_map
from vmm.loaders.place import Space
from vmm.loaders.state import GDT, GDT_SIZE, GPRS, LoadError, State
from vmm.vtx.x86 import PAGE, RFLAGS_FIXED

_SEGMENT = const(0x10000)  # bytes that SP addresses
_NUMBERED = {"d": 32, "w": 16, "b": 8}  # suffixes of r8 to r15
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
    space.copy(gpa, blob, len(blob), "image")
    registers = config.get("registers") or {}
    state = State(mode, gpa, gpa)
    if mode == "real" and gpa >= _SEGMENT:
        state.rip = gpa & 15
        state.segment_real("cs", gpa >> 4)
        state.gprs["rsp"] = 0  # the first push goes to SS:FFFE
        if not [name for name in ("sp", "esp", "rsp", "spl") if name in registers]:
            state.segment_real("ss", (gpa - _SEGMENT) >> 4)
    if mode == "long":
        state.cr3 = space.low(TABLES_SIZE, PAGE, TABLES, "page tables")
        identity_map(memory, state.cr3)
    if mode != "real":
        state.write_gdt(memory, space.low(GDT_SIZE, 16, GDT, "GDT"))
    try:
        set_registers(state, registers)
    except ValueError as error:
        raise space.error("flat: %s" % error) from None
    return state


def _part(register):
    """(name in GPRS, first bit, bits) of a general register by any of its names; None for other words."""
    if register in GPRS:
        return register, 0, 64
    if register in _LEGACY:
        return "r" + register, 0, 16
    if register[:1] == "e" and register[1:] in _LEGACY:
        return "r" + register[1:], 0, 32
    if len(register) == 2 and register[0] in "abcd" and register[1] in "lh":
        return "r%sx" % register[0], 8 if register[1] == "h" else 0, 8
    if register[:1] == "r" and register[:-1] in GPRS and register[-1] in _NUMBERED:
        return register[:-1], 0, _NUMBERED[register[-1]]
    if register[-1:] == "l" and register[:-1] in _LEGACY[4:]:
        return "r" + register[:-1], 0, 8
    return None


def set_registers(state, registers):
    """set_register() for each of a dict: whole registers first, so that parts of one may be given beside it."""
    for register in sorted(registers, key=lambda register: -(_part(register) or (0, 0, 0))[2]):
        set_register(state, register, registers[register])


def set_register(state, register, value):
    """Puts one register into `state`: a general one, ip, flags or, in real mode, a selector.

    A byte (al, ah, spl, r8b) keeps the rest of its register; ax, eax, rax clear the bits above them.
    ValueError for an unknown name, and for a value that the register cannot hold.
    """
    part = _part(register)
    bits = part[2] if part else 64 if register[:1] == "r" else 32 if register[:1] == "e" and register != "es" else 16
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise ValueError("register %s: %r is no %d-bit number" % (register, value, bits))
    name = register[1:] if bits > 16 else register
    if part:
        keep = state.gprs[part[0]] & ~(0xFF << part[1]) if bits == 8 else 0
        state.gprs[part[0]] = keep | value << part[1]
    elif name == "ip":
        state.rip = value
    elif name == "flags":
        state.rflags = value | RFLAGS_FIXED
    elif register in _SELECTORS and state.mode == "real":
        state.segment_real(register, value)
    else:
        raise ValueError("register %s is unknown in %s mode" % (register or "''", state.mode))
