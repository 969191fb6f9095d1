"""Guests with SeaBIOS that boot GRUB: from a disk, with GRUB's shell on the serial line, and from a CD, with it on the
screen and the keyboard."""

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import asyncvnc
import numpy
import pytest
import vtx
from pcanel.disks import bootable
from pcanel.guest.file import BIOS
from pcanel.image import burn
from pcanel.monitor import Monitor
from PIL import Image

MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "serial", "terminal", "ls", "lsmmap", "lsacpi", "lspci",
           "hexdump", "reboot", "halt")  # fmt: skip
EARLY = "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"
MEMORY = 32 << 20
SIZE = 4 << 20
PROMPT = rb"grub> "
PCANEL = Path(sys.executable).parent / "pcanel"
FONT = Path("/usr/share/grub/ascii.pf2")
GRAPHICS = (
    "function graphics {\n insmod vbe\n loadfont /ascii.pf2\n set gfxmode=640x480x32\n terminal_output gfxterm\n}\n"
)


@pytest.fixture(scope="module")
def monitor(tmp_path_factory):
    directory = tmp_path_factory.mktemp("firmware")
    image = directory / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    grub = bootable.core(directory / "core.img", "(hd0)/", MODULES, EARLY)
    bootable.write_boot(image, grub, SIZE // 512, 0x12345678)
    file = directory / "grub.toml"
    file.write_text(f'memory = {MEMORY}\nprotocol = "bios"\ncpus = 2\n[[disk]]\nimage = "{image}"\n')
    iso = directory / "cd.iso"
    burn(iso, GRAPHICS, {"said": b"from the CD\n", FONT.name: FONT}, "cat ls vbe gfxterm font")
    other = directory / "cd.toml"
    other.write_text(f'memory = {MEMORY}\nprotocol = "bios"\nscreen = "graphics"\n[[cd]]\nimage = "{iso}"\n')
    hybrid = directory / "hybrid.toml"
    hybrid.write_text(other.read_text().replace("[[cd]]", "[[disk]]").replace("graphics", "on"))
    bare = directory / "bare.toml"
    bare.write_text(f'{file.read_text()}transport = "virtio-mmio"\n'.replace("cpus = 2", "pci = false"))
    with Monitor(engine=vtx.engine(), guests=[file, other, hybrid, bare], memory=256) as monitor:
        yield monitor


@pytest.fixture(scope="module")
def grub(monitor):
    return shell(monitor, "grub")


def shell(monitor, name):
    console = monitor.console(name)
    console.expect(PROMPT, 300)

    def run(command):
        console.send(command + "\r")
        text = console.expect(rb"\n((?s:.*?))" + PROMPT, 120).group(1)
        return text.decode().replace("\r", "")

    run.console = console
    return run


def test_the_firmware_has_found_the_machine(monitor, grub):
    log = monitor.eval("vms['grub'].firmware.log")
    for line in ("QEMU fw_cfg DMA interface supported", "Found 2 cpu(s) max supported 2 cpu(s)",
                 "1: /pci@i0cf8/scsi@2/disk@0,0", "Booting from Hard Disk..."):  # fmt: skip
        assert line in log, log
    assert "Unable" not in log and "WARNING" not in log


def test_memory_as_the_bios_tells_it(grub):
    ranges = re.findall(r"base_addr = 0x(\w+), length = 0x(\w+), (\S+)", grub("lsmmap"))
    usable = [(int(base, 16), int(length, 16)) for base, length, kind in ranges if kind == "available"]
    assert usable[0] == (0, 0x9FC00) and usable[1][0] == 1 << 20
    assert MEMORY - (256 << 10) <= sum(usable[1]) < MEMORY
    assert any(int(base, 16) <= 0xFFFE0000 < 1 << 32 == int(base, 16) + int(length, 16) for base, length, _ in ranges)


def test_acpi_tables_that_the_firmware_has_placed(grub):
    said = grub("lsacpi")
    assert "chksum invalid" not in said
    assert [name for name in ("FACP", "APIC", "HPET", "SSDT") if name not in said] == []


def test_pci_and_the_disk(grub):
    assert re.findall(r"\w{4}:\w{4}", grub("lspci")) == ["8086:1237", "8086:7000", "8086:7113", "1af4:1042"]
    assert "(hd0,msdos1)" in grub("ls")
    assert "55 aa" in grub("hexdump -s 496 -n 16 (hd0)")


def test_a_machine_without_pci(monitor):
    """SeaBIOS's build for such machines finds the disk by ACPI, and boots it."""
    end = time.monotonic() + 300
    while "grub>" not in (said := monitor.eval("vms['bare'].console.tail()")):
        assert time.monotonic() < end, said
        time.sleep(0.5)
    log = monitor.eval("vms['bare'].firmware.log")
    for line in ("bridge not found", "virtio-mmio", "Booting from Hard Disk..."):
        assert line in log, log
    assert monitor.eval("(vms['bare'].expansion.board, vms['bare'].unclaimed()['refused'])") == (None, {})
    monitor.exec("vms['bare'].destroy()")


def typed(monitor, name, text, wanted):
    """Types on the keyboard of a guest with a screen, until that shows what is wanted."""
    monitor.exec(f"vms[{name!r}].keyboard.type({text!r})")
    end = time.monotonic() + 240
    while True:
        shown = monitor.eval(f"str(vms[{name!r}].screen())")
        if re.search(wanted, shown, re.M):
            return
        assert time.monotonic() < end, shown
        time.sleep(0.3)


@pytest.fixture(scope="module")
def shows(monitor):
    """shows(typed, wanted) at the guest with the CD."""

    def run(text, wanted):
        typed(monitor, "cd", text, wanted)

    run("", "^grub>")
    return run


@pytest.fixture
def view(monitor):
    """A `pcanel view` of this guest: its port."""
    command = [PCANEL, "view", "cd", "--port", "0", "--run", monitor.run.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        port = int(re.search(r"^cd: vnc://127.0.0.1:(\d+); Ctrl-C ends it$", served.stdout.readline()).group(1))
        yield port
        served.terminate()


def picture(path):
    return numpy.asarray(Image.open(path))


def test_a_cd_with_screen_and_keyboard(monitor, shows):
    assert "Booting from DVD/CD..." in monitor.eval("vms['cd'].firmware.log")
    shows("ls\n", r"\(cd\)")
    shows("cat /said\n", "^from the CD$")
    assert "SeaBIOS" not in monitor.console("cd").text()


def test_a_screenshot_of_text(monitor, shows, tmp_path):
    """In the font that the VGA BIOS has loaded, grey on black."""
    file = tmp_path / "text.png"
    said = monitor.exec(f"vms['cd'].screenshot({str(file)!r})")
    assert said.strip() == f"{file}: the screen of cd, 720 x 400"
    shown = picture(file)
    rows = monitor.eval("vms['cd'].screen().text")
    row = rows.index("from the CD")
    glyph = monitor.eval("vms['cd'].memory.read(0xA0000 + 32 * ord('f'), 16)")
    dots = numpy.unpackbits(numpy.frombuffer(glyph, numpy.uint8).reshape(16, 1), axis=1)
    assert dots.any()
    assert (shown[16 * row : 16 * row + 16, :8] == 0xAA * dots[:, :, None]).all()
    assert set(numpy.unique(shown)) == {0, 0xAA}


def test_a_viewer_sees_the_screen_and_types(monitor, shows, view, tmp_path):
    def taken(*words):
        done = subprocess.run([PCANEL, "screenshot", *words, "--run", monitor.run.id], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def size():
        return monitor.eval("str(vms['cd'].screen())")

    async def at_the_text():
        async with asyncvnc.connect("127.0.0.1", view) as client:
            seen = await client.screenshot()
            assert seen.shape == (400, 720, 4)
            assert (seen[:, :, :3] == picture(text)).all(axis=2).mean() > 0.999  # but for the cursor
            client.keyboard.write("Typed_HEREx")
            client.keyboard.press("BackSpace")
            client.keyboard.press("Return")
            await client.drain()
            await until(lambda: "Typed_HERE" in size())
            with client.mouse.hold():
                await client.drain()
                await until(lambda: monitor.eval("vms['cd'].pc.keyboard.mouse.buttons") == 1)
            await client.drain()
            client.keyboard.write("graphics")
            client.keyboard.press("Return")
            await client.drain()
            await until(lambda: size() == "<graphics of 640 x 480, 32 bits a pixel: vm.screenshot(FILE) shows it>")

    async def in_graphics():
        async with asyncvnc.connect("127.0.0.1", view) as client:
            end = time.monotonic() + 60
            while True:
                seen = await client.screenshot()
                taken("cd", str(pixels))
                same = (seen[:, :, :3] == picture(pixels)).all(axis=2).mean()
                if same > 0.999 and (seen[:, :, :3] > 0x80).any(axis=2).sum() > 20:  # it has written its prompt
                    return seen
                assert time.monotonic() < end, same

    async def until(condition):
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, size()
            await asyncio.sleep(0.2)

    text, pixels = tmp_path / "text.png", tmp_path / "pixels.png"
    assert taken("cd", str(text)) == (0, f"{text}: the screen of cd, 720 x 400\n")
    asyncio.run(at_the_text())
    assert asyncio.run(in_graphics()).shape == (480, 640, 4)
    assert picture(pixels).shape == (480, 640, 3)
    assert taken("nobody", "x.png") == (2, "pcanel screenshot: there is no guest nobody; there are: cd, grub, hybrid\n")
    assert taken("cd", "x.txt") == (2, "pcanel screenshot: x.txt: the name of a picture ends with .png\n")


def test_drawing_causes_no_exits(monitor, shows):
    """The framebuffer is the guest's memory, where its BAR is."""
    display = "vms['cd'].expansion.display"
    base = monitor.eval(f"{display}.bars[0].at")
    assert monitor.eval(f"vms['cd'].ept.translate({base}) == {display}.memory")
    assert monitor.eval(f"vms['cd'].ept.walk({base})[1]") == 2 << 20
    monitor.exec("vms['cd'].destroy()")


def test_the_same_iso_as_a_disk(monitor):
    typed(monitor, "hybrid", "", "^grub>")
    assert "Booting from Hard Disk..." in monitor.eval("vms['hybrid'].firmware.log")
    typed(monitor, "hybrid", "ls\n", r"\(hd0\)")
    typed(monitor, "hybrid", "cat /said\n", "^from the CD$")
    monitor.exec("vms['hybrid'].destroy()")


def test_the_rom_is_not_written(monitor):
    """Its page is read and executed; a write is counted."""
    reading = "vms['grub'].physical_read({:#x}, 16)"
    with open(BIOS, "rb") as file:
        end = file.read()[-16:]
    assert monitor.eval(reading.format(0xFFFFFFF0)) == end
    monitor.exec("vms['grub'].physical_write(0xFFFFFFF0, bytes(16))")
    assert monitor.eval(reading.format(0xFFFFFFF0)) == end
    assert monitor.eval("vms['grub'].ept.own(0xFFFFF000)") == 5
    assert monitor.eval("vms['grub'].unclaimed()['refused']") == {"write to the firmware's ROM": 2}


def test_reset_goes_through_the_firmware(monitor, grub):
    grub.console.send("reboot\r")
    grub.console.expect(rb"Welcome to GRUB", 300)
    grub.console.expect(PROMPT, 300)
    assert monitor.eval("vms['grub'].starts") == 2
    assert "Booting from Hard Disk..." in monitor.eval("vms['grub'].firmware.log")


def test_power_off(monitor, grub):
    free = monitor.eval("monitor.pages.available")
    grub.console.send("halt\r")
    monitor.console("repl").expect(rb"powered off by the guest", 300)
    monitor.exec("vms['grub'].destroy()")
    assert monitor.eval("monitor.pages.available") - free > MEMORY
