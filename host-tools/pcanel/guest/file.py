"""Guest files: one TOML file describes one guest.

A file is read, checked against the table below, and turned into the boot modules that
the monitor reads: `guest:NAME`, which is JSON, and the blobs that it names. Everything
that can be refused is refused here, by file, key and reason.
"""

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pcanel.errors import InputError
from pcanel.guest import plugged
from pcanel.hostdisks import Disk
from pcanel.modules import BootModule
from pcanel.paths import lack_of
from pcanel.vmm_import import importable

with importable():
    from vmm.description import (
        ADDRESSES,
        CONSOLES,
        CPUS,
        FIRMWARE,
        MEMORY,
        MODES,
        PRIORITIES,
        PROTOCOLS,
        RESPONSES,
        SCREENS,
        SHARES,
        least_memory,
    )
    from vmm.insight.systems import SYSTEMS
    from vmm.loaders import flat
    from vmm.loaders.state import State
    from vmm.network import checks as net_checks
    from vmm.ties import checks
    from vmm.vtx.x86 import PAGE

VGA_BIOS = "/usr/share/seabios/vgabios-isavga.bin"
DISPLAY_BIOS = "/usr/share/seabios/vgabios-stdvga.bin"  # of the display on PCI
BIOS = "/usr/share/seabios/bios.bin"  # of Debian's package seabios
BIOS_WITHOUT_PCI = "/usr/share/seabios/bios-microvm.bin"
UEFI = "/usr/share/OVMF/OVMF_CODE_4M.fd"  # of Debian's package ovmf
UEFI_VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.fd"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}")
_RESERVED_NAMES = ("repl", "com2", "com3", "gdb", "engine", "bochs", "outer")  # consoles and logs that are not guests'
_FLAT_KEYS = ("address", "mode", "registers")


@dataclass(frozen=True)
class Guest:
    """A checked guest file: the JSON for the monitor and the blobs that go with it."""

    path: Path
    config: dict
    blobs: tuple[BootModule, ...]
    disks: tuple[Disk, ...] = ()  # images that the engine gives its machine

    @property
    def name(self) -> str:
        return self.config["name"]

    @property
    def memory(self) -> int:
        """Bytes."""
        return self.config["memory"]

    def images(self) -> list[Path]:
        """Of its disks and CDs, wherever they are; that of its variables, if it is written to."""
        modules = [entry["image"] for entry in self.config["disks"] + self.config["cds"]]
        return [disk.path for disk in self.disks] + [blob.content for blob in self.blobs if blob.name in modules]

    def boot_modules(self) -> list[BootModule]:
        return [BootModule(f"guest:{self.name}", json.dumps(self.config).encode()), *self.blobs]


class _Reader:
    """One file's keys, taken one by one; what is left over is unknown."""

    def __init__(self, path: Path, table: dict):
        self.path = path
        self._table = dict(table)

    def error(self, key: str, reason: str = "") -> InputError:
        """One line. key: may have the reason with it, as the monitor's own checks say it."""
        text = f"{key}: {reason}" if reason else key
        return InputError(f"{self.path}: {text if text.isprintable() else text.encode('unicode_escape').decode()}")

    def take(self, key: str, kind: type | tuple[type, ...], what: str, default=None):
        if key not in self._table:
            return default
        value = self._table.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
            raise self.error(key, f"must be {what}, not {value!r}")
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str | None) -> str | None:
        value = self.take(key, str, f"one of {', '.join(choices)}", default)
        if value != default and value not in choices:
            raise self.error(key, f"must be one of {', '.join(choices)}, not {value!r}")
        return value

    def number(self, key: str, low: int, high: int, default: int | None) -> int | None:
        value = self.take(key, int, "a whole number", default)
        if value is not None and not low <= value <= high:
            raise self.error(key, f"must be from {low:#x} to {high:#x}, not {value:#x}")
        return value

    def file(self, key: str, value: str) -> Path:
        """A path in the guest file is relative to the file."""
        path = (self.path.parent / value).resolve()
        lack = lack_of(path)
        if lack:
            raise self.error(key, f"{path}: {lack}")
        if path.stat().st_size == 0:
            raise self.error(key, f"{path}: the file is empty")
        return path

    def size(self, key: str, value: str | int) -> int:
        """Bytes of a size such as "256M"."""
        if isinstance(value, str):
            match = re.fullmatch(r"(\d+)\s*([KMG]?)(i?B)?", value)
            if not match:
                raise self.error(key, f'must be a size such as "256M", not {value!r}')
            value = int(match[1]) * _UNITS[match[2]]
        return value

    def tables(self, key: str, check: Callable[[list], None], defaults: dict | None = None, sized: str = "") -> list:
        """[[key]] tables, with their defaults; check(tables) raises ValueError. sized: a key that may be "256M"."""
        found = self.take(key, list, f"[[{key}]] tables", [])
        if defaults is not None:
            found = [self._filled(f"{key}[{number}]", table, defaults, sized) for number, table in enumerate(found)]
        try:
            check(found)
        except ValueError as error:
            raise self.error(f"{key}{error}") from None
        return found

    def _filled(self, key: str, table: object, defaults: dict, sized: str) -> dict:
        if not isinstance(table, dict):
            raise self.error(key, f"must be a table, not {table!r}")
        table = {**defaults, **table}
        if isinstance(table.get(sized), str):
            table[sized] = self.size(f"{key}.{sized}", table[sized])
        return table

    def finish(self) -> None:
        for key in self._table:
            raise self.error(key, "unknown key")


