"""How the CPU delivers an event, check by check in its order: which check fails, and what it raises then.

failure(machine, event) -> Failure, or None where the handler would be reached. Nothing is changed. Limits: task gates
and the shadow stacks of CET are not followed; a 16-bit TSS is not read. Source: SDM Vol. 3A, "Exception- or
Interrupt-Handler Procedures", "Error Code", "64-Bit Mode Stack Frame", "Stack Switching in IA-32e Mode", "Real-Address
Mode Exceptions and Interrupts"; Vol. 2A, "INT n/INTO/INT3/INT1".
"""

from micropython import const

from vmm.debug.machine import TSS_ESP0, TSS_IST, TSS_RSP0, Unreadable
from vmm.fault import GP, NP, PF, SS, TS, WITH_ERROR
from vmm.memory.linear import canonical
from vmm.memory.paging import FETCH, WRITE
from vmm.vtx.vmcs_bits import RIGHTS_DB, RIGHTS_EXPAND_DOWN, RIGHTS_L, RIGHTS_UNUSABLE, RIGHTS_WRITABLE
from vmm.vtx.x86 import CR4_LA57, MASK64, PAGE

_EXT = const(1)
_IDT = const(2)
_TASK_GATE = const(5)


class Event:
    """An event to be delivered. software: by INT n, INT3 or INTO, whose privilege is checked."""

    def __init__(self, vector, exception=True, software=False):
        self.vector = vector
        self.software = software
        self.pushes = bool(exception and WITH_ERROR >> vector & 1)
        self.ext = 0 if software else _EXT


class Failure(Exception):
    """The exception that the delivery of an event raises, and why. error: the error code, address: CR2 of #PF."""

    def __init__(self, vector, error, why, address=None):
        super().__init__(why)
        self.vector = vector
        self.error = error
        self.why = why
        self.address = address


def failure(m, event):
    """The Failure of an event's delivery on a vmm.debug.machine.Machine, or None: its handler is reached."""
    try:
        _deliver(m, event)
    except Failure as found:
        return found
    return None


def gate_fault(m, vector, gate):
    """The fault of a gate, or of the handler that it names, in words; None: there is none."""
    try:
        _gate(m, Event(vector), gate)
        if gate.type != _TASK_GATE and m.protected:
            _handler_mapped(m, gate)
    except Failure as found:
        return str(found.why)
    return None


def _handler_mapped(m, gate):
    done = m.walk(gate.offset, FETCH)
    if done.why:
        raise Failure(PF, done.error, "the handler cannot be fetched: %s" % done.why, done.gva)


def _deliver(m, event):
    number = event.vector * m.gate_size
    if number + m.gate_size - 1 > m.idt_limit:
        what = "the IDT at %s ends before vector %d: its limit is %#x, and %#x is needed" % (
            m.place(m.idt_base), event.vector, m.idt_limit, number + m.gate_size - 1,
        )  # fmt: skip
        error = event.vector * 8 + _IDT + event.ext if m.protected else None
        raise Failure(GP, error, what)
    gate = _read(m, lambda: m.gate(event.vector), "the IDT's gate %d" % event.vector)
    if not m.protected:
        _push_real(m)
        return
    segment = _gate(m, event, gate)
    if segment is None:
        return  # a task gate: another task's state is loaded
    if m.long:
        _stack_long(m, event, gate, segment)
    else:
        _stack(m, event, gate, segment)


def _read(m, read, what):
    """read(); what the CPU cannot read is a #PF."""
    try:
        return read()
    except Unreadable as error:
        walk = error.walk
        if walk.error is None:
            raise Failure(GP, 0, "%s at %s cannot be read: %s" % (what, m.place(walk.gva), walk.why))
        raise Failure(
            PF, walk.error, "%s at %s cannot be read: %s" % (what, m.place(walk.gva), walk.why), walk.gva
        ) from None
    except ValueError as error:
        raise Failure(PF, 0, "%s cannot be read: %s" % (what, error)) from None


