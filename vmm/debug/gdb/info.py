"""`monitor info registers|mem|tlb|pic|lapic`, in the form of QEMU's monitor."""

from vmm.devices import lapic_registers as r
from vmm.devices.i8259_lines import BASE, ELCR, IMR, INT, IRR, ISR, SLAVE
from vmm.memory.paging import ADDRESS, XD
from vmm.scheduling.states import HALTED
from vmm.vtx import vmcs as v
from vmm.vtx.x86 import CR0_PG

_FLAGS = ((1 << 11, "O"), (1 << 10, "D"), (1 << 7, "S"), (1 << 6, "Z"), (1 << 4, "A"), (1 << 2, "P"), (1, "C"))
_LINES = 1024  # of a table


def info(vcpu, what):
    """Lines of text. ValueError for an unknown table."""
    if what not in _INFO:
        raise ValueError("info %s; there are %s, guests" % (what, ", ".join(sorted(_INFO))))
    return _INFO[what](vcpu)


def _registers(vcpu):
    lines = []
    for names in (("rax", "rbx", "rcx", "rdx"), ("rsi", "rdi", "rbp", "rsp"), ("r8", "r9", "r10", "r11"),
                  ("r12", "r13", "r14", "r15")):  # fmt: skip
        lines.append(" ".join(["%-3s=%016x" % (name.upper(), getattr(vcpu, name)) for name in names]))
    flags = "".join([letter if vcpu.rflags & bit else "-" for bit, letter in _FLAGS])
    blocked = int(bool(vcpu.read(v.GUEST_INTERRUPTIBILITY_STATE) & 3))
    halted = int(vcpu.scheduled.before == HALTED)
    lines.append("RIP=%016x RFL=%08x [%s] CPL=%d II=%d A20=1 SMM=0 HLT=%d" % (
        vcpu.rip, vcpu.rflags, flags, vcpu.cpl, blocked, halted,
    ))  # fmt: skip
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"):
        selector, base, limit, rights = vcpu.segment(name)
        short = {"ldtr": "ldt"}.get(name, name).upper()
        rights = (rights & 0xFF | (rights & 0xF000)) << 8 | limit & 0xF0000
        lines.append("%-3s=%04x %016x %08x %08x" % (short, selector, base, limit, rights))
    lines.append("GDT=     %016x %08x" % (vcpu.read(v.GUEST_GDTR_BASE), vcpu.read(v.GUEST_GDTR_LIMIT)))
    lines.append("IDT=     %016x %08x" % (vcpu.read(v.GUEST_IDTR_BASE), vcpu.read(v.GUEST_IDTR_LIMIT)))
    lines.append("CR0=%08x CR2=%016x CR3=%016x CR4=%08x" % (vcpu.cr0, vcpu.cr2, vcpu.cr3, vcpu.cr4))
    debug = vcpu.vm.debugger.points.registers if vcpu.vm.debugger else None
    if debug:
        lines.append(" ".join(["DR%d=%016x" % (n, debug.dr(vcpu, n)) for n in range(4)]))
        lines.append("DR6=%016x DR7=%016x" % (debug.dr(vcpu, 6), debug.dr(vcpu, 7)))
    lines.append("EFER=%016x" % vcpu.efer)
    return "\n".join(lines) + "\n"


def _leaves(vcpu):
    """Yield (gva, gpa, size, flags) of each page that is mapped; flags: its entry's, with U and W of all levels."""
    walker = vcpu.vm.new_walker()
    walker.follow(vcpu)
    mode = walker.mode
    if mode == 0:
        return
    memory = vcpu.vm.memory
    if mode == 32:
        levels, entry_size = (22, 12), 4
    elif mode == 36:
        levels, entry_size = (30, 21, 12), 8
    else:
        levels, entry_size = ((48,) if mode == 57 else ()) + (39, 30, 21, 12), 8
    yield from _table(memory, levels, entry_size, walker.root, 0, 0, 6, 0)


def _table(memory, levels, entry_size, table, level, gva, rights, no_execute):
    """_leaves() of one table. rights: U and W of the levels above."""
    shift = levels[level]
    pae = entry_size == 8 and len(levels) == 3
    count = 4 if pae and level == 0 else 4096 // entry_size
    if not memory.has(table, count * entry_size):
        return
    read = memory.read_u32 if entry_size == 4 else memory.read_u64
    address = ADDRESS if entry_size == 8 else 0xFFFFF000
    for i in range(count):
        entry = read(table + i * entry_size)
        if not entry & 1:
            continue
        at = gva | i << shift
        if level == 0 and len(levels) > 3 and i >= 256:
            at |= (1 << 64) - (1 << shift + 9)
        mine = rights & (entry | (6 if pae and level == 0 else 0))
        nx = no_execute | (entry & XD if entry_size == 8 else 0)
        if shift == 12 or entry & 0x80 and shift < 39 and not (pae and level == 0):
            size = 1 << shift
            yield at, entry & address & ~(size - 1), size, entry & ~6 | mine, nx
        else:
            yield from _table(memory, levels, entry_size, entry & address, level + 1, at, mine, nx)