def load(path: Path) -> Guest:
    """Reads a guest file. Raises InputError."""
    lack = lack_of(path)
    if lack:
        raise InputError(f"{path}: {lack.replace('no such file', 'no such guest file')}")
    try:
        table = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: {error}") from error
    return _check(_Reader(path, table))


def _check(reader: _Reader) -> Guest:
    name = _name(reader)
    memory = _memory(reader)
    protocol = reader.choice("protocol", PROTOCOLS, None)
    if protocol is None:
        raise reader.error("protocol", f"is missing; one of {', '.join(PROTOCOLS)}")
    blobs: list[BootModule] = []

    def blob(key: str, value: str, label: str) -> str:
        blobs.append(BootModule(f"{name}/{label}", reader.file(key, value)))
        return blobs[-1].name

    images: list[BootModule] = []

    def attach(key: str, value: str, label: str) -> str:
        images.append(BootModule(f"{name}/{label}", reader.file(key, value)))
        return images[-1].name

    disks: list[Disk] = []
    pci = reader.take("pci", bool, "true or false")  # None: where something of the file is on it
    kernel, firmware = _entered(reader, protocol, pci)
    initrd = reader.take("initrd", str, "a path")
    symbols = reader.take("symbols", str, "a path")
    config = {
        "name": name,
        "memory": memory,
        "protocol": protocol,
        "kernel": blob("kernel", kernel, "kernel") if kernel is not None else None,
        "firmware": attach("firmware", firmware, "firmware") if firmware is not None else None,
        **plugged.variables(reader, attach, disks, UEFI_VARIABLES if protocol == "uefi" else None),
        "vgabios": None,
        "initrd": blob("initrd", initrd, "initrd") if initrd is not None else None,
        "symbols": None,
        "system": reader.choice("system", tuple(SYSTEMS), None),
        "cmdline": reader.take("cmdline", str, "a string", ""),
        "modules": _modules(reader, protocol, blob),
        **_flat(reader, protocol),
        "links": _links(reader, name),
        "pci": pci,
        "rng": reader.take("rng", bool, "true or false", False),
        "hvc": reader.take("hvc", bool, "true or false", False),
        "devices": plugged.devices(reader, attach),
        "disks": plugged.disks(reader, attach, disks),
        "cds": plugged.cds(reader, attach, disks),
        "nets": _nets(reader, name),
        "shared": _shared(reader),
        "console": reader.choice("console", CONSOLES, None),
        "screen": reader.choice("screen", SCREENS, "off"),
        "autostart": reader.take("autostart", bool, "true or false", True),
        "cpus": reader.number("cpus", *CPUS, 1),
        "demand_paging": reader.take("demand_paging", bool, "true or false", False),
        "hide_stops": reader.take("hide_stops", bool, "true or false", False),
        "priority": reader.number("priority", *PRIORITIES, 0),
        "share": reader.number("share", *SHARES, 100),
        "on_reset": reader.choice("on_reset", RESPONSES, "reset"),
        "on_triple_fault": reader.choice("on_triple_fault", RESPONSES, "stop"),
        "on_power_off": reader.choice("on_power_off", RESPONSES, "power-off"),
    }
    if pci is False:
        _check_without_pci(reader, config)
    loaded = sum(module.size() for module in blobs)
    if config["screen"] == "graphics":
        config["vgabios"] = attach("screen", DISPLAY_BIOS, "vgabios")
    elif protocol == "bios" and config["screen"] != "off":
        config["vgabios"] = attach("screen", VGA_BIOS, "vgabios")
    blobs += images
    if symbols is not None:
        config["symbols"] = blob("symbols", symbols, "symbols")
    if protocol in FIRMWARE:
        least = least_memory(protocol)
        if memory < least:
            raise reader.error("memory", f"firmware needs at least {least >> 20} MiB")
        if config["cmdline"]:
            raise reader.error("cmdline", f"has no meaning for protocol {protocol}: the boot loader on the disk has it")
    if initrd is not None and protocol not in ("linux", "pvh"):
        raise reader.error("initrd", f"has no meaning for protocol {protocol}; use modules")
    reader.finish()
    if loaded >= memory:
        raise reader.error("memory", f"{memory >> 10} KiB cannot hold kernel, initrd and modules ({loaded >> 10} KiB)")
    return Guest(reader.path, config, tuple(blobs), tuple(disks))


