"""Interrupts of the host, HLT and PAUSE. The preemption timer is vmm/clock.py's.

Source: SDM Vol. 3C, "Other Causes of VM Exits".
"""

from vmm import verdict


def external(vcpu):
    """A host interrupt: the shim let the host take it at the exit."""
    return verdict.YIELD


def attention(vcpu):
    """The host took an interrupt between two entries."""
    return verdict.YIELD


def halt(vcpu):
    """HLT: this vCPU waits for an event; the CPU is somebody else's."""
    return verdict.WAIT | verdict.ADVANCE


def pause(vcpu):
    """PAUSE with PAUSE exiting: a spinning guest gives way."""
    return verdict.YIELD | verdict.ADVANCE
