"""GDT, IDT and TSS of a vCPU as tables.

They are read as the CPU would read them, through the page tables that are live, but without effects. What cannot be
read ends the table with a line that says why. Source: SDM Vol. 3A, "Segment Descriptors", "System Descriptor Types",
"IDT Descriptors", "64-Bit Mode IDT", "Task-State Segment (TSS)", "TSS in 64-bit Mode".
"""

import struct

from micropython import const

from vmm.debug.machine import TSS_ESP0, TSS_IST, TSS_RSP0, Machine, namer
from vmm.debug.names import EXCEPTIONS
from vmm.insight.table import Table

_RARE = ("RSP1", "RSP2")  # of rings that are not used: Linux keeps a value there
_MOST = const(8192)  # descriptors in a table at most
_LONG_SYSTEM = {2: "LDT", 9: "TSS", 11: "TSS busy", 12: "call gate", 14: "interrupt gate", 15: "trap gate"}
_SYSTEM = {
    1: "TSS 16", 2: "LDT", 3: "TSS 16 busy", 4: "call gate 16", 5: "task gate", 6: "interrupt gate 16",
    7: "trap gate 16", 9: "TSS", 11: "TSS busy", 12: "call gate", 14: "interrupt gate", 15: "trap gate",
}  # fmt: skip


class Noted(Table):
    """A table with a line before and lines behind it."""

    def __init__(self, title, columns, rows, notes=()):
        super().__init__(columns, rows)
        self.title = title
        self.notes = list(notes)

    def __repr__(self):
        return "\n".join([self.title] + ([super().__repr__()] if self else []) + self.notes)

    __str__ = __repr__


def type_name(rights, long):
    """The kind of segment that access rights (VMCS format) describe, in words."""
    kind = rights & 0xF
    if not rights & 1 << 4:
        return (_LONG_SYSTEM if long else _SYSTEM).get(kind, "reserved type %d" % kind)
    if kind & 8:
        width = "64" if rights & 1 << 13 else "32" if rights & 1 << 14 else "16"
        words = ["code", width]
        if kind & 2:
            words.append("readable")
        if kind & 4:
            words.append("conforming")
    else:
        words = ["data", "read-write" if kind & 2 else "read-only"]
        if kind & 4:
            words.append("expand-down")
    if kind & 1:
        words.append("A")
    return " ".join(words)


def gdt(vcpu):
    """The GDT: SELECTOR, BASE, LIMIT, TYPE, DPL, P. Null entries are left out."""
    m = Machine(vcpu, namer(vcpu.vm))
    rows, notes = [], []
    at = 0
    while at + 7 <= m.gdt_limit and at < 8 * _MOST:
        try:
            found = m.descriptor(m.gdt_base + at, at)
        except ValueError as error:
            notes.append("%#x: %s" % (at, error))
            break
        if found.raw:
            used = [name for name in ("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr") if m.selector(name) & ~3 == at]
            rows.append((
                "%#x" % at, "%#x" % found.base, "%#x" % found.limit, type_name(found.rights, m.long),
                found.dpl, int(found.present), " ".join(used),
            ))  # fmt: skip
        at += 16 if found.wide else 8
    title = "GDT at %s, limit %#x" % (m.place(m.gdt_base), m.gdt_limit)
    return Noted(title, ("SELECTOR", "BASE", "LIMIT", "TYPE", "DPL", "P", "NOW IN"), rows, notes)


def idt(vcpu):
    """The IDT: VECTOR, NAME, TYPE, DPL, HANDLER, what is wrong with a gate. Gates that are all zero are left out."""
    from vmm.debug import delivery

    m = Machine(vcpu, namer(vcpu.vm))
    rows, notes, absent = [], [], 0
    size = m.gate_size
    count = min((m.idt_limit + 1) // size, 256)
    for vector in range(count):
        try:
            gate = m.gate(vector)
        except ValueError as error:
            notes.append("vector %d: %s" % (vector, error))
            break
        if not gate.raw:
            absent += 1
            continue
        handler = "%#x:%s" % (gate.selector, m.place(gate.offset if m.protected else gate.selector * 16 + gate.offset))
        wrong = delivery.gate_fault(m, vector, gate)
        kind = _gate_name(m, gate)
        rows.append((vector, EXCEPTIONS.get(vector, ""), kind, gate.dpl, gate.ist or "", handler, wrong or ""))
    title = "IDT at %s, limit %#x: %d vectors" % (m.place(m.idt_base), m.idt_limit, count)
    if absent:
        notes.append("%d gates are all zero" % absent)
    columns = ["VECTOR", "NAME", "TYPE", "DPL", "IST", "HANDLER", "WRONG"]
    return Noted(title, columns, rows, notes)


def _gate_name(m, gate):
    if not m.protected:
        return "real mode"
    names = _LONG_SYSTEM if m.long else _SYSTEM
    return names.get(gate.type, "type %d" % gate.type) + ("" if gate.present else ", not present")


def tss(vcpu):
    """The TSS: FIELD, VALUE, and whether what it points to can be written."""
    m = Machine(vcpu, namer(vcpu.vm))
    selector, base, limit, rights = vcpu.segment("tr")
    title = "TSS %#x at %s, limit %#x" % (selector, m.place(base), limit)
    rows, notes = [], []
    try:
        if rights & 0xF not in (9, 11):
            notes.append("a 16-bit TSS" if rights & 0xF in (1, 3) else "no TSS is loaded")
        elif m.long:
            fields = [("RSP%d" % i, TSS_RSP0 + 8 * i) for i in range(3)]
            fields += [("IST%d" % i, TSS_IST + 8 * i) for i in range(1, 8)]
            for name, offset in fields:
                value = m.number(base + offset, 8)
                rows.append((name, "%#x" % value, m.stack_note(value) if value and name not in _RARE else ""))
        else:
            for i in range(3):
                esp, ss = m.number(base + TSS_ESP0 + 8 * i, 4), m.number(base + TSS_ESP0 + 4 + 8 * i, 2)
                rows.append(("SS%d:ESP%d" % (i, i), "%#x:%#x" % (ss, esp), m.stack_note(esp) if esp else ""))
            rows.append(("CR3", "%#x" % m.number(base + 0x1C, 4), ""))
            rows.append(("EIP", m.place(m.number(base + 0x20, 4)), ""))
        if rows:
            at = struct.unpack("<H", m.read(base + 0x66, 2))[0]
            rows.append(("I/O map", "%#x" % at, "beyond the limit: no port" if at > limit else ""))
    except ValueError as error:
        notes.append(str(error))
    return Noted(title, ("FIELD", "VALUE", "STACK"), rows, notes)
