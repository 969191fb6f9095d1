"""Guests with SeaBIOS that boot GRUB: from a disk, with GRUB's shell on the serial line, and from a CD, with it on the
screen and the keyboard."""

import re
import time

import pytest
import vtx
from pcanel.disks import bootable
from pcanel.guest.file import BIOS
from pcanel.image import burn
from pcanel.monitor import Monitor

MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "serial", "terminal", "ls", "lsmmap", "lsacpi", "lspci",
           "hexdump", "reboot", "halt")  # fmt: skip
EARLY = "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"
MEMORY = 32 << 20
SIZE = 4 << 20
PROMPT = rb"grub> "


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
    burn(iso, "", {"said": b"from the CD\n"}, "cat ls")
    other = directory / "cd.toml"
    other.write_text(f'memory = {MEMORY}\nprotocol = "bios"\nscreen = "on"\n[[cd]]\nimage = "{iso}"\n')
    with Monitor(engine=vtx.engine(), guests=[file, other], memory=256) as monitor:
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


def test_a_cd_with_screen_and_keyboard(monitor):
    def shows(text, wanted):
        monitor.exec(f"vms['cd'].keyboard.type({text!r})")
        end = time.monotonic() + 240
        while True:
            rows = monitor.eval("vms['cd'].screen().text")
            if re.search(wanted, "\n".join(rows), re.M):
                return
            assert time.monotonic() < end, rows
            time.sleep(0.3)

    shows("", "^grub>")
    assert "Booting from DVD/CD..." in monitor.eval("vms['cd'].firmware.log")
    shows("ls\n", r"\(cd\)")
    shows("cat /said\n", "^from the CD$")
    assert "SeaBIOS" not in monitor.console("cd").text()
    monitor.exec("vms['cd'].destroy()")


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
