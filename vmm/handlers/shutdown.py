"""Exits that end a guest: triple fault, failed VM entry, EPT misconfiguration.

Source: SDM Vol. 3C, "Basic VM-Exit Information", "VM-Entry Failures During or After Loading Guest State".
"""

from vmm import verdict
from vmm.vtx import guest_checks


def triple_fault(vcpu):
    """The guest shut down; its `on_triple_fault` says what follows (VM.apply)."""
    return verdict.TRIPLE_FAULT


def reset(vcpu):
    """The guest resets itself; its `on_reset` says what follows."""
    return verdict.RESET


def ignored(vcpu):
    """INIT and SIPI for an absent CPU, SMIs without SMM: ignored."""
    return verdict.RESUME


def misconfiguration(vcpu):
    """An EPT entry that the CPU refuses: an error of the monitor."""
    entry, size = vcpu.vm.ept.walk(vcpu.gpa)
    vcpu.vm.report(vcpu, "EPT misconfiguration at gpa %#x, entry %#x, page size %#x" % (vcpu.gpa, entry, size))
    return verdict.STOP


def entry_failure(vcpu):
    """The guest was not entered: report what is wrong with its state."""
    reason = vcpu.reason
    names = {33: "invalid guest state", 34: "MSR loading"}
    faults = guest_checks.faults(vcpu) if reason == 33 else []
    text = "VM entry failed (exit reason %d, %s), qualification %d" % (reason, names[reason], vcpu.qualification)
    vcpu.vm.report(vcpu, "\n".join([text] + faults))
    return verdict.STOP


def nothing(vcpu):
    """Behind policies of what is no exit and needs nothing."""
    return verdict.RESUME
