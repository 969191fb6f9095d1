"""The state of a guest that has not ended: paused, halted without a way to wake up, or in a loop.

look(vm) lets the guest run, samples its vCPUs SAMPLES times and says where they were, which exits they made, and which
interrupts wait for what: a mask of the 8259s or the I/O APIC, an interrupt in service, TPR, IF. Lines have marks for
vmm.debug.machine.named(). Source: SDM Vol. 3A, "Local APIC", "Task and Processor Priorities"; Intel 8259A data sheet.
"""

import time

from micropython import const

from vmm.debug import chips, instructions
from vmm.debug.machine import Machine
from vmm.debug.names import LINES
from vmm.debug.places import linear_rip
from vmm.devices import i8254_counters
from vmm.devices import i8259_lines as lines_of_pic
from vmm.devices import lapic_registers as r
from vmm.devices.ioapic import LEVEL, MASKED, PINS
from vmm.devices.ioapic import LINES as PIN_LINES
from vmm.scheduling import states
from vmm.vtx import reasons
from vmm.vtx.x86 import RFLAGS_IF

SAMPLES = const(40)
_EVERY_MS = const(2)
_LOOP = const(96)  # bytes from the first to the last RIP of a loop
_LINES = const(6)


def look(vm):
    """Lines of text on the guest's state. A guest that runs goes on meanwhile, for SAMPLES samples."""
    state = vm.state
    if state == states.OFF:
        return ["%s is off: %s" % (vm.name, vm.why)]
    if state in (states.PAUSED, states.STOPPED):
        return _standing(vm)
    seen = _sample(vm)
    if vm.state not in (states.RUNNING, states.HALTED):
        return ["%s has stopped while it was sampled: %s" % (vm.name, vm.why)]
    out = []
    for vcpu in vm.vcpus:
        out += _vcpu(vm, vcpu, seen[vcpu.number])
    return out + _exits(seen[-1])


def _standing(vm):
    out = ["%s is %s, %s" % (vm.name, vm.state, vm.why)]
    for vcpu in vm.vcpus:
        m = Machine(vcpu)
        gva = linear_rip(vcpu)
        out.append("vCPU %d at %s, CPL %d" % (vcpu.number, m.place(gva), m.cpl))
        out += ["  " + line.text(m.place) for line in instructions.disassemble(m, gva, 1, _nameless)]
    if vm.messages:
        out.append("its last message: " + vm.messages[-1].split("\n")[0])
    return out


def _nameless(gva):
    return ""


def _sample(vm):
    """[[(state, rip, RFLAGS), ...] for each vCPU] and ({reason: exits}, {what: exits}) while the guest ran."""
    seen = [[] for _ in vm.vcpus]
    before = vm.exit_counts()
    what = {}
    for _ in range(SAMPLES):
        time.sleep_ms(_EVERY_MS)
        for vcpu in vm.vcpus:
            seen[vcpu.number].append((vcpu.scheduled.state, linear_rip(vcpu), vcpu.rflags))
            about = _about(vcpu)
            if about:
                what[about] = what.get(about, 0) + 1
    counts = {}
    for name, (count, _) in vm.exit_counts().items():
        more = count - before.get(name, (0, 0))[0]
        if more:
            counts[name] = more
    return seen + [(counts, what)]


def _about(vcpu):
    """The subject of the last exit in words; "" for other reasons."""
    reason = vcpu.reason
    if reason == reasons.IO_INSTRUCTION:
        q = vcpu.qualification
        return "%s port %#x" % ("IN from" if q & 8 else "OUT to", q >> 16)
    if reason == reasons.RDMSR or reason == reasons.WRMSR:
        return "%s of %#x" % ("RDMSR" if reason == reasons.RDMSR else "WRMSR", vcpu.rcx & 0xFFFFFFFF)
    if reason == reasons.EPT_VIOLATION:
        return "an access to gpa %#x" % vcpu.gpa
    return ""


def _vcpu(vm, vcpu, seen):
    m = Machine(vcpu)
    halted = [rip for state, rip, _ in seen if state == states.HALTED]
    who = "%s, vCPU %d" % (vm.name, vcpu.number) if len(vm.vcpus) > 1 else vm.name
    if vcpu.scheduled.state == states.WAIT_FOR_SIPI:
        return ["%s waits for SIPI: no other processor has started it" % who]
    rips = sorted(set([rip for _, rip, _ in seen]))
    if len(halted) == len(seen) and len(rips) == 1:
        place = "%s is at HLT at %s all the time" % (who, m.place(rips[0]))
        if not seen[-1][2] & RFLAGS_IF:
            return [place + ", with interrupts off (IF = 0): nothing but an NMI ends that"] + waiting(vm, vcpu)
        return [place + ", and waits for an interrupt (IF = 1)"] + waiting(vm, vcpu)
    if halted:
        text = "%s is at HLT in %d of %d samples, and runs in between: it does not hang"
        return [text % (who, len(halted), len(seen))]
    if rips[-1] - rips[0] <= _LOOP:
        off = all([not flags & RFLAGS_IF for _, _, flags in seen])
        out = ["%s runs in a loop from %s to %s%s" % (
            who, m.place(rips[0]), m.place(rips[-1]), ", with interrupts off (IF = 0)" if off else "",
        )]  # fmt: skip
        code = instructions.disassemble(m, rips[0], _LINES, _nameless)
        out += ["  " + line.text(m.place) for line in code if line.gva <= rips[-1]]
        return out + waiting(vm, vcpu)
    out = ["%s runs: RIP was at %d places in %d samples" % (who, len(rips), len(seen))]
    return out + ["  %s" % m.place(rip) for rip in rips[:_LINES]]


