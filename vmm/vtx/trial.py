"""Trials of the CPU's behaviour in VMX non-root operation, by guests of a few bytes before any other runs.

An emulator, or a monitor below this one, may offer a control without implementing it. `run` enters three guests in real
mode, each with a host interrupt or a trap ahead, and checks the exit:

- a host interrupt while RFLAGS.IF is clear exits by EXTERNAL_INTERRUPT;
- it does so, too, while a virtual interrupt is pending in virtual-interrupt delivery;
- the monitor trap flag exits after one instruction.

No code tests which engine it runs on. Source: SDM Vol. 3C, "Pin-Based VM-Execution Controls", "Virtual-Interrupt
Delivery", "Monitor Trap Flag".
"""

import cpu
import uctypes
import vmx
from micropython import const

from vmm import verdict
from vmm.devices.lapic_registers import IRR
from vmm.loaders.state import State
from vmm.memory import ept
from vmm.vtx import making, msr_bitmap, reasons
from vmm.vtx import vmcs as v
from vmm.vtx.standstill import stop
from vmm.vtx.vmcs_bits import CONTROL_MONITOR_TRAP_FLAG
from vmm.vtx.x86 import IA32_PAT, PAGE

_VPID = const(0xFFFF)
_SPIN = b"\xeb\xfe"  # jmp $
_TOGGLE = b"\xfb\xfa" + _SPIN  # sti; cli: no interrupt is delivered between these two
# Ticks of VMCALL in EBX, and without it in EAX: rdtsc; mov esi, eax; vmcall; rdtsc; sub eax, esi; mov ebx, eax;
# rdtsc; mov esi, eax; rdtsc; sub eax, esi; hlt
_TIMED = b"\x0f\x31\x66\x89\xc6\x0f\x01\xc1\x0f\x31\x66\x29\xf0\x66\x89\xc3\x0f\x31\x66\x89\xc6\x0f\x31\x66\x29\xf0\xf4"
_TIMES = const(16)
_VECTOR = const(0x40)
_ALARM = const(30_000)  # host TSC ticks from before the entry to the host's interrupt
_LIMIT = const(300_000)  # and to the end of the trial
_ATTEMPTS = const(100)  # of an entry, which pending host interrupts may defer

# Bits for vmx.flaws (port/bochs27.h).
FLAW_MASKED_HOST = const(1 << 0)  # while the guest's IF is clear, a host interrupt causes no exit
FLAW_UNMASKED_VIRTUAL = const(1 << 1)  # a host interrupt delivers the pending virtual one instead, regardless of IF


class Trial:
    """flaws: bits for vmx.flaws; mtf: whether the monitor trap flag is offered and works."""

    def __init__(self, flaws, mtf):
        self.flaws = flaws
        self.mtf = mtf


class _Machine:
    """The part of a VM that making.prepare() uses: tables and bitmaps. close() frees the memory."""

    cr4_allowed = 0
    vpids = (_VPID,)

    def __init__(self, pages, caps):
        self._pages = pages
        self._taken = []
        self.ept = ept.Ept(pages, caps.page_sizes)
        self.io_bitmap = self.take(2 * PAGE)
        self.msr_bitmap = msr_bitmap.Bitmap(self.take(PAGE))
        self.code = self.take(PAGE)
        self.ept.map(0, self.code, PAGE)

    def take(self, size):
        hpa = self._pages.take(size)
        self._taken.append(hpa)
        return hpa

    def close(self):
        self.ept.release()
        for hpa in self._taken:
            self._pages.give(hpa)


class _Exits:
    """A dispatch table in which every handler ends the trial."""

    def new_table(self):
        self.table = [lambda _vcpu: verdict.STOP] * reasons.TABLE_SLOTS
        return self.table

    def attach(self, vcpu, table):
        pass


