"""Guest files: what they become, and that every fault is refused by file, key and reason."""

import json
import os
from pathlib import Path

import pytest
from pcanel.errors import InputError
from pcanel.guest.file import BIOS, BIOS_WITHOUT_PCI, UEFI, UEFI_VARIABLES, load
from pcanel.guest.set import assign_lines, load_all
from pcanel.hostdisks import Disk

GUESTS = Path(__file__).resolve().parents[2] / "guests"

GOOD = {
    "name": '"some"',
    "memory": '"16M"',
    "protocol": '"multiboot"',
    "kernel": '"kernel"',
}


@pytest.fixture
def write(tmp_path):
    """Writes a guest file from GOOD and changes (None removes a key); returns its path."""
    (tmp_path / "kernel").write_bytes(b"k" * 100)
    (tmp_path / "initrd").write_bytes(b"i" * 200)
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")

    def make(to="some.toml", **changes):
        keys = {**GOOD, **changes}
        path = tmp_path / to
        path.write_text("".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None))
        return path

    return make


def refused(path, key, *words):
    with pytest.raises(InputError) as info:
        load(path)
    message = str(info.value)
    assert message.startswith(f"{path}: {key}")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_multiboot(write, tmp_path):
    guest = load(write(cmdline='"a b"', modules='["initrd", ["kernel", "k -v"]]'))
    assert guest.config == {
        "name": "some", "memory": 16 << 20, "protocol": "multiboot",
        "kernel": "some/kernel", "firmware": None, "variables": None, "variables_disk": None, "vgabios": None,
        "initrd": None, "symbols": None, "system": None,
        "cmdline": "a b",
        "modules": [["some/mod0", "initrd"], ["some/mod1", "k -v"]],
        "links": [], "shared": [], "pci": None, "rng": False, "disks": [], "cds": [],
        "nets": [], "devices": [], "hvc": False,
        "console": None, "screen": "off", "autostart": True, "cpus": 1,
        "demand_paging": False, "hide_stops": False, "priority": 0, "share": 100,
        "on_reset": "reset", "on_triple_fault": "stop", "on_power_off": "power-off",
    }  # fmt: skip
    modules = guest.boot_modules()
    assert [module.name for module in modules] == ["guest:some", "some/kernel", "some/mod0", "some/mod1"]
    assert json.loads(modules[0].content) == guest.config
    assert modules[1].content == tmp_path / "kernel"


def test_firmware(write, tmp_path):
    guest = load(write(protocol='"bios"', kernel=None))
    assert (guest.config["kernel"], guest.config["firmware"]) == (None, "some/firmware")
    assert guest.boot_modules()[1].content == Path(BIOS)
    guest = load(write(protocol='"bios"', kernel=None, firmware='"kernel"'))
    assert guest.boot_modules()[1].content == tmp_path / "kernel"
    for changes, key, word in (
        ({}, "kernel", "boots from a disk"),
        ({"kernel": None, "memory": '"15M"'}, "memory", "at least 16 MiB"),
        ({"kernel": None, "cmdline": '"a"'}, "cmdline", "boot loader"),
        ({"kernel": None, "firmware": '"absent"'}, "firmware", "no such file"),
    ):
        refused(write(protocol='"bios"', **changes), key, word)


def test_a_machine_without_pci(write, tmp_path):
    keys = {"protocol": '"bios"', "kernel": None, "pci": "false"}
    guest = load(write(**keys))
    assert guest.config["pci"] is False and guest.boot_modules()[1].content == Path(BIOS_WITHOUT_PCI)
    (tmp_path / "disk.img").write_bytes(bytes(512))
    disk = '\n[[disk]]\nimage = "disk.img"'
    assert load(write(pci=f'false{disk}\ntransport = "virtio-mmio"')).config["pci"] is False
    for more, what in (
        (disk, "a [[disk]] without transport"),
        ("\nrng = true", "rng"),
        ('\nscreen = "graphics"', "screen"),
        ('\n[[net]]\nswitch = "lan"', "[[net]]"),
    ):
        refused(write(pci=f"false{more}"), "pci", f"is false, and {what}")