def _exits(counted):
    """Lines on the exits: their reasons and subjects."""
    counts, what = counted
    ranked = sorted([(-count, name) for name, count in counts.items()])[:_LINES]
    if not ranked:
        return ["it made no exit meanwhile"]
    out = ["exits meanwhile: " + ", ".join(["%s %d" % (name, -count) for count, name in ranked])]
    ranked = sorted([(-count, name) for name, count in what.items()])[:_LINES]
    if ranked:
        out.append("the last one was %s" % ", ".join(["%s (%d of %d samples)" % (n, -c, SAMPLES) for c, n in ranked]))
    return out


def waiting(vm, vcpu):
    """Lines on the interrupts that wait, and for what, and on the timers that could raise one."""
    out = _at_pic(vm, vcpu) + _at_ioapic(vm) + _at_lapic(vcpu)
    out += _timers(vm, vcpu)
    return out


def _line(n):
    return "line %d%s" % (n, " (%s)" % LINES[n] if n in LINES else "")


def _at_pic(vm, vcpu):
    """Requests that the 8259s do not pass on."""
    s = vm.pc.pic.state
    out = []
    for c, first in ((0, 0), (lines_of_pic.SLAVE, 8)):
        requests = s[c + lines_of_pic.IRR]
        masked = requests & s[c + lines_of_pic.IMR]
        for i in range(8):
            if requests >> i & 1 and not (c == 0 and i == 2):
                if masked >> i & 1:
                    if vm.pc.ioapic.state[2 * (first + i or 2)] & MASKED:  # else the I/O APIC delivers it
                        out.append("%s asks, and is masked at the 8259 (bit %d of its IMR)" % (_line(first + i), i))
                elif s[c + lines_of_pic.ISR] and s[c + lines_of_pic.ISR] & -s[c + lines_of_pic.ISR] <= 1 << i:
                    out.append(
                        "%s asks, and waits for the end (EOI) of %s, which is in service at the 8259"
                        % (_line(first + i), chips.line_names(s[c + lines_of_pic.ISR], first))
                    )
                elif s[c + lines_of_pic.EXPECT] or not s[lines_of_pic.BASE]:
                    out.append("%s asks, and the 8259 is not initialized" % _line(first + i))
    if s[lines_of_pic.INT]:
        lint0 = vcpu.lapic.get(r.LVT_LINT0)
        if vcpu.lapic.enabled and lint0 & r.LVT_MASKED:
            out.append("the 8259s' INT is high, and LINT0 of the local APIC, which leads to the CPU, is masked")
        elif vcpu.rflags & RFLAGS_IF:
            out.append("the 8259s' INT is high: an interrupt is about to be delivered")
        else:
            out.append("the 8259s' INT is high, and waits for IF = 1")
    return out


def _at_ioapic(vm):
    s = vm.pc.ioapic.state
    out = []
    for pin in range(PINS):
        low = s[2 * pin]
        if s[PIN_LINES] >> pin & 1 and pin:
            if low & LEVEL and low & r.REMOTE_IRR:
                text = "pin %d of the I/O APIC is asserted, and waits for the EOI of vector %#x"
                out.append(text % (pin, low & 0xFF))
            elif low & MASKED and low & 0xFF:
                out.append("pin %d of the I/O APIC is asserted, and masked" % pin)
    return out


def _at_lapic(vcpu):
    lapic = vcpu.lapic
    out = []
    requested = chips.vectors(lapic, r.IRR)
    if not requested:
        return out
    high = requested[-1]
    if not lapic.get(r.SVR) & r.SVR_ENABLED:
        return ["vector %#x waits, and the local APIC is disabled by SVR" % high]
    tpr, service = lapic.get(r.TPR), lapic.service_vector()
    if high >> 4 <= tpr >> 4:
        out.append("vector %#x waits: TPR is %#x" % (high, tpr))
    elif service >= 0 and high >> 4 <= service >> 4:
        text = "vector %#x waits for the EOI of vector %#x, which is in service at the local APIC"
        out.append(text % (high, service))
    elif not vcpu.rflags & RFLAGS_IF:
        out.append("vector %#x waits for IF = 1" % high)
    return out


def _timers(vm, vcpu):
    """Timers that could wake the guest."""
    pc = vm.pc
    out = []
    state = pc.pit.state
    if state[i8254_counters.ARMED] and state[i8254_counters.RW]:  # counter 0 has been programmed
        masked = pc.pic.state[lines_of_pic.IMR] & 1
        entry = pc.ioapic.state[2 * 2]
        if masked and entry & MASKED:
            out.append("the 8254 ticks, and its line 0 is masked at the 8259 and at the I/O APIC (pin 2)")
    lvt = vcpu.lapic.get(r.LVT_TIMER)
    if vcpu.lapic.timer.timer.deadline or (lvt & r.LVT_MASKED and vcpu.lapic.get(r.TIMER_INITIAL)):
        out.append("the local APIC's timer: " + chips.timer(vcpu.lapic))
    if not vcpu.clock.next:
        out.append("no timer is armed that would interrupt it")
    return out
