"""Interrupts of the host, HLT and PAUSE. The preemption timer's handler is in vmm/scheduling/clock.py.

Source: SDM Vol. 3C, "Other Causes of VM Exits".
"""

import micropython

from vmm import verdict


@micropython.viper
def external(vcpu) -> int:
    """Handler of external interrupts: the shim has taken it after the exit; it is serviced before an entry
    (coalesce.c)."""
    return verdict.RESUME


def attention(vcpu):
    """Handler of ATTENTION: the host took an interrupt between two entries; report an NMI or a machine check."""
    vcpu.vm.monitor.machine_checks.look()
    return verdict.YIELD | verdict.HOST


def written(vcpu):
    """Handler of slot WRITTEN: the monitor has written to a guest page of which a copy exists (hidden breakpoints)."""
    vcpu.vm.hidden.settle()
    return verdict.RESUME


@micropython.viper
def halt(vcpu) -> int:
    """Handler of HLT: the vCPU waits for an event; others are scheduled."""
    return verdict.WAIT | verdict.ADVANCE


def pause(vcpu):
    """Handler of PAUSE with one vCPU, under a policy only (PAUSE exiting): yield."""
    return verdict.YIELD | verdict.ADVANCE


@micropython.viper
def spin(vcpu) -> int:
    """Handler of PAUSE with several vCPUs (PAUSE-loop exiting): the vCPU waits for another one; yield to it."""
    return verdict.YIELD | verdict.ADVANCE | verdict.SPIN
