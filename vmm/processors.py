"""The processors of a guest: what each has of its own, and how they start and stop.

The VM has memory, EPT, ports, devices, the dispatch table's handlers and policies; docs/smp.md draws the line. On a
vmx.VCPU hang, besides the registers: number (from 0, also its APIC ID), vpid, frame_hpa, apic_page, msr_bitmap, clock,
lapic, events, apicv or tpr_shadow (None where the CPU has neither), breakpoints, stepper, scheduled. The first one
boots; the others wait for SIPI. Source: SDM Vol. 3A, "Multiple-Processor (MP) Initialization".
"""

import cpu
import uctypes
from vmx import bind

from vmm.devices import lapic, lapic_registers
from vmm.loaders.state import State
from vmm.policies import monitortrap, stepper, trapflag
from vmm.scheduling import clock, states
from vmm.scheduling.preemption import end_turn
from vmm.scheduling.scheduled import Scheduled
from vmm.vtx import apicv, breakpoints, events, making, msr_bitmap, tpr_shadow
from vmm.vtx.frame import SIBLING, TASK
from vmm.vtx.x86 import CR0_CD, CR0_ET, CR0_NW, PAGE

_RESET_VECTOR = 0xFFF0
_RESET_BASE = 0xFFFF0000
_BOOT_PROCESSOR = "INIT of the processor that boots"


def make(vm, number, vpid, live):
    """Return a vCPU with its parts, which the machine's chips are not connected to yet. live: as for making.make."""
    monitor = vm.monitor
    caps = monitor.caps
    made = making.make(vm, number, caps, vm.take, vm.exits, live)
    vm.vcpus.append(made)  # so that release() finds it
    made.memory = vm.memory  # for what looks into it often: finding it by the VM takes 100 ticks more
    made.vpid = vpid
    if number:
        made.clock = clock.Clock(cpu.tsc_hz, cpu.rdtsc, vm.vcpus[0].clock.from_host)
    else:
        made.clock = clock.Clock(cpu.tsc_hz, cpu.rdtsc)
    made.clock.attach(made)
    made.msr_bitmap = msr_bitmap.Bitmap(vm.take(PAGE))
    vm.msrs.open(made.msr_bitmap)
    making.prepare(made, caps)
    made.events = waiting = events.Events(made, caps.used["proc"].raw)
    made.apic_page = vm.take(lapic_registers.SIZE)
    registers = uctypes.bytearray_at(made.apic_page, lapic_registers.SIZE)
    made.lapic = lapic.Lapic(
        registers, made.clock, number, waiting.kick,
        bind(events.raise_nmi, made),
        send=lambda low, destination: vm.apic_bus.ipi(made, low, destination),
    )  # fmt: skip
    made.apicv = made.tpr_shadow = None
    if caps.apicv:
        made.apicv = apicv.Apicv(made.lapic, made.msr_bitmap, caps.found["proc2"].VIRTUALIZE_X2APIC_MODE)
    elif caps.tpr_shadow:
        made.tpr_shadow = tpr_shadow.TprShadow(made.lapic)
    made.breakpoints = breakpoints.Breakpoints()
    ways = (trapflag.TrapFlag(made),)
    if monitor.trial.mtf:
        ways = (monitortrap.MonitorTrap(made),) + ways
    made.stepper = stepper.Stepper(made, ways)
    made.scheduled = Scheduled(made.frame_hpa, made.apic_page)
    return made


def connect(vm):
    """The machine is there: its interrupts reach the vCPUs."""
    access_page = vm.take(PAGE) if vm.monitor.caps.apicv else 0
    for made in vm.vcpus:
        vm.pc.connect(made)
        vm.spec_msrs.attach(made)
        if made.apicv:
            made.apicv.attach(made, made.apic_page, access_page)
            made.events.sync = made.apicv.sync
        if made.tpr_shadow:
            made.tpr_shadow.attach(made, made.apic_page)
            made.events.limit = made.tpr_shadow.update
    if len(vm.vcpus) > 1:
        for number, made in enumerate(vm.vcpus):
            made.lapic.arbitrates = True
            made.lapic.ipi = vm.apic_bus.quick
            made.scheduled.put(SIBLING, vm.vcpus[(number + 1) % len(vm.vcpus)].frame_hpa)


def power_up(made, state):
    """Its state at the start: a loader's State, or None for that after a reset."""
    made.breakpoints.reset()
    made.scheduled.put(TASK, 0)
    made.start(state or _reset_state(made, 0))
    _begin_delivery(made)


def _begin_delivery(made):
    if made.apicv:
        made.apicv.reset()
    if made.tpr_shadow:
        made.tpr_shadow.reset()


def _reset_state(made, cr0):
    """The registers after power-up or INIT. cr0: what INIT leaves of CD and NW."""
    state = State("real", _RESET_VECTOR)
    state.cr0 = cr0 & (CR0_CD | CR0_NW) | CR0_ET
    _, _, limit, rights = state.segments["cs"]
    state.segments["cs"] = 0xF000, _RESET_BASE, limit, rights
    state.idt_limit = 0xFFFF
    state.gprs["rdx"] = made.vm.cpuid.leaf(1, 0)[0]
    return state


def initialize(made):
    """INIT. The processor that boots would run its firmware anew: its machine is reset. Others wait for SIPI."""
    vm = made.vm
    if not made.number:
        vm.reset_soon(_BOOT_PROCESSOR)
        end_turn(vm.current.frame_hpa)
        return
    made.stepper.reset()
    made.breakpoints.reset()
    made.initialize(_reset_state(made, made.cr0))
    made.lapic.initialize()
    _begin_delivery(made)
    made.scheduled.wait_for_sipi()
    if made is vm.current:
        end_turn(made.frame_hpa)


def start_up(made, vector):
    """SIPI: one that waits for it starts in real mode at page `vector`; others ignore it."""
    if made.scheduled.waits_for_sipi:
        _, _, limit, rights = made.segment("cs")
        made.set_segment("cs", vector << 8, vector << 12, limit, rights)
        made.rip = 0
        made.scheduled.state = states.RUNNING