def _gate(m, event, gate):
    """Check a gate; the Segment of its handler, or None for a task gate."""
    vector = event.vector
    error = vector * 8 + _IDT + event.ext
    if not m.protected:
        return None
    allowed = (14, 15) if m.long else (5, 6, 7, 14, 15)
    if gate.type not in allowed:
        if not gate.raw:
            raise Failure(GP, error, "gate %d of the IDT is all zero: there is no handler" % vector)
        raise Failure(
            GP, error, "gate %d of the IDT has type %#x; %s"
            % (vector, gate.type, "only 0xe (interrupt) and 0xf (trap) are gates" if m.long else "that is no gate"),
        )  # fmt: skip
    if event.software and gate.dpl < m.cpl:
        raise Failure(GP, error, "gate %d of the IDT has DPL %d, and CPL is %d" % (vector, gate.dpl, m.cpl))
    if not gate.present:
        raise Failure(NP, error, "gate %d of the IDT is not present (P = 0)" % vector)
    if gate.type == _TASK_GATE:
        return None
    return _code(m, event, gate)


def _code(m, event, gate):
    """The descriptor of the handler's code segment."""
    selector = gate.selector
    what = "gate %d of the IDT names selector %#x" % (event.vector, selector)
    if not selector & 0xFFFC:
        raise Failure(GP, event.ext, "%s: the null selector" % what)
    table, base, limit = m.table(selector)
    index = selector & 0xFFF8
    code = index | selector & 4 | event.ext
    if index + 7 > limit:
        if limit < 0:
            raise Failure(GP, code, "%s, of an LDT, and there is none" % what)
        raise Failure(GP, code, "%s, beyond the %s's limit %#x" % (what, table, limit))
    found = _read(m, lambda: m.descriptor(base + index), "%s, whose descriptor in the %s" % (what, table))
    if not found.raw:
        raise Failure(GP, code, "%s, whose descriptor in the %s at %s is all zero" % (what, table, m.place(base)))
    if not found.code:
        raise Failure(GP, code, "%s, which is no code segment" % what)
    if found.dpl > m.cpl:
        raise Failure(GP, code, "%s, a code segment of DPL %d, and CPL is %d" % (what, found.dpl, m.cpl))
    if not found.present:
        raise Failure(NP, code, "%s, a code segment that is not present (P = 0)" % what)
    if m.long and (not found.rights & RIGHTS_L or found.rights & RIGHTS_DB):
        raise Failure(GP, code, "%s, which is no 64-bit code segment (L = 1, D = 0)" % what)
    return found


def _inner(m, segment):
    """The privilege level of the handler."""
    return m.cpl if segment.rights & RIGHTS_EXPAND_DOWN else segment.dpl


def _tss(m, offset, size, event):
    """A field of the TSS."""
    selector, base, limit, rights = m.vcpu.segment("tr")
    what = "the TSS, which has the handler's stack,"
    if rights & RIGHTS_UNUSABLE or offset + size - 1 > limit:
        raise Failure(
            TS, selector & 0xFFFC | event.ext, "%s ends before it: TR is %#x, limit %#x" % (what, selector, limit)
        )
    return int.from_bytes(_read(m, lambda: m.read(base + offset, size), what), "little")


def _stack_long(m, event, gate, segment):
    """IST, the stack of a more privileged level, or the one at hand; then five or six pushes."""
    inner = _inner(m, segment)
    if gate.ist:
        where = "IST%d of the TSS" % gate.ist
        sp = _tss(m, TSS_IST + 8 * gate.ist, 8, event)
    elif inner < m.cpl:
        where = "RSP%d of the TSS" % inner
        sp = _tss(m, TSS_RSP0 + 8 * inner, 8, event)
    else:
        where = "RSP"
        sp = m.vcpu.rsp
    width = 57 if m.vcpu.cr4 & CR4_LA57 else 48
    if not canonical(sp, width) or not canonical(sp - 8 & MASK64, width):
        raise Failure(SS, event.ext, "the handler's stack, %s = %#x, is not canonical" % (where, sp))
    _pushes(m, event, (sp & ~15) & MASK64, 6 if event.pushes else 5, 8, "%s = %s" % (where, m.place(sp)), inner)
    if not canonical(gate.offset, width):
        raise Failure(GP, 0, "the handler of gate %d, %#x, is not canonical" % (event.vector, gate.offset))


