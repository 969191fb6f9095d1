"""What this machine has and lacks for building and running the monitor."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pcanel.engines import bochs_programs, host
from pcanel.paths import BUILD, ROOT

_PACKAGES = ROOT / "host-tools/setup/packages.txt"
_OVMF = Path("/usr/share/OVMF")
_BUILT = (
    ("MicroPython", "micropython/py/mpconfig.h", "make setup"),
    ("guest kernels", "guests/cloud.vmlinux", "make guests"),
    ("image", "pcanel.elf", "make all"),
    ("boot medium", "pcanel.iso", "make all"),
)


@dataclass(frozen=True)
class Finding:
    """`state`: True there, False needed and lacking, None lacking but not needed."""

    subject: str
    state: bool | None
    words: str
    mend: str = ""


def examine() -> list[Finding]:
    """Everything, in the order in which one would mend it."""
    return [
        packages(needed_packages(_PACKAGES), _is_installed),
        *virtualization(),
        bochs(),
        fast_bochs(),
        program("QEMU", "qemu-system-x86_64", ("--version",), "qemu-system-x86"),
        program("GRUB", "grub-mkrescue", ("--version",), "grub-common grub-pc-bin grub-efi-amd64-bin xorriso mtools"),
        firmware(),
        *built(BUILD),
    ]


def needed_packages(path: Path) -> list[str]:
    """The package names of the set-up's list."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def packages(names: list[str], is_installed: Callable[[str], bool]) -> Finding:
    missing = [name for name in names if not is_installed(name)]
    if not missing:
        return Finding("Debian packages", True, f"all {len(names)} are installed")
    words = f"{len(missing)} of {len(names)} are missing: {' '.join(missing)}"
    return Finding("Debian packages", False, words, _install(" ".join(missing)))


def _install(packages: str) -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install --no-install-recommends {packages}"


def virtualization() -> list[Finding]:
    """VT-x, nested VMX and KVM access; none of them is needed, Bochs does without."""
    nested = host.nested_vmx()
    return [
        vt_x(host.cpu_flags()),
        Finding("nested VMX", nested.usable or None, nested.reason, nested.mend),
        _kvm_access(),
    ]


def vt_x(flags: set[str]) -> Finding:
    """Whether the CPU's flags show VT-x. No command can add it; firmware settings or another machine do."""
    inside = "hypervisor" in flags
    where = ", inside a virtual machine" if inside else ""
    if "vmx" in flags:
        return Finding("VT-x", True, f"the CPU has it{where}")
    if "svm" in flags:
        return Finding("VT-x", None, f"the CPU has AMD-V instead{where}; Bochs does without", "only an Intel CPU does")
    if inside:
        mend = "on the machine outside, sudo modprobe kvm_intel nested=1, and start this one with -cpu host"
    else:
        mend = "switch VT-x on in the firmware's set-up, where the CPU is Intel's"
    return Finding("VT-x", None, f"the CPU shows none{where}; Bochs does without", mend)


def _kvm_access() -> Finding:
    if not host.KVM.exists():
        return Finding("/dev/kvm", None, "is not there")
    if os.access(host.KVM, os.R_OK | os.W_OK):
        return Finding("/dev/kvm", True, "can be opened (which alone proves nothing)")
    user = os.environ.get("USER", "USER")
    return Finding("/dev/kvm", None, "may not be opened by this user", f"sudo adduser {user} kvm, and log in again")


def bochs(firmware: tuple[Path, Path] | None = None) -> Finding:
    """Debian's program, and the firmware that each Bochs boots with."""
    lost = [path for path in firmware or bochs_programs.firmware() if not path.is_file()]
    if lost:
        return Finding("Bochs", False, f"{lost[0]} is not there", _install("bochs bochsbios vgabios"))
    return program("Bochs", "bochs", ("--help",), "bochs bochsbios vgabios")


def fast_bochs(fast: bochs_programs.Program = bochs_programs.FAST) -> Finding:
    """The Bochs that is built for speed."""
    if not fast.is_there:
        return Finding("fast Bochs", None, f"{fast.path} is not built; Debian's does, 2.5 times as slow", "make bochs")
    return Finding("fast Bochs", True, f"{fast.path}: Bochs x86 Emulator {fast.version()}")


def program(subject: str, name: str, version: tuple[str, ...], package: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(subject, False, f"{name} is not installed", _install(package))
    said = subprocess.run([path, *version], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    lines = [line.strip() for line in (said.stdout + said.stderr).splitlines() if any(c.isdigit() for c in line)]
    named = [line for line in lines if subject.lower() in line.lower()]
    return Finding(subject, True, f"{path}: {(named or lines or ['no version given'])[0]}")


def firmware(directory: Path = _OVMF) -> Finding:
    found = sorted(directory.glob("OVMF_CODE*.fd"))
    if found:
        return Finding("UEFI firmware", True, str(found[0]))
    return Finding("UEFI firmware", False, "OVMF is not installed", _install("ovmf"))


def built(build: Path) -> list[Finding]:
    return [
        Finding(subject, True, str(build / path))
        if (build / path).exists()
        else Finding(subject, False, f"{build / path} is not there yet", mend)
        for subject, path, mend in _BUILT
    ]


def _is_installed(name: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", name]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"
