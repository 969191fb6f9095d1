"""Hidden breakpoints on pages that devices write code to: it is executed, and the breakpoint stays.

Whatever writes for a device does so by instructions of the monitor (port/written.c), so a disk that the guest drives, a
console, a network interface and a look by a view stand for all.
"""

import struct

import pytest
from bench import DATA
from pcanel.assemble import assemble

FUNCTION = 0x130000
OTHER = FUNCTION + 0x800  # on the same page
REGISTERS = 0xFED20000  # of the first virtio by registers in memory
RINGS = 0x300000
DESC, AVAIL, USED, HEADER = RINGS, RINGS + 0x1000, RINGS + 0x2000, RINGS + 0x3000
NEXT, WRITE = 1, 2
GO = RINGS + 0x4000
SECTOR = 512

OLD = assemble("nop\nmov eax, 7\nret", 64, FUNCTION)
NEW = assemble("push rbp\nmov eax, 0x2a\npop rbp\nret", 64, FUNCTION)
OTHERS = assemble("mov eax, 9\nret", 64, OTHER)

BOTH = pytest.mark.parametrize("execute_only", [True, False], indirect=True)


@pytest.fixture(autouse=True)
def execute_only(request, bench):
    """Whether guests have execute-only pages."""
    bench.exec(f"monitor.caps.ept_vpid.EXECUTE_ONLY = {int(getattr(request, 'param', True))}")
    yield
    bench.exec("monitor.caps.ept_vpid.EXECUTE_ONLY = 1")


def store(offset, value):
    return f"mov dword ptr [rdi + {offset:#x}], {value:#x}\n"


def driver(queue=0):
    """Guest code: a driver for one queue of the device; RDI is its registers."""
    lines = f"mov edi, {REGISTERS:#x}\n"
    lines += store(0x70, 0) + store(0x70, 3) + store(0x24, 1) + store(0x20, 1) + store(0x70, 11)
    lines += store(0x30, queue) + store(0x38, 8)
    for offset, gpa in ((0x80, DESC), (0x90, AVAIL), (0xA0, USED)):
        lines += store(offset, gpa) + store(offset + 4, 0)
    return lines + store(0x44, 1) + store(0x70, 15)


def descriptors(*buffers):
    """One chain in the available ring. buffers: (gpa, bytes, flags)."""
    table = b""
    for i, (gpa, size, flags) in enumerate(buffers):
        more = NEXT if i + 1 < len(buffers) else 0
        table += struct.pack("<QIHH", gpa, size, flags | more, i + 1 if more else 0)
    return {DESC: table, AVAIL: struct.pack("<HHH", 0, 1, 0)}


def call(place, slot):
    return f"mov ebx, {place:#x}\ncall rbx\nmov [{DATA + 8 * slot:#x}], rax\n"


READS = f"mov rax, [{FUNCTION:#x}]\nmov [{DATA + 0x40:#x}], rax\n"


def insert(made, *places):
    made.exec("seen = []\ndef call(vcpu):\n    seen.append(vcpu.rip)")
    for place in places:
        made.exec(f"vm.hidden.insert({place:#x}, call)")


def page(made):
    return int.from_bytes(made.eval(f"bytes(vm.memory.read({FUNCTION:#x}, 8))"), "little")


def of_disk(guest, target, then, status=HEADER + 16, **options):
    """A guest that reads the first sector of its disk to `target` between two calls of the function."""
    image = NEW.ljust(SECTOR, b"\xf4") + bytes(SECTOR)
    buffers = (HEADER, 16, 0), (target, SECTOR, WRITE), (status, 1, WRITE)
    return guest(
        driver() + call(FUNCTION, 0) + call(OTHER, 1) + store(0x50, 0) + then + READS + "hlt",
        data={FUNCTION: OLD, OTHER: OTHERS, HEADER: bytes(16) + b"\xff", **descriptors(*buffers)},
        blobs={"image": image},
        disks=[{"image": "image", "mode": "ro", "transport": "virtio-mmio"}],
        **options,
    )


