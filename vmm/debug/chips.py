"""A guest's devices as tables of their registers: print(vm.pc), vm.lapic, vm.pc.ioapic, vm.pc.pic, vm.pc.pit.

Reading here has no effect on a device. Source: the data sheets that vmm/devices names; SDM Vol. 3A, "Local APIC".
"""

from vmm.debug.names import LINES
from vmm.devices import i8254_counters as counters
from vmm.devices import i8259_lines as pic_lines
from vmm.devices import lapic_registers as r
from vmm.devices.ioapic import IDENTITY, LEVEL, MASKED, PINS
from vmm.devices.ioapic import LINES as PIN_LINES
from vmm.insight.table import Table

_MODES = ("fixed", "lowest priority", "SMI", "reserved", "NMI", "INIT", "start-up", "ExtINT")
_TIMER_MODES = ("one-shot", "periodic", "TSC-deadline", "reserved")
_LVT = (
    ("timer", r.LVT_TIMER), ("LINT0", r.LVT_LINT0), ("LINT1", r.LVT_LINT1), ("error", r.LVT_ERROR),
    ("performance", r.LVT_PERF), ("thermal", r.LVT_THERMAL),
)  # fmt: skip


def vectors(lapic, at):
    """The vectors whose bits are set in IRR, ISR or TMR."""
    found = []
    for i in range(8):
        word = lapic.get(at + 16 * i)
        found += [32 * i + bit for bit in range(32) if word >> bit & 1]
    return found


def _hex(numbers):
    return " ".join(["%#x" % n for n in numbers]) or "none"


def lapic(chip):
    """A local APIC."""
    get = chip.get
    if not chip.enabled:
        return "local APIC %d: disabled by IA32_APIC_BASE" % chip.apic_id
    mode = "x2APIC" if chip.x2apic else "xAPIC"
    svr = get(r.SVR)
    on = "enabled" if svr & r.SVR_ENABLED else "disabled by SVR: it delivers nothing but NMI, INIT and start-up"
    lines = ["local APIC %d: %s mode, %s, spurious vector %#x" % (chip.apic_id, mode, on, svr & 0xFF)]
    lines.append("TPR %#x  PPR %#x  LDR %#x  ESR %#x" % (get(r.TPR), get(r.PPR), get(r.LDR), get(r.ESR)))
    lines.append("requested (IRR): %s; in service (ISR): %s" % (_hex(vectors(chip, r.IRR)), _hex(vectors(chip, r.ISR))))
    rows = []
    for name, at in _LVT:
        value = get(at)
        what = _TIMER_MODES[value >> 17 & 3] if at == r.LVT_TIMER else _MODES[value >> 8 & 7]
        rows.append((name, "%#x" % (value & 0xFF), what, "masked" if value & r.LVT_MASKED else ""))
    lines.append(repr(Table(("LVT", "VECTOR", "MODE", "MASK"), rows)))
    lines.append("timer: " + timer(chip))
    return "\n".join(lines)