def _check_without_pci(reader: _Reader, config: dict) -> None:
    """Nothing of the file may be on the bus that the guest does not have."""
    keys = [key for key in ("rng", "hvc", "devices") if config[key]]
    keys += [name for name, key in (("[[cd]]", "cds"), ("[[net]]", "nets")) if config[key]]
    if config["screen"] == "graphics":
        keys.append('screen = "graphics"')
    if any(disk["transport"] != "virtio-mmio" for disk in config["disks"]):
        keys.append('a [[disk]] without transport = "virtio-mmio"')
    if config["protocol"] == "uefi":
        keys.append('protocol = "uefi"')
    if keys:
        raise reader.error("pci", f"is false, and {keys[0]} needs it")


def _entered(reader: _Reader, protocol: str, pci: bool | None) -> tuple[str | None, str | None]:
    """The file that the guest starts: a kernel's path, or firmware's."""
    kernel = reader.take("kernel", str, "a path")
    firmware = reader.take("firmware", str, "a path")
    if protocol in FIRMWARE:
        if kernel is not None:
            raise reader.error("kernel", f"has no meaning for protocol {protocol}, which boots from a disk")
        return None, firmware or (UEFI if protocol == "uefi" else BIOS_WITHOUT_PCI if pci is False else BIOS)
    if firmware is not None:
        raise reader.error("firmware", f"has no meaning for protocol {protocol}")
    if kernel is None:
        raise reader.error("kernel", "is missing")
    return kernel, None


def _name(reader: _Reader) -> str:
    name = reader.take("name", str, "a string", reader.path.stem)
    if not _NAME.fullmatch(name):
        raise reader.error("name", f"{name!r}: must be 1 to 31 letters, digits, '_', '.', '-'")
    if name in _RESERVED_NAMES:
        raise reader.error("name", f"{name!r} is the name of a console or log of the monitor")
    return name


def _memory(reader: _Reader) -> int:
    value = reader.take("memory", (str, int), 'a size such as "256M"')
    if value is None:
        raise reader.error("memory", 'is missing, e.g. "256M"')
    value = reader.size("memory", value)
    if not MEMORY[0] <= value <= MEMORY[1]:
        raise reader.error("memory", f"{value} bytes is not between 1 MiB and 512 GiB")
    if value % PAGE:
        raise reader.error("memory", f"{value} bytes is not a multiple of {PAGE}")
    return value


def _modules(reader: _Reader, protocol: str, blob) -> list[list[str]]:
    """Multiboot modules: each a path, or [path, string]."""
    what = "a list of paths or of [path, string]"
    entries = reader.take("modules", list, what, [])
    if entries and protocol != "multiboot":
        raise reader.error("modules", f"has no meaning for protocol {protocol}")
    modules = []
    for number, entry in enumerate(entries):
        pair = [entry, Path(entry).name] if isinstance(entry, str) else entry
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise reader.error("modules", f"must be {what}; entry {number} is {entry!r}")
        modules.append([blob("modules", pair[0], f"mod{number}"), pair[1]])
    return modules


def _links(reader: _Reader, name: str) -> list[dict]:
    """Null-modem cables: `[[link]]` tables with `uart` and `to`."""
    links = reader.tables("link", partial(checks.links, name))
    for number, link in enumerate(links):
        guest, _ = checks.far_end(link["to"])
        if not _NAME.fullmatch(guest):
            raise reader.error(f"link[{number}].to", f"{guest!r} can be no guest's name")
    return links


def _shared(reader: _Reader) -> list[dict]:
    """Windows of shared memory: `[[shared]]` tables with `name`, `size`, and optionally `access`, `gpa`, `gsi`,
    `cpl`."""
    return reader.tables("shared", checks.windows, {"access": "rw", "gpa": None, "gsi": None, "cpl": 0}, sized="size")


def _nets(reader: _Reader, name: str) -> list[dict]:
    """Network interfaces: `[[net]]` tables with `switch`, and optionally `mac`."""
    return reader.tables("net", partial(net_checks.nets, name))


def _flat(reader: _Reader, protocol: str) -> dict:
    """The keys that only a flat binary has."""
    address = reader.number("address", *ADDRESSES, None)
    mode = reader.choice("mode", MODES, None)
    registers = reader.take("registers", dict, "a table of register names and numbers")
    given = [key for key, value in zip(_FLAT_KEYS, (address, mode, registers), strict=True) if value is not None]
    if protocol != "flat":
        if given:
            raise reader.error(given[0], f"has no meaning for protocol {protocol}")
        return {}
    if address is None:
        raise reader.error("address", "is missing: where the flat binary is loaded")
    mode = mode or "real"
    if mode == "real" and address >= 1 << 20:
        raise reader.error("address", f"{address:#x} is beyond what real mode reaches")
    for register, value in (registers or {}).items():
        try:
            flat.set_register(State(mode, address), register, value)
        except ValueError as error:
            raise reader.error(f"registers.{register}", str(error)) from None
    return {"address": address, "mode": mode, "registers": registers or {}}
