"""Interrupts of the host, HLT and PAUSE; what comes before an entry. The preemption timer is vmm/scheduling/clock.py's.

Source: SDM Vol. 3C, "Other Causes of VM Exits".
"""

import micropython

from vmm import verdict


@micropython.viper
def external(vcpu) -> int:
    """A host interrupt, which the host took in the shim after the exit: it is serviced before an entry (coalesce.c)."""
    return verdict.RESUME


def attention(vcpu):
    """The host took an interrupt between two entries; an NMI or a machine check is reported."""
    vcpu.vm.monitor.machine_checks.look()
    return verdict.YIELD | verdict.HOST


def written(vcpu):
    """Handler of slot WRITTEN: the monitor has written to a page of the guest that it has a copy of."""
    vcpu.vm.hidden.settle()
    return verdict.RESUME


@micropython.viper
def halt(vcpu) -> int:
    """HLT: this vCPU waits for an event; the CPU is free for others."""
    return verdict.WAIT | verdict.ADVANCE


def pause(vcpu):
    """PAUSE with PAUSE exiting, where a policy watches it: a spinning guest gives way."""
    return verdict.YIELD | verdict.ADVANCE


@micropython.viper
def spin(vcpu) -> int:
    """PAUSE, again and again: one of several vCPUs waits for another, and gives way to it."""
    return verdict.YIELD | verdict.ADVANCE | verdict.SPIN