def timer(chip):
    """The local APIC's timer: mode, vector, and when it is due."""
    lvt = chip.get(r.LVT_TIMER)
    when = chip.timer.timer.deadline
    text = "%s, vector %#x%s" % (_TIMER_MODES[lvt >> 17 & 3], lvt & 0xFF, ", masked" if lvt & r.LVT_MASKED else "")
    if when:
        clock = chip.timer.clock
        return "%s, due in %d us" % (text, max(when - clock.now(), 0) * 1000000 // clock.hz)
    return text + ", not armed"


def ioapic(chip):
    """The I/O APIC: pins that are unmasked or asserted."""
    s = chip.state
    rows = []
    for pin in range(PINS):
        low, high = s[2 * pin], s[2 * pin + 1]
        asserted = s[PIN_LINES] >> pin & 1
        if low & MASKED and not asserted and not low & 0xFF:
            continue
        rows.append((
            pin, "%#x" % (low & 0xFF), _MODES[low >> 8 & 7], "level" if low & LEVEL else "edge",
            "%s %#x" % ("logical" if low & 0x800 else "APIC", high >> 24), "masked" if low & MASKED else "",
            ("asserted" if asserted else "") + (" remote IRR" if low & r.REMOTE_IRR else ""),
        ))  # fmt: skip
    title = "I/O APIC, ID %d: %d of %d pins in use" % (s[IDENTITY] >> 24, len(rows), PINS)
    if not rows:
        return title
    return title + "\n" + repr(Table(("PIN", "VECTOR", "MODE", "TRIGGER", "TO", "MASK", "NOW"), rows))


def pic(chip):
    """The two 8259s."""
    s = chip.state
    lines = []
    for name, c, first in (("master", 0, 0), ("slave", pic_lines.SLAVE, 8)):
        if s[c + pic_lines.EXPECT]:
            at = "waits for ICW%d" % s[c + pic_lines.EXPECT]
        elif not s[c + pic_lines.BASE]:
            at = "not initialized (vectors from 0)"
        else:
            at = "vectors from %#x" % s[c + pic_lines.BASE]
        lines.append("8259 %s: %s, INT %s" % (name, at, "high" if s[c + pic_lines.INT] else "low"))
        for word, at in (("masked", pic_lines.IMR), ("requested", pic_lines.IRR), ("in service", pic_lines.ISR)):
            lines.append("  %-10s %s" % (word, line_names(s[c + at], first)))
    return "\n".join(lines)


def line_names(bits, first):
    """The lines of a byte of an 8259."""
    if bits == 0xFF:
        return "all"
    found = [first + i for i in range(8) if bits >> i & 1]
    return ", ".join(["%d%s" % (n, " (%s)" % LINES[n] if n in LINES else "") for n in found]) or "none"


def pit(chip):
    """The 8254."""
    s = chip.state
    rows = []
    for c in range(3):
        b = 32 * c
        count = s[b + counters.N]
        armed = s[b + counters.ARMED]
        hz = "%.1f Hz" % (counters.FREQUENCY / count) if count and armed else "stopped"
        rows.append((c, s[b + counters.MODE], count, hz, "high" if s[b + counters.GATE] else "low"))
    text = "8254\n" + repr(Table(("COUNTER", "MODE", "COUNT", "RATE", "GATE"), rows))
    return text + "\nnext interrupt: %s" % _due(chip.timer, "none is due")


def _due(timer_, none):
    when = timer_.deadline
    if not when:
        return none
    clock = timer_.clock
    return "in %d us" % (max(when - clock.now(), 0) * 1000000 // clock.hz)


def uart(chip):
    """A 16550."""
    s = chip.registers
    names = ("IER", 1), ("LCR", 3), ("MCR", 4), ("LSR", 5), ("MSR", 6), ("SCR", 7)
    divisor = s[8] | s[9] << 8
    words = " ".join(["%s %#x" % (name, s[at]) for name, at in names])
    return "16550: %s, %s baud" % (words, 115200 // divisor if divisor else "no")


def rtc(chip):
    """The MC146818."""
    a, b, c = chip.ram[10], chip.ram[11], chip.ram[12]
    on = [name for bit, name in ((6, "periodic"), (5, "alarm"), (4, "update")) if b >> bit & 1]
    return "MC146818: A %#x B %#x C %#x, interrupts: %s, index %#x" % (a, b, c, ", ".join(on) or "none", chip.index)


def pc(machine):
    """All chips of vmm.pc.Pc."""
    parts = [pic(machine.pic), pit(machine.pit), ioapic(machine.ioapic)]
    parts += [lapic(vcpu.lapic) for vcpu in machine.vm.vcpus]
    parts.append(rtc(machine.rtc))
    for n, chip in enumerate(machine.coms):
        if chip:
            parts.append("COM%d, a %s" % (n + 1, uart(chip)))
    if machine.hpet:
        parts.append("HPET: configuration %#x, status %#x" % (machine.hpet.conf, machine.hpet.status))
    keys = machine.keyboard.read(4, 1)
    parts.append("8042: status %#x, output buffer %s" % (keys, "full" if keys & 1 else "empty"))
    return "\n\n".join(parts)