def _stack(m, event, gate, segment):
    """The same outside IA-32e mode: SS:ESP of the TSS, or the stack at hand."""
    inner = _inner(m, segment)
    wide = gate.type & 8
    count = 4 if event.pushes else 3
    _, base, limit, rights = m.vcpu.segment("ss")
    sp = m.vcpu.rsp & 0xFFFFFFFF
    where = "SS:ESP"
    if inner < m.cpl or m.v8086:
        where = "SS%d:ESP%d of the TSS" % (inner, inner)
        sp = _tss(m, TSS_ESP0 + 8 * inner, 4, event)
        selector = _tss(m, TSS_ESP0 + 4 + 8 * inner, 2, event)
        base, limit, rights = _inner_stack(m, event, selector, inner)
        count += 6 if m.v8086 else 2
    size = 4 if wide else 2
    if not rights & RIGHTS_DB:
        sp &= 0xFFFF
    least, most = 0, limit
    if rights & RIGHTS_EXPAND_DOWN:
        least, most = limit + 1, 0xFFFFFFFF if rights & RIGHTS_DB else 0xFFFF
    bottom = sp - count * size
    if bottom < least or sp - 1 > most:
        raise Failure(
            SS, event.ext, "%s = %#x has no room for %d bytes: the segment's limit is %#x"
            % (where, sp, count * size, limit),
        )  # fmt: skip
    _pushes(m, event, base + sp & 0xFFFFFFFF, count, size, "%s = %s" % (where, m.place(base + sp)), inner)
    if gate.offset > segment.limit:
        raise Failure(GP, 0, "the handler of gate %d lies beyond its segment's limit" % event.vector)


def _inner_stack(m, event, selector, inner):
    """(base, limit, rights) of the stack segment that the TSS names."""
    what = "the TSS has SS%d = %#x" % (inner, selector)
    code = selector & 0xFFFC | event.ext
    if not selector & 0xFFFC:
        raise Failure(TS, event.ext, "%s: the null selector" % what)
    table, base, limit = m.table(selector)
    if (selector & 0xFFF8) + 7 > limit:
        raise Failure(TS, code, "%s, beyond the %s's limit %#x" % (what, table, limit))
    found = _read(m, lambda: m.descriptor(base + (selector & 0xFFF8)), "%s, whose descriptor" % what)
    if selector & 3 != inner or found.dpl != inner or found.system or found.code or not found.rights & RIGHTS_WRITABLE:
        raise Failure(TS, code, "%s, which is no writable data segment of DPL %d" % (what, inner))
    if not found.present:
        raise Failure(SS, code, "%s, a segment that is not present (P = 0)" % what)
    return found.base, found.limit, found.rights


def _pushes(m, event, sp, count, size, where, level):
    """Each page that the pushes touch, from the top."""
    at = sp - size
    last = None
    for _ in range(count):
        page = at & ~(PAGE - 1)
        if page != last:
            last = page
            done = m.walk(at & MASK64, WRITE, 3 if level == 3 else 0)
            if done.why:
                why = "the handler's stack, %s, cannot be written at %s: %s" % (where, m.place(at), done.why)
                if done.error is None:
                    raise Failure(SS, event.ext, why)
                raise Failure(PF, done.error, why, done.gva)
        at -= size


def _push_real(m):
    """Three words in real mode."""
    sp = m.vcpu.rsp & 0xFFFF
    limit = m.vcpu.segment("ss")[2]
    if sp - 1 > limit or (sp < 6 and sp):
        raise Failure(SS, None, "SS:SP = %#x has no room for 6 bytes" % sp)
