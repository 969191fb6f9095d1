"""A rule of the user's in place of the scheduler's own: sched.policy, an object with pick(runnable)."""

import sys

import cpu
import vmx
from micropython import const

from vmm.scheduling.accounting import give_way, heap_of_call
from vmm.scheduling.states import HALTED, RUNNING, WAIT_FOR_SIPI
from vmm.verdict import BEYOND, SPIN, WAIT
from vmm.vtx import exits
from vmm.vtx.frame import TURN

_LIMIT_SLICES = const(100)  # the longest that a rule may think


def turn(scheduler, deadline):
    """One turn of the VM that the rule names; its vCPUs take turns. deadline: host TSC, 0: none."""
    runnable = []
    timers = [deadline] if deadline else []
    able = {}  # id of a VM: the vCPU of it that has used the least of those that can run
    for vcpu in list(scheduler.vcpus):
        vm, scheduled = vcpu.vm, vcpu.scheduled
        if scheduled.state == RUNNING or scheduled.state == HALTED and _wakes(scheduler, vcpu):
            if id(vm) not in able:
                runnable.append(vm)
            elif able[id(vm)].scheduled.get(TURN) <= scheduled.get(TURN):
                continue
            able[id(vm)] = vcpu
        elif scheduled.state in (HALTED, WAIT_FOR_SIPI):
            when = _next_timer(vcpu)
            if when:
                timers.append(when)
    vm = _pick(scheduler, runnable) if runnable else None
    if scheduler.policy is None:  # the usual rule goes on
        return
    if vm is None:
        cpu.idle(min(timers) if timers else 0)
    else:
        vcpu = able[id(vm)]
        vcpu.clock.slice_end = min([cpu.rdtsc() + scheduler.slice_ticks] + timers)
        scheduler.enters(vcpu)
        before = sum(vcpu.scheduled.ticks())
        answer = exits.run(vcpu, vmx.enter)
        scheduler.charge(vcpu, sum(vcpu.scheduled.ticks()) - before)
        if answer & SPIN:
            give_way(vcpu.frame_hpa)
        if answer & (BEYOND | WAIT):
            scheduler.on_behalf(vm, vm.apply, answer, vcpu)
    scheduler.poll()


def _next_timer(vcpu):
    """Host TSC of the vCPU's next timer, 0 where none is armed."""
    when = vcpu.clock.next
    return max(when - vcpu.clock.from_host, 1) if when else 0


def _wakes(scheduler, vcpu):
    """Whether a halted vCPU goes on. The guest of one whose timer fails is stopped."""
    try:
        return scheduler.on_behalf(vcpu.vm, _wake, vcpu)
    except Exception as error:
        scheduler.stop_faulty(vcpu.vm, "a timer's end", error)
        return False


def _wake(vcpu):
    """Call back due timers; True when that or a device brought an event: it runs again."""
    clock, scheduled = vcpu.clock, vcpu.scheduled
    if clock.next and clock.next <= clock.now():
        scheduled.due(_next_timer(vcpu))
        clock.expire()
        if not scheduled.wakes():
            clock.park()
    if scheduled.wakes():
        scheduled.woken()
        vcpu.vm.catch_up()
        scheduled.state = RUNNING
        return True
    scheduled.due(0)
    return False


def _pick(scheduler, runnable):
    """The VM that the rule names. A rule that fails is removed: it must not keep guests from running."""
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