class _Guest:
    """One page of code at gpa 0, in real mode. reason(code, ...): the basic exit reason that ends it."""

    def __init__(self, pages, caps):
        self._machine = _Machine(pages, caps)
        self.exits = _Exits()
        self._vcpu = making.make(self._machine, 0, caps, self._machine.take, self.exits, ())
        self._vcpu.vpid = _VPID
        self._vcpu.msr_bitmap = self._machine.msr_bitmap
        self._caps = caps

    def close(self):
        self._vcpu.retire()
        self._machine.close()

    def reason(self, code, arm=None, alarm=False):
        guest = self._vcpu
        making.prepare(guest, self._caps)
        uctypes.bytearray_at(self._machine.code, len(code))[:] = code
        self._registers(guest)
        if self._caps.apicv or self._caps.tpr_shadow:
            self._apic(guest)
        if arm:
            arm(guest)
        now = cpu.rdtsc()
        guest.deadline = now + _LIMIT
        if alarm:
            cpu.alarm(now + _ALARM)
        try:
            for _ in range(_ATTEMPTS):
                guest.reason = reasons.ATTENTION
                vmx.enter(guest)
                if guest.reason != reasons.ATTENTION:
                    return guest.reason & 0xFFFF
            raise RuntimeError("a trial of the CPU was not entered in %d attempts" % _ATTEMPTS)
        finally:
            cpu.alarm(0)

    @staticmethod
    def _registers(guest):
        state = State("real", 0)
        guest.rip = 0
        guest.rflags = state.rflags
        guest.xcr0 = 1
        guest.write(v.GUEST_IA32_EFER, 0)
        guest.cr4 = 0
        guest.cr3 = 0
        guest.cr0 = state.cr0
        for name, segment in state.segments.items():
            guest.set_segment(name, *segment)
        for field in (
            v.GUEST_GDTR_BASE, v.GUEST_GDTR_LIMIT, v.GUEST_IDTR_BASE, v.GUEST_IDTR_LIMIT,
            v.GUEST_IA32_SYSENTER_CS, v.GUEST_IA32_SYSENTER_ESP, v.GUEST_IA32_SYSENTER_EIP,
            v.GUEST_IA32_DEBUGCTL, v.GUEST_INTERRUPTIBILITY_STATE, v.GUEST_ACTIVITY_STATE,
            v.GUEST_PENDING_DEBUG_EXCEPTIONS, v.VM_ENTRY_INTERRUPTION_INFORMATION,
        ):  # fmt: skip
            guest.write(field, 0)
        guest.write(v.GUEST_DR7, 0x400)
        guest.write(v.GUEST_IA32_PAT, cpu.rdmsr(IA32_PAT))

    def _apic(self, guest):
        """Set up the APIC fields. There is no IDT, so a delivered interrupt shuts the guest down."""
        if not hasattr(self, "_page"):
            self._page, self._access = self._machine.take(PAGE), self._machine.take(PAGE)
        guest.write(v.VIRTUAL_APIC_ADDRESS, self._page)
        guest.write(v.TPR_THRESHOLD, 0)
        if not self._caps.apicv:
            return
        guest.write(v.APIC_ACCESS_ADDRESS, self._access)
        for field in (v.EOI_EXIT_BITMAP_0, v.EOI_EXIT_BITMAP_1, v.EOI_EXIT_BITMAP_2, v.EOI_EXIT_BITMAP_3):
            guest.write(field, 0)
        guest.write(v.GUEST_INTERRUPT_STATUS, 0)

    def ticks(self):
        """The ticks of VMCALL in _TIMED."""
        return (self._vcpu.rbx - self._vcpu.rax) & 0xFFFFFFFF

    def interrupt(self, guest):
        """Make an interrupt pending in virtual-interrupt delivery."""
        uctypes.bytearray_at(self._page + IRR + _VECTOR // 32 * 16, 4)[0] = 1 << _VECTOR % 8
        guest.write(v.GUEST_INTERRUPT_STATUS, _VECTOR)


def _trap(guest):
    primary = v.PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS
    guest.write(primary, guest.read(primary) | CONTROL_MONITOR_TRAP_FLAG)


def unseen(pages, caps):
    """Ticks of an exit and the entry after it that a guest's TSC shows although its clock stands still in between
    (vmm/scheduling/stops.py): those of the CPU, and of the exit loop before and after the stop."""
    guest = _Guest(pages, caps)
    shown = []

    def stands(vcpu):
        stop(vcpu.frame_hpa, vcpu.exit_tsc)
        return verdict.ADVANCE

    guest.exits.table[reasons.VMCALL] = stands
    try:
        for _ in range(_TIMES):
            if guest.reason(_TIMED) == reasons.HLT:
                shown.append(guest.ticks())
    finally:
        guest.close()
    return max(min(shown or [0]), 0)


def run(pages, caps):
    """Return the Trial. In VMX operation only, before any guest; takes about a million host TSC ticks."""
    vmx.flaws(0)
    guest = _Guest(pages, caps)
    try:
        flaws = 0
        if guest.reason(_SPIN, alarm=True) != reasons.EXTERNAL_INTERRUPT:
            flaws |= FLAW_MASKED_HOST
        if caps.apicv and guest.reason(_TOGGLE, guest.interrupt, alarm=True) != reasons.EXTERNAL_INTERRUPT:
            flaws |= FLAW_UNMASKED_VIRTUAL
        offered = caps.found["proc"].MONITOR_TRAP_FLAG
        mtf = bool(offered and guest.reason(_SPIN, _trap) == reasons.MONITOR_TRAP_FLAG)
    finally:
        guest.close()
    vmx.flaws(flaws)
    return Trial(flaws, mtf)
