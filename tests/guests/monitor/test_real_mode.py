"""Foreign programs with Linux's boot header that want a BIOS: memdisk, which boots a diskette image, GRUB and iPXE."""

import pytest
import vtx
from pcanel.assemble import assemble
from pcanel.monitor import Monitor
from pcanel.paths import ROOT

SLOW = 300  # seconds; a machine with nothing else to do takes a tenth

# Reads sector 2 by INT 13h, which memdisk serves, and prints it; then prints what is typed.
BOOT_SECTOR = """
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    mov ax, 0x0201
    mov cx, 2
    xor dh, dh
    mov bx, 0x8000
    int 0x13
    jc bad
    mov si, 0x8000
next:
    lodsb
    test al, al
    jz keys
    mov ah, 0x0e
    mov bx, 7
    int 0x10
    jmp next
bad:
    mov ax, 0x0e21
    int 0x10
keys:
    xor ah, ah
    int 0x16
    mov ah, 0x0e
    int 0x10
    jmp keys
"""
DISKETTE = 1440 << 10


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memdisk")
    image = assemble(BOOT_SECTOR, 16, 0x7C00).ljust(510, b"\0") + b"\x55\xaa" + b"Sector two: \0"
    (folder / "diskette.img").write_bytes(image.ljust(DISKETTE, b"\0"))
    common = 'memory = "16M"\nprotocol = "linux"\nscreen = "console"\nautostart = false\n'
    images = {
        "memdisk": f'kernel = "{ROOT}/build/guests/memdisk.bin"\ninitrd = "diskette.img"\n',
        "grub": f'kernel = "{ROOT}/build/guests/grub.lnx"\n',
        "ipxe": f'kernel = "{ROOT}/build/guests/ipxe.lkrn"\n',
    }
    for name, keys in images.items():
        (folder / f"{name}.toml").write_text(common + keys)
    guests = [folder / f"{name}.toml" for name in images]
    with Monitor(engine=vtx.engine(), guests=guests, memory=256) as monitor:
        monitor.wait_booted()
        yield monitor


@pytest.fixture
def program(programs):
    """Starts one of them and switches it off in the end: they poll for keys, so each keeps the CPU busy."""
    started = []

    def start(name):
        started.append(name)
        programs.exec(f"vms[{name!r}].start()")
        return programs.consoles.get(name)

    yield start
    for name in started:
        programs.exec(f"vms[{name!r}].power_off()")


def screen(monitor, name):
    return monitor.eval(f"vms[{name!r}].screen().text")


def test_memdisk_boots_a_diskette(programs, program):
    console = program("memdisk")
    console.expect(rb"MEMDISK 6\.04", SLOW)
    console.expect(rb"e820: 0000000000100000 0000000000f00000 1", SLOW)
    console.expect(rb"Sector two:", SLOW)
    console.send("Ab1!")
    console.expect(rb"Ab1!", SLOW)
    assert any(row.endswith("Sector two: Ab1!") for row in screen(programs, "memdisk"))


def test_grub_takes_commands(programs, program):
    console = program("grub")
    console.expect(rb"grub>", SLOW)
    console.send("echo x$grub_cpu\n")
    console.expect(rb"xi386", SLOW)
    assert "xi386" in screen(programs, "grub")


@pytest.mark.long  # it writes beside its code, which takes Bochs half a minute
def test_ipxe_starts(programs, program):
    """It has no console of the host's: its screen is looked at from the prompt."""
    program("ipxe")
    programs.exec(
        "import time\n"
        "for _ in range(3000):\n"
        "    if 'Open Source Network Boot Firmware' in str(vms['ipxe'].screen()): break\n"
        "    time.sleep_ms(20)",
        SLOW,
    )
    rows = "\n".join(screen(programs, "ipxe"))
    assert "iPXE initialising devices...ok" in rows and "Open Source Network Boot Firmware" in rows