def test_uefi(write, tmp_path):
    keys = {"protocol": '"uefi"', "kernel": None, "memory": '"64M"'}
    guest = load(write(**keys))
    assert (guest.config["variables"], guest.config["variables_disk"]) == ("some/variables", None)
    assert [module.content for module in guest.boot_modules()[1:]] == [Path(UEFI), Path(UEFI_VARIABLES)]
    assert guest.disks == ()
    mine = tmp_path / "mine.fd"
    mine.write_bytes(bytes(8192))
    guest = load(write(**keys, variables='"mine.fd"'))
    assert guest.disks == (Disk(mine, True),)
    assert guest.config["variables_disk"] == guest.disks[0].model
    assert guest.boot_modules()[2].content == mine
    broken = bytearray(Path(UEFI_VARIABLES).read_bytes())
    mine.write_bytes(broken)
    assert load(write(**keys, variables='"mine.fd"')).disks == (Disk(mine, True),)
    for at in (40, 50, 56):  # the signature, the checksum, the map of blocks
        broken[at] ^= 0x10
        mine.write_bytes(broken)
        refused(write(**keys, variables='"mine.fd"'), "variables", "is no variable store, or a broken one")
        broken[at] ^= 0x10
    mine.write_bytes(b"\xff" * len(broken))
    refused(write(**keys, variables='"mine.fd"'), "variables", "is no variable store, or a broken one")
    mine.write_bytes(b"")
    refused(write(**keys, variables='"mine.fd"'), "variables", "the file is empty")
    mine.write_bytes(bytes(8191))
    for changes, key, word in (
        ({"variables": '"mine.fd"'}, "variables", "8191 bytes, which are no variable store"),
        ({"variables": '"absent.fd"'}, "variables", "no such file"),
        ({"memory": '"63M"'}, "memory", "at least 64 MiB"),
        ({"protocol": '"bios"', "variables": '"kernel"'}, "variables", "for protocol uefi only"),
    ):
        refused(write(**{**keys, **changes}), key, word)


def test_linux(write):
    guest = load(write(symbols='"initrd"'))
    assert guest.config["symbols"] == "some/symbols"
    assert [module.name for module in guest.boot_modules()] == ["guest:some", "some/kernel", "some/symbols"]
    guest = load(write(protocol='"linux"', initrd='"initrd"', memory="1073741824"))
    assert (guest.config["initrd"], guest.memory) == ("some/initrd", 1 << 30)


def test_flat(write):
    guest = load(write(protocol='"flat"', address="0x7c00", registers="{ ax = 1, ip = 0x7c05 }"))
    assert guest.config["address"] == 0x7C00
    assert guest.config["mode"] == "real"
    assert guest.config["registers"] == {"ax": 1, "ip": 0x7C05}


def test_name_is_the_files_by_default(write):
    assert load(write("other.toml", name=None)).name == "other"


@pytest.mark.parametrize("size, value", [("1M", 1 << 20), ("3 MiB", 3 << 20), ("2G", 2 << 30), ("2048K", 2 << 20)])
def test_memory_units(write, size, value):
    assert load(write(memory=f'"{size}"')).memory == value


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: no such guest file"):
        load(tmp_path / "none.toml")


def test_not_toml(write, tmp_path):
    path = write()
    path.write_text("name = \n")
    refused(path, "", "line 1")
    path.write_bytes(b"\xff\xfe")
    refused(path, "")


@pytest.mark.parametrize(
    "key, value, word",
    [
        ("colour", '"red"', "unknown key"),
        ("name", "7", "must be a string"),
        ("name", '"no spaces"', "letters"),
        ("name", '"repl"', "console or log of the monitor"),
        ("name", '"com3"', "console or log of the monitor"),
        ("name", '"bochs"', "console or log of the monitor"),
        ("memory", None, "missing"),
        ("memory", '"much"', "256M"),
        ("memory", '"0M"', "between"),
        ("memory", '"1K"', "between"),
        ("memory", '"9999G"', "between"),
        ("memory", "1048577", "multiple"),
        ("memory", "true", "must be"),
        ("protocol", None, "missing"),
        ("protocol", '"dos"', "linux, multiboot, pvh, flat, bios, uefi"),
        ("firmware", '"kernel"', "no meaning"),
        ("kernel", None, "missing"),
        ("kernel", '"none"', "no such file"),
        ("kernel", '"empty"', "empty"),
        ("kernel", '"."', "is a directory"),
        ("kernel", '"/dev/zero"', "is a character device, not a file"),
        ("kernel", '"fifo"', "is a FIFO, not a file"),
        ("kernel", '"empty/below"', "not a directory"),
        ("initrd", '"."', "is a directory"),
        ("symbols", '"nothing"', "no such file"),
        ("modules", '["."]', "is a directory"),
        ("initrd", '"initrd"', "use modules"),
        ("cmdline", "1", "must be a string"),
        ("modules", '"initrd"', "list"),
        ("modules", "[1]", "entry 0"),
        ("modules", '[["initrd"]]', "entry 0"),
        ("modules", '["none"]', "no such file"),
        ("address", "0", "no meaning"),
        ("mode", '"real"', "no meaning"),
        ("registers", "{}", "no meaning"),
        ("console", '"com1"', "com2, com3, none"),
        ("autostart", "1", "true or false"),
        ("demand_paging", '"yes"', "true or false"),
        ("hide_stops", "0", "true or false"),
        ("priority", "256", "from"),
        ("priority", "1.5", "whole number"),
        ("share", "0", "from"),
        ("on_reset", '"halt"', "must be one of reset, stop, power-off, not 'halt'"),
        ("on_triple_fault", "true", "one of reset, stop, power-off"),
        ("on_power_off", '"off"', "must be one of reset, stop, power-off"),
    ],
)
def test_refused(write, key, value, word):
    refused(write(**{key: value}), key, word)


