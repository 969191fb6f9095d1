"""Guests from files, tied to each other: a window with a doorbell, cables from any UART to any. One boot."""

import struct

import pytest
import vtx
from bench import CODE, DATA, STACK, Bench
from pcanel.assemble import assemble
from pcanel.monitor import Monitor
from pcanel.vmm_import import importable

with importable():
    from vmm.devices.pc_ports import COM1, COM2, COM3, COM4

HANDLER, IDT, IDTR = CODE + 0x1000, CODE + 0x2000, CODE + 0x3000
VECTOR = 0x25  # IRQ 5
READY = DATA + 0x1000
BYTES = 200
MASK = 0xA5

# Shows board, which it may only read, and answers in back.
RIGHT = f"""
lidt [{IDTR:#x}]
mov al, 0x11; out 0x20, al
mov al, 0x20; out 0x21, al
mov al, 4; out 0x21, al
mov al, 1; out 0x21, al
mov al, 0xDF; out 0x21, al
mov byte ptr [{READY:#x}], 1
sti
idle: hlt
jmp idle
"""
ANSWER = f"""
mov eax, 0x101; xor ebx, ebx; vmcall
add [{DATA:#x}], rax
mov r8, 0xE0000000; mov r9, 0xE0010000
mov rax, [r8]; mov [{DATA + 8:#x}], rax
mov qword ptr [r8], 0x666
add rax, 100; mov [r9], rax
mov al, 0x20; out 0x20, al
iretq
"""
LEFT = f"""
mov r8, 0xD0000000; mov r9, 0xD0010000; mov ecx, 1
again: mov [r8], rcx
mov qword ptr [r9], 0x666
mov eax, 0x100; xor ebx, ebx; vmcall
mov [{DATA:#x} + rcx * 8], rax
lea rdx, [rcx + 100]
wait: cmp [r9], rdx; jne wait
inc ecx; cmp ecx, 5; jbe again
mov rax, [r8]; mov [{DATA:#x}], rax
hlt
"""


def setup(port):
    return f"mov dx, {port + 2:#x}; mov al, 0x87; out dx, al; mov dx, {port + 4:#x}; mov al, 3; out dx, al\n"


def talk(number, port):
    """Sends the bytes 0, 1, ... at a port and keeps what comes back, both as it goes."""
    return (
        setup(port)
        + f"""
    xor esi, esi; xor edi, edi
    look{number}: mov dx, {port + 5:#x}; in al, dx; mov bl, al
    test bl, 0x20; jz take{number}
    cmp esi, {BYTES}; jae take{number}
    mov eax, esi; mov dx, {port:#x}; out dx, al; inc esi
    take{number}: test bl, 1; jz look{number}
    mov dx, {port:#x}; in al, dx; mov [rdi + {DATA + 0x100 * number:#x}], al
    inc edi; cmp edi, {BYTES}; jb look{number}
    """
    )


HUB = "".join(talk(number, port) for number, port in enumerate((COM1, COM3, COM4))) + "hlt"
EAR = (
    setup(COM2)
    + f"""
mov byte ptr [{READY:#x}], 1
again: mov dx, {COM2 + 5:#x}; in al, dx; test al, 1; jz again
mov dx, {COM2:#x}; in al, dx; xor al, {MASK:#x}; mov bl, al
full: mov dx, {COM2 + 5:#x}; in al, dx; test al, 0x20; jz full
mov dx, {COM2:#x}; mov al, bl; out dx, al
inc qword ptr [{DATA:#x}]
jmp again
"""
)

BOARD = '[[shared]]\nname = "board"\nsize = "64K"\n'
BACK = '[[shared]]\nname = "back"\nsize = 8192\n'
FILES = {
    "right": (RIGHT, BOARD + 'access = "ro"\ngpa = 0xE0000000\ngsi = 5\n' + BACK),
    "left": (LEFT, BOARD + BACK + 'access = "ro"\n'),
    "hub": (HUB, '[[link]]\nuart = "com1"\nto = "one:com2"\n[[link]]\nuart = "com4"\nto = "three:com2"\n'),
    "one": (EAR, ""),
    "two": (EAR, '[[link]]\nuart = "com2"\nto = "hub:com3"\n'),
    "three": (EAR, '[[link]]\nuart = "com2"\nto = "hub:com4"\n'),
}
LATER = ("left", "hub")  # start when the others are ready
NO_CONSOLE = ("left", "right", "three")


