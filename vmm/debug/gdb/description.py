"""The target description that gdb reads once in a session: all registers, 64 bits wide, by their numbers.

Source: GDB manual, "Target Description Format", "i386 Features". The registers of org.pcanel.system have the names that
front ends know from QEMU's stub.
"""

_TYPES = {
    "org.gnu.gdb.i386.core": (
        ("flags", "i386_eflags", 4, (
            "CF 0", "PF 2", "AF 4", "ZF 6", "SF 7", "TF 8", "IF 9", "DF 10", "OF 11", "IOPL 12 13", "NT 14", "RF 16",
            "VM 17", "AC 18", "VIF 19", "VIP 20", "ID 21",
        )),
    ),
    "org.gnu.gdb.i386.sse": (
        ("flags", "i386_mxcsr", 4, (
            "IE 0", "DE 1", "ZE 2", "OE 3", "UE 4", "PE 5", "DAZ 6", "IM 7", "DM 8", "ZM 9", "OM 10", "UM 11", "PM 12",
            "FZ 15",
        )),
    ),
    "org.gnu.gdb.i386.avx": (),
    "org.gnu.gdb.i386.segments": (),
    "org.pcanel.system": (
        ("flags", "cr0", 8, (
            "PE 0", "MP 1", "EM 2", "TS 3", "ET 4", "NE 5", "WP 16", "AM 18", "NW 29", "CD 30", "PG 31",
        )),
        ("flags", "cr4", 8, (
            "VME 0", "PVI 1", "TSD 2", "DE 3", "PSE 4", "PAE 5", "MCE 6", "PGE 7", "PCE 8", "OSFXSR 9",
            "OSXMMEXCPT 10", "UMIP 11", "LA57 12", "VMXE 13", "FSGSBASE 16", "PCIDE 17", "OSXSAVE 18", "SMEP 20",
            "SMAP 21", "PKE 22",
        )),
        ("flags", "efer", 8, ("SCE 0", "LME 8", "LMA 10", "NXE 11")),
    ),
}  # fmt: skip
_VECTORS = (("v4_float", "ieee_single", 4), ("v2_double", "ieee_double", 2), ("v16_int8", "int8", 16),
            ("v8_int16", "int16", 8), ("v4_int32", "int32", 4), ("v2_int64", "int64", 2))  # fmt: skip


def _feature(row):
    """The name of the feature that a register belongs to."""
    name = row.name
    if row.group == "system":
        return "org.pcanel.system"
    if name in ("fs_base", "gs_base"):
        return "org.gnu.gdb.i386.segments"
    if name.startswith("ymm"):
        return "org.gnu.gdb.i386.avx"
    if name.startswith("xmm") or name == "mxcsr":
        return "org.gnu.gdb.i386.sse"
    return "org.gnu.gdb.i386.core"


def _flags(name, size, fields):
    parts = ['<flags id="%s" size="%d">' % (name, size)]
    for field in fields:
        words = field.split(" ")
        parts.append('<field name="%s" start="%s" end="%s"/>' % (words[0], words[1], words[-1]))
    return "".join(parts) + "</flags>"


def _vectors():
    parts = ['<vector id="%s" type="%s" count="%d"/>' % (name[:2] + name[3:], type, n) for name, type, n in _VECTORS]
    parts.append('<union id="vec128">')
    parts += ['<field name="%s" type="%s"/>' % (name, name[:2] + name[3:]) for name, _, _ in _VECTORS]
    return "".join(parts) + '<field name="uint128" type="uint128"/></union>'


def xml(rows):
    """The document, bytes. rows: of registers.make()."""
    parts = ['<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">']
    parts.append("<architecture>i386:x86-64</architecture><osabi>none</osabi>")
    feature = None
    for row in rows:
        mine = _feature(row)
        if mine != feature:
            if feature:
                parts.append("</feature>")
            feature = mine
            parts.append('<feature name="%s">' % feature)
            parts += [_flags(name, size, fields) for _, name, size, fields in _TYPES[feature]]
            if feature == "org.gnu.gdb.i386.sse":
                parts.append(_vectors())
        group = ' group="%s"' % row.group if row.group else ""
        parts.append('<reg name="%s" bitsize="%d" type="%s"%s/>' % (row.name, row.bits, row.type, group))
    return ("".join(parts) + "</feature></target>").encode()
