"""What this machine offers for running VT-x inside a guest.

That /dev/kvm opens proves nothing: a KVM inside a virtual machine may have no VMX.
What counts is the `vmx` flag of the CPU and the `nested` parameter of kvm_intel.
"""

import os
from dataclasses import dataclass
from pathlib import Path

KVM = Path("/dev/kvm")
NESTED = Path("/sys/module/kvm_intel/parameters/nested")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class NestedVmx:
    """Whether nested VMX can be used, and the reason in words."""

    usable: bool
    reason: str
    mend: str = ""  # the one command that mends the lack, where there is one


def cpu_flags(cpuinfo: Path = CPUINFO) -> set[str]:
    """The flags that the kernel shows for the first CPU."""
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


def nested_vmx(kvm: Path = KVM, nested: Path = NESTED, cpuinfo: Path = CPUINFO) -> NestedVmx:
    """Looks at the CPU's flags, kvm_intel and the right to use /dev/kvm, in this order."""
    if "vmx" not in cpu_flags(cpuinfo):
        return NestedVmx(False, "this CPU shows no VT-x (no vmx flag in /proc/cpuinfo)")
    if not kvm.exists():
        return NestedVmx(False, "there is no /dev/kvm", "sudo modprobe kvm_intel nested=1")
    if not nested.exists():
        return NestedVmx(False, "kvm_intel is not loaded", "sudo modprobe kvm_intel nested=1")
    if nested.read_text().strip() not in ("Y", "1"):
        return NestedVmx(
            False, "kvm_intel is loaded with nested=0", "sudo modprobe -r kvm_intel && sudo modprobe kvm_intel nested=1"
        )
    if not os.access(kvm, os.R_OK | os.W_OK):
        return NestedVmx(False, "this user may not open /dev/kvm", f"sudo adduser {os.environ.get('USER', 'USER')} kvm")
    return NestedVmx(True, "/dev/kvm offers nested VMX")
