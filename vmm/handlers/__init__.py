"""The table of exit handlers: handler(vcpu) -> verdict (vmm/verdict.py).

`install` lists for each exit reason its handler and the frame.WANT_... words that the handler reads beyond reason, RIP,
RSP, RFLAGS, qualification and length.
"""

from vmm.handlers import control, descriptor, exception, interrupt, invpcid, rdrand, shutdown, task_switch, undefined
from vmm.handlers.privileged import kernel_only
from vmm.scheduling import interleave
from vmm.vtx import events
from vmm.vtx import frame as f
from vmm.vtx import reasons as r


def install(vm, exits):
    """Fill a VM's dispatch table. ValueError if a reason is added twice."""
    add = exits.add
    first = vm.vcpus[0]  # all vCPUs have the same parts
    several = len(vm.vcpus) > 1

    # interrupts and time
    add(r.EXTERNAL_INTERRUPT, interrupt.external)
    add(r.PREEMPTION_TIMER_EXPIRED, exits.each(lambda vcpu: vcpu.clock.preemption_timer()))
    add(r.INTERRUPT_WINDOW, events.window)
    add(r.NMI_WINDOW, events.window)
    add(r.ATTENTION, interrupt.attention)
    add(r.MONITOR_TRAP_FLAG, interleave.monitor_trap_flag(exits.unhandled))
    exits.add_slot(r.COMPLETED, exits.each(lambda vcpu: vcpu.breakpoints.completed))
    exits.add_slot(r.WRITTEN, interrupt.written)
    add(r.PENDING, exits.each(lambda vcpu: vcpu.events.injector(vcpu.apic_page, vcpu.events.acknowledge)))
    add(r.HLT, exits.each(lambda vcpu: vcpu.tpr_shadow.halt()) if first.tpr_shadow else interrupt.halt)
    add(r.PAUSE, interrupt.spin if several else interrupt.pause)

    # instructions that the monitor emulates
    vm.cpuid.install(exits)
    vm.msrs.install(exits)
    vm.pc.apic_msrs.install(exits, vm.apic_bus.quick if several else None)
    vm.ports.install(exits)
    vm.hypercalls.install(exits)
    add(r.XSETBV, control.xsetbv)
    add(r.CONTROL_REGISTER_ACCESS, exits.each(control.accesses), f.WANT_CR0)
    add(r.MOV_DR, control.mov_dr)
    add(r.WBINVD, kernel_only(control.write_back))
    add(r.INVD, kernel_only(control.write_back))
    add(r.INVLPG, kernel_only(control.invlpg))
    add(r.INVPCID, kernel_only(invpcid.invpcid), f.WANT_INSTR_INFO | f.WANT_DR7)
    add(r.RDTSC, control.rdtsc)
    add(r.RDTSCP, control.rdtscp)
    add(r.RDRAND, rdrand.rdrand, f.WANT_INSTR_INFO | f.WANT_CS_RIGHTS)
    add(r.RDSEED, rdrand.rdrand, f.WANT_INSTR_INFO | f.WANT_CS_RIGHTS)
    add(r.GDTR_OR_IDTR_ACCESS, descriptor.table_access, f.WANT_INSTR_INFO | f.WANT_DR7)
    add(r.LDTR_OR_TR_ACCESS, descriptor.table_access, f.WANT_INSTR_INFO | f.WANT_DR7)

    # memory
    vm.mmio.install(exits)
    add(r.EPT_MISCONFIGURATION, shutdown.misconfiguration, f.WANT_GPA)

    # local APIC
    add(r.APIC_ACCESS, vm.mmio.apic_access, f.WANT_LINEAR | f.WANT_VECTORING | f.WANT_CODE | f.WANT_DR7)
    if first.apicv:
        ipi = vm.apic_bus.quick if several else None
        add(r.APIC_WRITE, exits.each(lambda vcpu: vcpu.apicv.write_exits(ipi)))
        add(r.VIRTUALIZED_EOI, exits.each(lambda vcpu: vcpu.apicv.eoi_exits()))
    add(r.TPR_BELOW_THRESHOLD, events.window)

    # exceptions, and what the CPU does not finish by itself
    add(r.EXCEPTION_OR_NMI, exception.exit, f.WANT_INTR | f.WANT_VECTORING)
    add(r.TASK_SWITCH, task_switch.exit, f.WANT_VECTORING)
    add(r.TRIPLE_FAULT, shutdown.triple_fault)
    exits.add_slot(r.SHUTDOWN, shutdown.triple_fault)
    exits.add_slot(r.RESET_REQUEST, shutdown.reset)
    exits.add_slot(r.TIME, shutdown.nothing)
    exits.add_slot(r.INTERRUPT, shutdown.nothing)
    exits.add_slot(r.PACKET, shutdown.nothing)
    exits.add_slot(r.ARRIVAL, shutdown.nothing)
    exits.add_slot(r.INJECTION, shutdown.nothing)
    add(r.INIT_SIGNAL, shutdown.ignored)
    add(r.STARTUP_IPI, shutdown.ignored)
    add(r.IO_SMI, shutdown.ignored)
    add(r.OTHER_SMI, shutdown.ignored)
    add(r.ENTRY_FAILURE_GUEST_STATE, shutdown.entry_failure)
    add(r.ENTRY_FAILURE_MSR_LOADING, shutdown.entry_failure)
    add(r.ENTRY_FAILURE_MACHINE_CHECK, exception.machine_check)

    # instructions that this guest's CPUID denies
    for reason in (
        r.GETSEC, r.RSM, r.VMCLEAR, r.VMLAUNCH, r.VMPTRLD, r.VMPTRST, r.VMREAD, r.VMRESUME, r.VMWRITE,
        r.VMXOFF, r.VMXON, r.INVEPT, r.INVVPID, r.VMFUNC, r.MONITOR, r.MWAIT, r.ENCLS, r.ENCLV,
        r.PCONFIG, r.UMWAIT, r.TPAUSE, r.LOADIWKEY, r.XSAVES, r.XRSTORS, r.SEAMCALL,
        r.TDCALL, r.ENQCMD_PASID_FAILURE, r.ENQCMDS_PASID_FAILURE,
    ):  # fmt: skip
        add(reason, undefined.exit)
    add(r.RDPMC, undefined.privileged)