@BOTH
@pytest.mark.parametrize("places", [(FUNCTION,), (OTHER,), (FUNCTION, OTHER)])
def test_a_disk_reads_code_to_the_page(guest, places):
    """The breakpoint is under what is written, or beside it."""
    made = of_disk(guest, FUNCTION, call(FUNCTION, 2) + call(OTHER, 3))
    insert(made, *places)
    made.halted()
    assert made.eval(f"vm.memory.read_u8({HEADER + 16:#x})") == 0
    assert made.words(4) == (7, 9, 0x2A, 9)
    assert made.word(8) == page(made) == int.from_bytes(NEW[:8], "little")
    assert made.eval("seen") == 2 * list(places)


def test_code_that_reaches_from_the_page_before(guest):
    """Only the last bytes of an instruction lie on the page with the breakpoint."""
    at = FUNCTION - 3
    image = struct.pack("<H", 0) + b"\xc3"
    made = guest(
        driver() + call(at, 0) + store(0x50, 0) + call(at, 1) + "hlt",
        data={
            at: assemble("mov eax, 0x11110007\nret", 64, at), OTHER: OTHERS,
            HEADER: bytes(16) + b"\xff",
            **descriptors((HEADER, 16, 0), (FUNCTION, SECTOR, WRITE), (HEADER + 16, 1, WRITE)),
        },
        blobs={"image": image.ljust(SECTOR, b"\xf4")},
        disks=[{"image": "image", "mode": "ro", "transport": "virtio-mmio"}],
    )  # fmt: skip
    insert(made, OTHER)
    made.halted()
    assert made.words(2) == (0x11110007, 0x7)


def test_what_a_device_writes_besides_data(guest):
    """The status of a request lies in the middle of an instruction."""
    made = of_disk(guest, RINGS + 0x8000, call(FUNCTION, 2), FUNCTION + 2)
    insert(made, OTHER)
    made.halted()
    assert made.words(3) == (7, 9, 0)


def of_buffers(guest, device, queue, **options):
    """A guest whose device's queue has the page as a buffer to be filled, and that waits for GO."""
    waits = f"wait:\npause\ncmp byte ptr [{GO:#x}], 0\nje wait\n"
    made = guest(
        driver(queue) + call(FUNCTION, 0) + waits + call(FUNCTION, 2) + READS + "hlt",
        data={FUNCTION: OLD, **descriptors((FUNCTION - 12, 1024, WRITE))},
        start=False,
        **options,
    )
    made.exec(device + "\nplugged = vm.expansion.plug(device, 'virtio-mmio')")
    made.start()
    return made


CONSOLE = """
from vmm.devices.virtio.console import Console
device = Console(vm.memory, vm.count_refused, lambda byte: True)
"""
TYPES = """
typed = list(bytes(12) + NEW)
device.feed(lambda: typed.pop(0) if typed else -1)
"""
NET = """
from vmm.devices.virtio.net import Net
from vmm.network.port import Port
device = Net(vm.memory, vm.count_refused, b'\\x52\\x54\\0\\0\\0\\1')
port = Port(vm, device, 'net')
monitor.switches.join('lan', port)
vm.expansion.ports.append(port)
"""
FRAME = "port.deliver(bytearray(NEW + bytes(64)), bytearray(12), 0)"
RNG = """
import vmm.devices.virtio.rng as rng
class Random:
    def urandom(self, size):
        return (bytes(12) + NEW + bytes(size))[:size]
rng.os, os = Random(), rng.os
device = rng.Rng(vm.memory, vm.count_refused)
"""
FILLS = "device.notify(0)\nrng.os = os"
WAYS = {"console": (CONSOLE, TYPES), "net": (NET, FRAME), "rng": (RNG, FILLS)}


@pytest.mark.parametrize("way", WAYS)
def test_other_devices(guest, way):
    """The guest has executed the page's code before, and executes it again."""
    device, fill = WAYS[way]
    made = of_buffers(guest, f"NEW = {NEW!r}\n" + device, 0, hvc=True)
    insert(made, FUNCTION)
    made.until(f"seen and vm.memory.read_u64({DATA:#x})")
    lines = fill.strip().split("\n") + [f"vm.memory.write_u8({GO:#x}, 1)"]
    made.exec("with still():\n" + "".join(f"    {line}\n" for line in lines))
    made.halted()
    assert made.words(3)[::2] == (7, 0x2A)
    assert made.word(8) == int.from_bytes(NEW[:8], "little")
    assert made.eval("seen") == [FUNCTION, FUNCTION]
