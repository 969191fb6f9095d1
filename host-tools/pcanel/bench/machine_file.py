"""Describes a guest's start in a file for kvmrun (host-tools/kvmrun): what the monitor's loaders put into its memory.

So the peer under KVM begins with the same bytes and registers as a guest of the monitor, ACPI tables included.

usage: python -m pcanel.bench.machine_file FILE MEMORY_MIB CPUS PROTOCOL KERNEL [INITRD] CMDLINE
"""

import struct
import sys
from pathlib import Path

from pcanel.paths import BUILD
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx.x86 import PAGE

_MAGIC = b"PCKVM002"
_AML = BUILD / "port/generated/vmm/acpi/dsdt_aml.aml"


class _Memory:
    """Guest memory as the loaders use it, from gpa 0 on."""

    def __init__(self, size: int):
        self.size = size
        self.data = bytearray(size)

    def has(self, gpa: int, size: int = 1) -> bool:
        return gpa >= 0 and gpa + size <= self.size

    def view(self, gpa: int, size: int) -> memoryview:
        return memoryview(self.data)[gpa : gpa + size]

    def read(self, gpa: int, size: int) -> bytes:
        return bytes(self.view(gpa, size))

    def write(self, gpa: int, data) -> None:
        self.data[gpa : gpa + len(data)] = data

    def write_u8(self, gpa: int, value: int) -> None:
        self.data[gpa] = value

    def write_u16(self, gpa: int, value: int) -> None:
        struct.pack_into("<H", self.data, gpa, value)

    def chunks(self) -> list[tuple[int, bytes]]:
        """The runs of pages that are not all zero."""
        empty = bytes(PAGE)
        found: list[tuple[int, bytearray]] = []
        for gpa in range(0, self.size, PAGE):
            page = self.data[gpa : gpa + PAGE]
            if page == empty:
                continue
            if found and found[-1][0] + len(found[-1][1]) == gpa:
                found[-1][1].extend(page)
            else:
                found.append((gpa, page))
        return [(gpa, bytes(data)) for gpa, data in found]


def build(
    memory_mib: int, cpus: int, protocol: str, kernel: bytes, initrd: bytes | None, cmdline: str, large: bool
) -> bytes:
    """The file's bytes."""
    from vmm import bda
    from vmm.acpi import tables
    from vmm.loaders import load
    from vmm.memory.e820 import e820

    memory = _Memory(memory_mib << 20)
    bda.install(memory, (0x3F8,))
    rsdp = tables.install(memory, _AML.read_bytes(), cpus=cpus)
    config = {"name": "kvm", "protocol": protocol, "kernel": "kernel", "cmdline": cmdline}
    blobs = {"kernel": kernel}
    if initrd is not None:
        config["initrd"], blobs["initrd"] = "initrd", initrd
    state = load(memory, config, blobs, e820(memory.size), rsdp)
    chunks = memory.chunks()
    gprs = state.gprs
    header = struct.pack(
        "<8s19Q", _MAGIC, memory.size, len(chunks), state.rip, gprs["rsp"], state.rflags, gprs["rax"], gprs["rbx"],
        gprs["rsi"], state.cr0, state.cr3, state.cr4, state.efer, state.gdt_base, state.gdt_limit,
        state.segments["cs"][0], state.segments["ds"][0], state.mode == "long", cpus, large,
    )  # fmt: skip
    return header + b"".join(struct.pack("<QQ", gpa, len(data)) + data for gpa, data in chunks)


def main() -> None:
    target, memory_mib, cpus, protocol, kernel, *initrd, cmdline = sys.argv[1:]
    initrd_data = Path(initrd[0]).read_bytes() if initrd else None
    large = protocol == "linux"  # the bench's guest measures small ones
    kernel_data = Path(kernel).read_bytes()
    with importable():
        Path(target).write_bytes(build(int(memory_mib), int(cpus), protocol, kernel_data, initrd_data, cmdline, large))


if __name__ == "__main__":
    main()
