"""Exits that end a guest (triple fault, failed VM entry, EPT misconfiguration), and those without effect.

Source: SDM Vol. 3C, "Basic VM-Exit Information", "VM-Entry Failures During or After Loading Guest State".
"""

from vmm import verdict
from vmm.vtx import guest_checks
from vmm.vtx.reasons import ENTRY_FAILURE_GUEST_STATE, ENTRY_FAILURE_MSR_LOADING


def triple_fault(vcpu):
    """Handler of a triple fault, a shutdown of the CPU: VM.apply() acts by the guest's `on_triple_fault`."""
    return verdict.TRIPLE_FAULT


def reset(vcpu):
    """Handler of a reset that the guest asks for: VM.apply() acts by the guest's `on_reset`."""
    return verdict.RESET


def ignored(vcpu):
    """Handler of INIT, SIPI and SMI, which are ignored: no CPU waits for them, and there is no SMM."""
    return verdict.RESUME


def misconfiguration(vcpu):
    """Handler of an EPT misconfiguration, an error of the monitor: report the entry and stop the guest."""
    entry, size = vcpu.vm.ept.walk(vcpu.gpa)
    vcpu.vm.report(vcpu, "EPT misconfiguration at gpa %#x, entry %#x, page size %#x" % (vcpu.gpa, entry, size))
    return verdict.STOP


def entry_failure(vcpu):
    """Handler of failed VM entries: report the faults in the guest's state and stop the guest."""
    reason = vcpu.reason
    names = {ENTRY_FAILURE_GUEST_STATE: "invalid guest state", ENTRY_FAILURE_MSR_LOADING: "MSR loading"}
    faults = guest_checks.faults(vcpu) if reason == ENTRY_FAILURE_GUEST_STATE else []
    text = "VM entry failed (exit reason %d, %s), qualification %d" % (reason, names[reason], vcpu.qualification)
    vcpu.vm.report(vcpu, "\n".join([text] + faults))
    return verdict.STOP


def nothing(vcpu):
    """Handler of slots for events that are no exits: policies act on them, the monitor does not."""
    return verdict.RESUME