def image(source):
    """64-bit code, and behind it the handler of the doorbell with an IDT."""
    code = assemble(f"mov rsp, {STACK:#x}\n" + source, 64, CODE)
    gate = struct.pack("<HHBBHII", HANDLER & 0xFFFF, 0x10, 0, 0x8E, HANDLER >> 16, 0, 0)
    parts = {0: code, 0x1000: assemble(ANSWER, 64, HANDLER), 0x2000 + 16 * VECTOR: gate}
    parts[0x3000] = struct.pack("<HQ", 16 * VECTOR + 15, IDT)
    data = bytearray(0x3010)
    for at, part in parts.items():
        data[at : at + len(part)] = part
    return bytes(data)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    directory = tmp_path_factory.mktemp("guests")
    paths = []
    for name, (source, ties) in FILES.items():
        (directory / f"{name}.bin").write_bytes(image(source))
        text = f'memory = "4M"\nprotocol = "flat"\nmode = "long"\naddress = {CODE}\nkernel = "{name}.bin"\n'
        text += f"autostart = {'false' if name in LATER else 'true'}\n"
        text += 'console = "none"\n' if name in NO_CONSOLE else ""
        paths.append(directory / f"{name}.toml")
        paths[-1].write_text(text + ties)
    with Monitor(engine=vtx.engine(), guests=paths, memory=256) as monitor:
        monitor.wait_booted()
        yield Bench(monitor)


def until(bench, name, test):
    """Let guests run until `test` (an expression of vm) holds."""
    bench.exec(f"vm = vms[{name!r}]\nif not wait(vm, lambda: {test}): raise RuntimeError(repr(vm))")


def words(bench, name, count):
    return struct.unpack(f"<{count}Q", bench.eval(f"vms[{name!r}].memory.read({DATA:#x}, {8 * count})"))


def test_a_window_passes_data_and_its_doorbell_rings(bench):
    until(bench, "right", f"vm.memory.read_u8({READY:#x}) and vm.state == 'halted'")
    bench.exec("vms['left'].start()")
    until(bench, "left", "vm.state == 'halted'")
    assert words(bench, "left", 6) == (5, 1, 1, 1, 1, 1)  # the board at last, and whom each ring told
    assert words(bench, "right", 2) == (5, 5)  # rings, and the board as it was seen
    refused = bench.eval("[vms[name].unclaimed()['refused'] for name in ('left', 'right')]")
    assert refused == [{"write to read-only window back": 5}, {"write to read-only window board": 5}]


def test_cables_from_com1_com3_and_com4_to_com2(bench):
    for name in ("one", "two", "three"):
        until(bench, name, f"vm.memory.read_u8({READY:#x})")
    bench.exec("vms['hub'].start()")
    until(bench, "hub", "vm.state == 'halted'")
    for number, name in enumerate(("one", "two", "three")):
        got = bench.eval(f"vms['hub'].memory.read({DATA + 0x100 * number:#x}, {BYTES})")
        assert got == bytes(i ^ MASK for i in range(BYTES)), name
        assert words(bench, name, 1) == (BYTES,)
    cables = bench.exec("print(monitor.links)").splitlines()
    assert len(cables) == 3 and all(cable.count(f"({BYTES} sent, 0 lost)") == 2 for cable in cables)


def test_a_linked_com1_has_no_console(bench):
    monitor = bench.monitor
    assert monitor.names == ["repl", "one", "two"]
    assert bench.eval("[(vm.name, vm.uart) for vm in vms.values() if vm.uart]") == [("one", 1), ("two", 2)]
    assert bench.refused("vms['hub'].console()") == (
        "RuntimeError: guest hub has no console: its COM1 is linked to one:com2"
    )


def test_all_comes_back(bench):
    bench.exec("for vm in list(vms.values()): vm.destroy()")
    assert bench.eval("(monitor.pages.available, monitor.uarts._free)") == (
        bench.eval("monitor.pages.total") - 4096,
        [1, 2],
    )
    assert bench.eval("(monitor.links.cables, len(monitor.windows.by_name))") == ([], 0)
