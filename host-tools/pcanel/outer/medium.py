"""The outer system's boot medium."""

from collections.abc import Mapping
from pathlib import Path

from pcanel.image import make_linux_iso
from pcanel.outer import archives

# The TSC counts ticks, 100 million to the second, whatever CPUID says; mitigations would
# be paid by every exit and would not show in the figures. Bochs shows APERF and MPERF in
# CPUID but lacks their MSRs, which the kernel would read at each of its ticks. What is left out
# takes half of the boot: the cryptographic self-tests, keys, and what traces need.
_LEFT_OUT = ("crypto_kdf108_init", "load_system_certificate_list", "init_blk_tracer", "init_kprobe_trace")
CMDLINE = (
    "console=ttyS0,115200 tsc_early_khz=100000 tsc=reliable quiet mitigations=off clearcpuid=aperfmperf"
    f" cryptomgr.notests initcall_blacklist={','.join(_LEFT_OUT)}"
)


def make(iso: Path, files: Mapping[str, bytes | Path], script: str, qemu: bool = False) -> None:
    """Writes an ISO that boots the outer system with `files` in it and runs `script`."""
    kept = [archives.system(), archives.qemu()] if qemu else [archives.system()]
    own = archives.pack({**files, "/script": script.encode()})
    everything = b"".join([*(path.read_bytes() for path in kept), own])
    make_linux_iso(archives.KERNEL, [archives.compress(everything)], iso, CMDLINE)
