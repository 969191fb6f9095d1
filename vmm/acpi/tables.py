"""A guest's ACPI tables: RSDP, RSDT, XSDT, FADT, FACS, MADT, HPET, DSDT; with PCI, MCFG and SSDTs.

They lie at 0xE0000, in reserved memory, so that a scan for the RSDP finds them, too; firmware gets them from
vmm/acpi/loader.py. The fixed hardware (not hardware-reduced, always in ACPI mode) is a block of 16 ports at PM_BASE.
Limits: up to 16 processors, one I/O APIC.
Source: ACPI Specification 6.4, "ACPI Software Programming Model", revisions of 5.1.
"""

import struct

from micropython import const

from vmm.devices.mc146818 import CENTURY
from vmm.devices.pc_ports import RESET_CONTROL
from vmm.devices.reset_cf9 import CPU, SYSTEM
from vmm.vtx.x86 import APIC_BASE, IOAPIC_BASE

RSDP = const(0xE0000)
_FACS = const(0xE0040)  # 64-byte aligned; the others follow
_TABLES_END = const(0xF0000)  # the MP table follows (vmm/acpi/mp.py)

PM_BASE = const(0x600)
PM1A_EVT_BLK = const(0x600)  # 4 bytes: PM1_STS, PM1_EN
PM1A_CNT_BLK = const(0x604)  # 2 bytes
PM_TMR_BLK = const(0x608)  # 4 bytes
GPE0_BLK = const(0x60C)  # 4 bytes: two of status, two of enable
RESET_VALUE = const(SYSTEM | CPU)
SCI_INT = const(9)

HPET = const(0xFED00000)
MAX_CPUS = const(16)

_OEM_ID = b"PCANEL"
_OEM_TABLE_ID = b"PCANELPY"
_SYSTEM_MEMORY = const(0)
_SYSTEM_IO = const(1)

# FADT flags
_WBINVD = const(1 << 0)
_PROC_C1 = const(1 << 2)
_SLP_BUTTON = const(1 << 5)  # set: there is none
_TMR_VAL_EXT = const(1 << 8)  # PM_TMR has 32 bits
_RESET_REG_SUP = const(1 << 10)
# IAPC_BOOT_ARCH
_LEGACY_DEVICES = const(1 << 0)
_8042 = const(1 << 1)
_VGA_NOT_PRESENT = const(1 << 2)
# MPS INTI flags
ACTIVE_HIGH_LEVEL = const(0x0D)

# DSDT placeholders (dsdt.asl): NameOp, name, DWordPrefix, value
_STA = b"\x08_STA\x0c\x3c\x5a\xc3\xa5"
_CPUS = b"\x08CPUS\x0c\x3d\x5a\xc3\xa5"
_VALUE = const(6)  # its offset there
_PRESENT = const(0x0F)  # _STA: present, enabled, shown, working

_PIECE = const(32)  # bytes between two preemption points


def checksum(data, at, length):
    """Set the byte at `at` so that the first `length` bytes add up to 0."""
    data[at] = 0
    # In pieces, so that guests of higher priority can preempt it.
    view = memoryview(data)
    total = 0
    for start in range(0, length, _PIECE):
        total += sum(view[start : min(start + _PIECE, length)])
    data[at] = -total & 0xFF


def table(signature, revision, body):
    """A system description table: header, `body`, checksum."""
    data = bytearray(36 + len(body))
    struct.pack_into("<4sIBB6s8sI4sI", data, 0, signature, len(data), revision, 0,
                     _OEM_ID, _OEM_TABLE_ID, 1, b"PCPY", 1)  # fmt: skip
    data[36:] = body
    checksum(data, 9, len(data))
    return data


def _gas(port, bits, access):
    """Generic Address Structure of I/O ports; access: 1 byte, 2 word, 3 dword."""
    return struct.pack("<BBBBQ", _SYSTEM_IO, bits, 0, access, port)


def fadt(dsdt, facs, keyboard, screen):
    """The FADT, revision 5, for tables at gpa `dsdt` and `facs`."""
    body = bytearray(268 - 36)
    boot_arch = _LEGACY_DEVICES | (0 if screen else _VGA_NOT_PRESENT) | (_8042 if keyboard else 0)
    flags = _WBINVD | _PROC_C1 | _SLP_BUTTON | _TMR_VAL_EXT | _RESET_REG_SUP
    at = 36
    struct.pack_into("<II", body, 36 - at, facs, dsdt)
    struct.pack_into("<H", body, 46 - at, SCI_INT)
    struct.pack_into("<IIIIIII", body, 56 - at, PM1A_EVT_BLK, 0, PM1A_CNT_BLK, 0, 0,
                     PM_TMR_BLK, GPE0_BLK)  # fmt: skip
    struct.pack_into("<BBBBB", body, 88 - at, 4, 2, 0, 4, 4)
    struct.pack_into("<HH", body, 96 - at, 101, 1001)  # latencies: no C2, no C3
    body[108 - at] = CENTURY
    struct.pack_into("<HBI", body, 109 - at, boot_arch, 0, flags)
    body[116 - at : 128 - at] = _gas(RESET_CONTROL, 8, 1)
    body[128 - at] = RESET_VALUE
    struct.pack_into("<BQQ", body, 131 - at, 1, 0, dsdt)
    body[148 - at : 160 - at] = _gas(PM1A_EVT_BLK, 32, 2)
    body[172 - at : 184 - at] = _gas(PM1A_CNT_BLK, 16, 2)
    body[208 - at : 220 - at] = _gas(PM_TMR_BLK, 32, 3)
    body[220 - at : 232 - at] = _gas(GPE0_BLK, 32, 1)
    return table(b"FACP", 5, body)


