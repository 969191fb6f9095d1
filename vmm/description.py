"""A guest's description, as monitor.create takes it: its keys and their values.

The keys are those of a guest file (docs/guests.md), with memory in bytes and boot modules by name. A fault is refused
in one line that names guest, key and reason.
"""

from micropython import const

from vmm.disks import checks as disk_checks
from vmm.insight.systems import SYSTEMS
from vmm.network import checks as net_checks
from vmm.ties import checks
from vmm.vtx.x86 import PAGE

SCREENS = ("off", "on", "console", "graphics")
FIRMWARE = ("bios", "uefi")  # protocols of guests with firmware of their own
PROTOCOLS = ("linux", "multiboot", "pvh", "flat") + FIRMWARE
MODES = ("real", "protected", "long")
CONSOLES = ("com2", "com3", "none")
RESPONSES = ("reset", "stop", "power-off")  # to a reset, a triple fault, a power-off of the guest's own
MEMORY = (1 << 20, 512 << 30)  # bytes, least and most; likewise below
ADDRESSES = (0, MEMORY[1] - 1)  # of a flat binary
CPUS = (1, 16)
PRIORITIES = (0, 255)
SHARES = (1, 10000)


def _strings(values):
    return all([isinstance(value, str) for value in values])


# Key: (type, what it must be, test or None). What it must be is a text, or a tuple: of strings to choose from, or of
# the limits of a number. None counts as a key that is left out.
_KEYS = {
    "name": (str, "a word", lambda v: v and " " not in v),
    "memory": (
        int,
        "bytes, a multiple of 4096 from 1 MiB to 512 GiB",
        lambda v: MEMORY[0] <= v <= MEMORY[1] and not v % PAGE,
    ),
    "protocol": (str, "one of " + ", ".join(PROTOCOLS), lambda v: v in PROTOCOLS),
    "firmware": (str, "a boot module's name", None),
    "kernel": (str, "a boot module's name", None),
    "variables": (str, "a boot module's name", None),
    "variables_disk": (str, "a disk's model or serial number", None),
    "vgabios": (str, "a boot module's name", None),
    "initrd": (str, "a boot module's name", None),
    "symbols": (str, "a boot module's name", None),
    "system": (str, "one of " + ", ".join(SYSTEMS), lambda v: v in SYSTEMS),
    "cmdline": (str, "a string", None),
    "modules": (
        list,
        "a list of [module, string]",
        lambda v: all([isinstance(pair, (list, tuple)) and len(pair) == 2 and _strings(pair) for pair in v]),
    ),
    "address": (int, "a guest-physical address", lambda v: ADDRESSES[0] <= v <= ADDRESSES[1]),
    "mode": (str, MODES, None),
    "registers": (
        dict,
        "a dict of names and numbers",
        lambda v: "" not in v and _strings(v) and all([isinstance(number, int) for number in v.values()]),
    ),
    "console": (str, CONSOLES, None),
    "screen": (str, SCREENS, None),
    "cpus": (int, CPUS, None),
    "autostart": (bool, "True or False", None),
    "demand_paging": (bool, "True or False", None),
    "hide_stops": (bool, "True or False", None),
    "priority": (int, PRIORITIES, None),
    "share": (int, SHARES, None),
    "pci": (bool, "True or False", None),
    "rng": (bool, "True or False", None),
    "hvc": (bool, "True or False", None),
    "devices": (
        list,
        "a list of [boot module, class]",
        lambda v: all([isinstance(pair, (list, tuple)) and len(pair) == 2 and _strings(pair) for pair in v]),
    ),
    "disks": (list, "a list of {image} and, if wanted, mode, transport", None),
    "nets": (list, "a list of {switch} and, if wanted, mac", None),
    "cds": (list, "a list of {image}", None),
    "links": (list, "a list of {uart, to}", None),
    "shared": (list, "a list of {name, size} and, if wanted, access, gpa, gsi, cpl", None),
    "on_reset": (str, RESPONSES, None),
    "on_triple_fault": (str, RESPONSES, None),
    "on_power_off": (str, RESPONSES, None),
}
_REQUIRED = ("name", "memory", "protocol")
_BIOS_MEMORY = const(16 << 20)
_UEFI_MEMORY = const(64 << 20)

KEYS = tuple(_KEYS)


def least_memory(protocol):
    """Bytes that a guest with this firmware has at least."""
    return _UEFI_MEMORY if protocol == "uefi" else _BIOS_MEMORY


def _fits(value, kind, what, test):
    if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
        return False
    if isinstance(what, tuple):
        return value in what if kind is str else what[0] <= value <= what[1]
    return not test or test(value)


def _text(kind, what):
    if not isinstance(what, tuple):
        return what
    return "a number from %d to %d" % what if kind is int else ", ".join(what[:-1]) + " or " + what[-1]


def check(config):
    """Raise ValueError for a description that monitor.create cannot take."""
    if not isinstance(config, dict):
        raise ValueError("a guest is described by a dict, not %s" % type(config).__name__)
    name = config.get("name")
    for key in _REQUIRED:
        if config.get(key) is None:
            raise ValueError("guest %s: %s: is missing" % (name, key))
    for key, value in config.items():
        if key not in _KEYS:
            raise ValueError("guest %s: %s: unknown key; there are %s" % (name, key, ", ".join(sorted(_KEYS))))
        if value is not None and not _fits(value, *_KEYS[key]):
            raise ValueError("guest %s: %s: must be %s, not %r" % (name, key, _text(*_KEYS[key][:2]), value))
    key = "firmware" if config["protocol"] in FIRMWARE else "kernel"
    if config.get(key) is None:
        raise ValueError("guest %s: %s: is missing" % (name, key))
    if key == "firmware":
        least = least_memory(config["protocol"])
        if config["memory"] < least:
            raise ValueError("guest %s: memory: firmware needs at least %d MiB" % (name, least >> 20))
    if config["protocol"] == "flat" and config.get("address") is None:
        raise ValueError("guest %s: address: is missing: where the flat binary is loaded and entered" % name)
    key = "links"
    try:
        checks.links(name, config.get(key) or [])
        key = "shared"
        checks.windows(config.get(key) or [])
        key = "disks"
        disk_checks.disks(config.get(key) or [])
        key = "nets"
        net_checks.nets(name, config.get(key) or [])
        key = "cds"
        disk_checks.cds(config.get(key) or [])
    except ValueError as error:
        raise ValueError("guest %s: %s%s" % (name, key, error)) from None
