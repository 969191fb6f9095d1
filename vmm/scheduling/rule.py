"""A rule of the user's in place of the scheduler's own: sched.policy, an object with pick(runnable)."""

import sys

import cpu
import vmx
from micropython import const

from vmm.scheduling.accounting import heap_of_call
from vmm.scheduling.states import HALTED, RUNNING
from vmm.verdict import BEYOND, WAIT
from vmm.vtx import exits

_LIMIT_SLICES = const(100)  # the longest that a rule may think


def turn(scheduler, deadline):
    """One turn of whom the rule names. deadline: host TSC, 0: none."""
    runnable = []
    timers = [deadline] if deadline else []
    for vcpu in list(scheduler.vcpus):
        vm = vcpu.vm
        state = vcpu.scheduled.state
        if state == RUNNING or state == HALTED and _wakes(scheduler, vm):
            runnable.append(vm)
        elif state == HALTED:
            when = vm.next_timer()
            if when:
                timers.append(when)
    vm = _pick(scheduler, runnable) if runnable else None
    if scheduler.policy is None:  # the usual rule goes on
        return
    if vm is None:
        cpu.idle(min(timers) if timers else 0)
    else:
        vcpu = vm.vcpus[0]
        vm.clock.slice_end = min([cpu.rdtsc() + scheduler.slice_ticks] + timers)
        scheduler.enters(vcpu)
        before = sum(vcpu.scheduled.ticks())
        answer = exits.run(vcpu, vmx.enter)
        scheduler.charge(vcpu, sum(vcpu.scheduled.ticks()) - before)
        if answer & (BEYOND | WAIT):
            scheduler.on_behalf(vm, vm.apply, answer)
    scheduler.poll()


def _wakes(scheduler, vm):
    """Whether a halted guest goes on. One whose timer fails is set aside."""
    try:
        return scheduler.on_behalf(vm, vm.wake)
    except Exception as error:
        scheduler.set_aside(vm, "a timer's end", error)
        return False


def _pick(scheduler, runnable):
    """Whom the rule names. One that fails is removed: it must not keep guests from running."""
    cpu.watch(cpu.rdtsc() + _LIMIT_SLICES * scheduler.slice_ticks)
    try:
        vm = cpu.guard(scheduler.policy.pick, runnable, heap_of_call())
        if vm is not None and (vm not in runnable or vm.vcpus[0] not in scheduler.vcpus or vm.state != RUNNING):
            raise ValueError("pick() returned %r, which cannot run" % (vm,))
        return vm
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        scheduler.policy = None
        print("sched.policy failed and is removed:")
        sys.print_exception(error)
        return None
    finally:
        cpu.watch(0)