def madt(cpus, levels=()):
    """The MADT: `cpus` local APICs with IDs from 0, one I/O APIC with ID `cpus`. levels: ISA lines that PCI shares."""
    body = bytearray(struct.pack("<II", APIC_BASE, 1))  # PCAT_COMPAT: two 8259s too
    for cpu in range(cpus):
        body.extend(struct.pack("<BBBBI", 0, 8, cpu, cpu, 1))
    body.extend(struct.pack("<BBBBII", 1, 12, cpus, 0, IOAPIC_BASE, 0))
    body.extend(struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0))  # 8254: IRQ 0 on pin 2
    body.extend(struct.pack("<BBBBIH", 2, 10, 0, SCI_INT, SCI_INT, ACTIVE_HIGH_LEVEL))
    for line in levels:
        body.extend(struct.pack("<BBBBIH", 2, 10, 0, line, line, ACTIVE_HIGH_LEVEL))
    body.extend(struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1))  # NMI on LINT1 of all
    return table(b"APIC", 3, body)


def hpet(identity):
    """The HPET table: the address of vmm/devices/hpet.py, without a least period. identity: the chip's ID register."""
    return table(b"HPET", 1, struct.pack("<IBBBBQBHB", identity, _SYSTEM_MEMORY, 64, 0, 0, HPET, 0, 0, 0))


def mcfg(gpa):
    """The MCFG table: configuration space of PCI's bus 0 in memory. Source: PCI Firmware Specification 3.0, 4.1.2."""
    return table(b"MCFG", 1, struct.pack("<8xQHBB4x", gpa, 0, 0, 0))


def dsdt(aml, present, cpus, devices=b""):
    """The compiled DSDT `aml` with its placeholders filled in, and AML of more devices at its end. ValueError for
    another DSDT than dsdt.asl's.

    present: the names of the optional devices that the guest has; ValueError for one that is not in the DSDT.
    """
    data = bytearray(aml) + devices
    struct.pack_into("<I", data, 4, len(data))
    at = aml.find(_CPUS)
    if at < 0:
        raise ValueError("DSDT has no CPUS")
    struct.pack_into("<I", data, at + _VALUE, cpus)
    absent = list(present)
    at = aml.find(_STA)
    while at >= 0:
        name = aml[at - 4 : at].decode().rstrip("_")
        struct.pack_into("<I", data, at + _VALUE, _PRESENT if name in present else 0)
        if name in absent:
            absent.remove(name)
        at = aml.find(_STA, at + 1)
    if absent:
        raise ValueError("DSDT has no optional %s" % ", ".join(absent))
    checksum(data, 9, len(data))
    return data


def _facs():
    data = bytearray(64)
    struct.pack_into("<4sI", data, 0, b"FACS", len(data))
    data[32] = 2
    return data


def rsdp(rsdt, xsdt):
    """The RSDP for tables at these gpas."""
    data = bytearray(36)
    struct.pack_into("<8sB6sBIIQ", data, 0, b"RSD PTR ", 0, _OEM_ID, 2, rsdt, len(data), xsdt)
    checksum(data, 8, 20)
    checksum(data, 32, len(data))
    return data


def lay_out(base, aml, cpus=1, present=("COM1",), screen=False, hpet_id=0, pci=None):
    """All tables but the RSDP as [(gpa, bytes), ...] from `base` (a multiple of 64) on; RSDT and XSDT are the last two.

    aml        the compiled dsdt.asl
    cpus       processors, APIC IDs 0 to cpus - 1
    present    names of the DSDT's optional devices that the guest has
    screen     whether the tables report a VGA
    hpet_id    low half of the HPET's capabilities, for its table, 0: there is none
    pci        of the devices in a guest's file: ([SSDTs], interrupt lines of PCI, gpa of PCI's configuration space or
               None without PCI, AML of devices for the DSDT); None: there are none
    ValueError for too many processors, a device that the DSDT does not have, or another DSDT than dsdt.asl's.
    """
    if not 1 <= cpus <= MAX_CPUS:
        raise ValueError("%d processors; the DSDT declares %d" % (cpus, MAX_CPUS))
    facs = _facs()
    placed = [(base, facs)]
    dsdt_gpa = base + len(facs)
    timers = (hpet(hpet_id),) if hpet_id else ()
    if pci is None:
        pci = (), (), None, b""
    more = tuple([bytes(ssdt) for ssdt in pci[0]])
    if pci[2] is not None:
        more += (mcfg(pci[2]),)
    first = dsdt(aml, present, cpus, pci[3]), fadt(dsdt_gpa, base, "KBD" in present, screen), madt(cpus, pci[1])
    for one in first + timers + more:
        _append(placed, one)
    listed = [gpa for gpa, _ in placed[2:]]  # the FADT points to FACS and DSDT
    _append(placed, table(b"RSDT", 1, struct.pack("<%dI" % len(listed), *listed)))
    _append(placed, table(b"XSDT", 1, struct.pack("<%dQ" % len(listed), *listed)))
    return placed


def _append(placed, one):
    """Append a table at the next 16-byte boundary."""
    gpa, last = placed[-1]
    placed.append(((gpa + len(last) + 15) & ~15, one))


def install(memory, aml, **machine):
    """Write all tables into `memory`. Returns the gpa of the RSDP. aml, machine: as for lay_out(). ValueError."""
    placed = lay_out(_FACS, aml, **machine)
    end = placed[-1][0] + len(placed[-1][1])
    if end > _TABLES_END:
        raise ValueError("ACPI tables of %d bytes do not fit" % (end - _FACS))
    for gpa, one in placed:
        memory.write(gpa, one)
    memory.write(RSDP, rsdp(placed[-2][0], placed[-1][0]))
    return RSDP
