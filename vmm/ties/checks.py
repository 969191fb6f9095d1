"""Validity of the links and windows in a guest's description, and where each window lies.

The host checks guest files by the same code (host-tools/pcanel/guest/file.py). An error is a ValueError of one line
that begins with the entry and, where one key of it is wrong, the key: "[0].size: must be ...".
"""

from micropython import const

from vmm.memory.e820 import MMIO_HOLE
from vmm.vtx.x86 import IOAPIC_BASE, PAGE

UARTS = ("com1", "com2", "com3", "com4")
START = MMIO_HOLE  # above a guest's low RAM
END = IOAPIC_BASE
DOORBELLS = (5, 7, 10, 11, 15, 16, 17, 18, 19, 20, 21, 22, 23)  # lines that no device of the PC has

_FIRST = const(0xD0000000)  # the first window without a gpa
_NAME_MAX = const(16)  # four registers of CPUID
_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
_LINK = ("uart", "to")
_WINDOW = ("name", "size", "access", "gpa", "gsi", "cpl")


def links(name, entries):
    """Check the links of guest `name`: [{"uart": "com2", "to": "rtos:com2"}, ...]. ValueError for the first fault."""
    for number, link in enumerate(entries):
        fault = _link_fault(name, link)
        if fault:
            raise ValueError("[%d]%s: %s" % (number, fault[0], fault[1]))


def far_end(to):
    """('rtos', 'com2') of 'rtos:com2'."""
    guest, _, uart = to.partition(":")
    return guest, uart


def _link_fault(name, link):
    """(key, reason), or None."""
    if not isinstance(link, dict) or set(link) != set(_LINK):
        return "", "must be a table of uart and to, not %r" % (link,)
    uart, to = link["uart"], link["to"]
    if uart not in UARTS:
        return ".uart", "must be one of %s, not %r" % (", ".join(UARTS), uart)
    guest, far = far_end(to) if isinstance(to, str) else ("", "")
    if not guest or " " in guest or far not in UARTS:
        return ".to", 'must be a guest and its UART such as "rtos:com2", not %r' % (to,)
    if (guest, far) == (name, uart):
        return ".to", "%s leads to itself" % uart
    return None


def windows(entries):
    """Check the windows [{"name": "board", "size": 65536}, ...] and return the gpa of each.

    access, gpa, gsi and cpl are optional, sizes are bytes. A window without a gpa lies behind those before it, from
    0xD0000000 up. ValueError for the first fault.
    """
    placed = []
    for number, window in enumerate(entries):
        fault = _window_fault(window) or _place(window, placed)
        if fault:
            raise ValueError("[%d]%s: %s" % (number, fault[0], fault[1]))
    return [gpa for gpa, _, _ in placed]


def _window_fault(window):
    """(key, reason) of a fault that does not depend on the window's place, or None."""
    if not isinstance(window, dict):
        return "", "must be a table of name and size, not %r" % (window,)
    for key in window:
        if key not in _WINDOW:
            return ".%s" % (key,), "unknown key"
    name, size = window.get("name"), window.get("size")
    if not isinstance(name, str) or not 1 <= len(name) <= _NAME_MAX or [c for c in name if c not in _NAME]:
        return ".name", "must be 1 to 16 letters, digits, '_', '.', '-', not %r" % (name,)
    if not _is_number(size) or size % PAGE or not PAGE <= size <= END - START:
        return ".size", "must be bytes, a multiple of %d from %d to %d, not %r" % (PAGE, PAGE, END - START, size)
    if window.get("access") not in (None, "rw", "ro"):
        return ".access", "must be one of rw, ro, not %r" % (window["access"],)
    cpl = window.get("cpl")
    if cpl is not None and not (_is_number(cpl) and 0 <= cpl <= 3):
        return ".cpl", "must be a privilege level from 0 to 3, not %r" % (cpl,)
    gsi = window.get("gsi")
    if gsi is not None and not (_is_number(gsi) and gsi in DOORBELLS):
        return ".gsi", "must be one of %s, not %r" % (", ".join([str(line) for line in DOORBELLS]), gsi)
    return None


def _place(window, placed):
    """Add (gpa, end, name) to the windows placed so far; returns (key, reason) where it cannot lie there, or None."""
    name, size, gpa = window["name"], window["size"], window.get("gpa")
    if name in [other for _, _, other in placed]:
        return ".name", "%r is there twice" % name
    if gpa is None:
        gpa = max([_FIRST] + [end for _, end, _ in placed])
        if gpa + size > END:
            return "", "%s would lie at %#x and end beyond %#x" % (name, gpa, END)
    elif not _is_number(gpa) or not START <= gpa <= END - size:
        return ".gpa", "must be from %#x to %#x, not %s" % (START, END - size, _show(gpa))
    elif gpa % PAGE:
        return ".gpa", "%#x is not a multiple of %d" % (gpa, PAGE)
    for start, end, other in placed:
        if gpa < end and start < gpa + size:
            return ".gpa", "%s at %#x overlaps %s at %#x" % (name, gpa, other, start)
    placed.append((gpa, gpa + size, name))
    return None


def _is_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _show(value):
    return "%#x" % value if _is_number(value) else "%r" % (value,)