def _off(vcpu):
    return "PG disabled\n" if not vcpu.cr0 & CR0_PG else None


def _tlb(vcpu):
    off = _off(vcpu)
    if off:
        return off
    lines = []
    for gva, gpa, size, flags, nx in _leaves(vcpu):
        letters = "".join([
            "X" if nx else "-", "G" if flags & 0x100 else "-", "P" if size > 4096 else "-",
            "D" if flags & 0x40 else "-", "A" if flags & 0x20 else "-", "C" if flags & 0x10 else "-",
            "T" if flags & 8 else "-", "U" if flags & 4 else "-", "W" if flags & 2 else "-",
        ])  # fmt: skip
        lines.append("%016x: %016x %s" % (gva, gpa, letters))
        if len(lines) == _LINES:
            lines.append("... (more than %d pages)" % _LINES)
            break
    return "\n".join(lines) + "\n"


def _mem(vcpu):
    off = _off(vcpu)
    if off:
        return off
    lines = []
    start = end = flags = None
    for gva, _, size, entry, _ in _leaves(vcpu):
        mine = entry & 6
        if gva != end or mine != flags:
            if start is not None:
                lines.append(_range(start, end, flags))
            start, flags = gva, mine
            if len(lines) == _LINES:
                lines.append("... (more than %d ranges)" % _LINES)
                start = None
                break
        end = gva + size
    if start is not None:
        lines.append(_range(start, end, flags))
    return "\n".join(lines) + "\n"


def _range(start, end, flags):
    rights = ("u" if flags & 4 else "-") + "r" + ("w" if flags & 2 else "-")
    return "%016x-%016x %016x %s" % (start, end, end - start, rights)


def _pic(vcpu):
    state = vcpu.vm.pc.pic.state
    lines = []
    for number, at in enumerate((0, SLAVE)):
        lines.append("pic%d: irr=%02x imr=%02x isr=%02x irq_base=%02x int=%d elcr=%02x" % (
            number, state[at + IRR], state[at + IMR], state[at + ISR], state[at + BASE], state[at + INT],
            state[at + ELCR],
        ))  # fmt: skip
    return "\n".join(lines) + "\n"


def _lapic(vcpu):
    lapic = vcpu.lapic
    get = lapic.get
    lines = ["dumping local APIC state for CPU %d" % vcpu.number, ""]
    for name, offset in (("LVT0", r.LVT_LINT0), ("LVT1", r.LVT_LINT1), ("LVTPC", r.LVT_PERF), ("LVTERR", r.LVT_ERROR),
                         ("LVTTHMR", r.LVT_THERMAL), ("LVTT", r.LVT_TIMER)):  # fmt: skip
        value = get(offset)
        masked = " masked" if value & r.LVT_MASKED else ""
        lines.append("%-8s 0x%08x mode %d vec %d%s" % (name, value, value >> 8 & 7, value & 0xFF, masked))
    lines.append("Timer    DCR=%#x initial_count = %d current_count = %d" % (
        get(r.TIMER_DIVIDE), get(r.TIMER_INITIAL), get(r.TIMER_CURRENT),
    ))  # fmt: skip
    svr = get(r.SVR)
    lines.append("SPIV     0x%08x APIC %s, spurious vec %d" % (
        svr, "enabled" if svr & r.SVR_ENABLED else "disabled", svr & 0xFF,
    ))  # fmt: skip
    lines.append("ICR      0x%08x" % get(r.ICR))
    lines.append("ESR      0x%08x" % get(r.ESR))
    for name, offset in (("ISR", r.ISR), ("IRR", r.IRR)):
        vectors = [str(i) for i in range(256) if get(offset + (i >> 5) * 16) >> (i & 31) & 1]
        lines.append("%-8s %s" % (name, " ".join(vectors) or "(none)"))
    lines.append("TPR      0x%02x  PPR 0x%02x" % (get(r.TPR), get(r.PPR)))
    return "\n".join(lines) + "\n"


_INFO = {"registers": _registers, "mem": _mem, "tlb": _tlb, "pic": _pic, "lapic": _lapic}