@pytest.mark.parametrize(
    "changes, key, word",
    [
        ({}, "address", "missing"),
        ({"address": "-1"}, "address", "from"),
        ({"address": "0x100000"}, "address", "real mode"),
        ({"address": "0x7c00", "mode": '"virtual"'}, "mode", "real, protected, long"),
        ({"address": "0x7c00", "registers": "{ ax = -1 }"}, "registers.ax", "no 16-bit number"),
        ({"address": "0x7c00", "registers": '{ ax = "1" }'}, "registers.ax", "number"),
        ({"address": "0x7c00", "registers": "{ ax = true }"}, "registers.ax", "number"),
        ({"address": "0x7c00", "registers": '{ "" = 1 }'}, "registers.", "register '' is unknown"),
        ({"address": "0x7c00", "registers": '{ "a\\nb" = 1 }'}, "registers.", "is unknown in real mode"),
        ({"address": "0x7c00", "registers": "{ ecs = 1 }"}, "registers.ecs", "is unknown in real mode"),
        ({"address": "0x10000", "mode": '"long"', "registers": "{ cs = 1 }"}, "registers.cs", "unknown in long mode"),
    ],
)
def test_flat_refused(write, changes, key, word):
    refused(write(protocol='"flat"', **changes), key, word)


def test_modules_need_multiboot(write):
    refused(write(protocol='"linux"', modules='["initrd"]'), "modules", "no meaning")


def test_content_must_fit(write, tmp_path):
    (tmp_path / "kernel").write_bytes(bytes(2 << 20))
    refused(write(memory='"1M"'), "memory", "cannot hold")


def test_lines_in_the_order_of_the_guests(write):
    paths = [write(f"{name}.toml", name=f'"{name}"') for name in ("one", "two", "three")]
    guests = load_all(paths, 1024)
    assert assign_lines(guests) == {"com2": "one", "com3": "two"}
    assert [guest.config["console"] for guest in guests] == ["com2", "com3", None]


def test_a_line_asked_for_goes_first(write):
    paths = [write("one.toml", name='"one"'), write("two.toml", name='"two"', console='"com2"')]
    paths.append(write("three.toml", name='"three"', console='"none"'))
    guests = load_all(paths, 1024)
    assert assign_lines(guests) == {"com2": "two", "com3": "one"}
    assert guests[2].config["console"] == "none"


@pytest.mark.parametrize("autostart", ["true", "false"])
def test_a_guest_that_waits_needs_its_memory_too(write, autostart):
    """The monitor takes it when it makes the guest."""
    path = write(memory='"1G"', autostart=autostart)
    with pytest.raises(InputError, match="memory: 1024 MiB and its files do not fit"):
        load_all([path], 1024)
    assert load_all([path], 1100)[0].memory == 1 << 30


def test_the_monitors_heap_needs_memory_too(write):
    path = write(memory='"896M"')
    assert len(load_all([path], 1024, "quiet heap=72M")) == 1
    for cmdline in ("heap=80M", "heap=1G", "heap=64M exec=26624K", "heap=80M disk=9M"):
        with pytest.raises(InputError, match="memory: 896 MiB and its files do not fit"):
            load_all([path], 1024, cmdline)


# What a set-up does not make.
MADE = {"debian": "images/debian.img", "trixie": "images/trixie.img", "installer": "guests/installer"}


@pytest.mark.parametrize("path", sorted(GUESTS.rglob("*.toml")), ids=lambda path: path.stem)
def test_the_guest_files_of_the_repository(path):
    made = MADE.get(path.stem)
    if made and not (GUESTS.parent / "build" / made).exists():
        pytest.skip(f"make {path.stem} makes what it starts")
    guest = load(path)
    assert guest.name == path.stem
    if guest.config["protocol"] == "linux" and guest.config["screen"] == "off":
        assert guest.config["cmdline"].startswith("console=ttyS0")
