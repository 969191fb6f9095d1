"""The guests of one run together: distinct names, and memory for all of them."""

from pathlib import Path

from pcanel.errors import InputError
from pcanel.guest.file import Guest, load
from pcanel.options import sizes
from pcanel.vmm_import import importable

with importable():
    from vmm.network import checks as net_checks

_MONITOR = 32 << 20  # bytes kept for the monitor's image, its page tables, the boot loader
_LINES = ("com2", "com3")


def load_all(paths: list[Path], memory: int, cmdline: str = "") -> list[Guest]:
    """Reads the guest files and checks that `memory` MiB can hold them all: the monitor makes those that wait, too.
    cmdline: the monitor's, which may ask for a larger heap than the default."""
    guests: list[Guest] = []
    windows: dict[str, int] = {}
    left = (memory << 20) - _MONITOR - sizes(cmdline)
    for path in paths:
        guest = load(path)
        for other in guests:
            if other.name == guest.name:
                raise InputError(f"{path}: name: {guest.name!r} is the name of {other.path} too")
        for window in guest.config["shared"]:
            if window["name"] not in windows:
                windows[window["name"]] = window["size"]
                left -= window["size"]
            elif windows[window["name"]] != window["size"]:
                raise InputError(f"{path}: shared: {window['name']} has another size in another guest's file")
        left -= sum(blob.size() for blob in guest.blobs) + guest.memory
        if left < 0:
            raise InputError(
                f"{path}: memory: {guest.memory >> 20} MiB and its files do not fit: "
                f"the machine has {memory} MiB (--memory), the monitor and the guests before it take the rest"
            )
        guests.append(guest)
    _check_links(guests)
    _check_addresses(guests)
    _check_disks(guests)
    forwards(guests)
    return guests


def _check_disks(guests: list[Guest]) -> None:
    """An image that is written to has one guest."""
    written = [(guest, disk) for guest in guests for disk in guest.disks if disk.writable]
    for guest in guests:
        for writer, disk in written:
            found = [path for path in guest.images() if disk.is_at(path)]
            if len(found) > (writer is guest):
                first, second = sorted((writer, guest), key=guests.index)
                raise InputError(
                    f"{second.path}: disk: {found[-1]}: is a disk of {first.name}, too; "
                    "an image that is written to has one guest"
                )


def _check_links(guests: list[Guest]) -> None:
    """A UART has one cable; both of its guests' files may name it."""
    far: dict[str, str] = {}
    for guest in guests:
        for link in guest.config["links"]:
            ends = (f"{guest.name}:{link['uart']}", link["to"])
            for here, there in (ends, ends[::-1]):
                if far.setdefault(here, there) != there:
                    raise InputError(f"{guest.path}: link: {here} is linked to {far[here]} already")


def _check_addresses(guests: list[Guest]) -> None:
    """Two interfaces at one switch have two addresses."""
    owners: dict[tuple[str, bytes], Guest] = {}
    for guest in guests:
        for number, net in enumerate(guest.config["nets"]):
            mac = net_checks.address(guest.name, number, net)
            other = owners.setdefault((net["switch"], mac), guest)
            if other is not guest:
                raise InputError(f"{guest.path}: net[{number}].mac: {mac.hex(':')} is the address of {other.path} too")


def forwards(guests: list[Guest]) -> list[tuple[str, int, str, int]]:
    """The forwards of the engine's user-mode network: protocol, port of the host's loopback, the guest's address and
    port. A port of the host leads to one guest, an address is that of one."""
    found: dict[tuple[str, int], tuple[str, int, str, int]] = {}
    owners: dict[str, tuple[Guest, int]] = {}
    for guest in guests:
        for number, net in enumerate(guest.config["nets"]):
            for rule in net_checks.forwards(net):
                where = f"{guest.path}: net[{number}].forward"
                kind, port, address, _ = rule
                if (kind, port) in found:
                    raise InputError(f"{where}: {kind} port {port} of the host is forwarded already")
                if owners.setdefault(address, (guest, number)) != (guest, number):
                    owner = owners[address][0].path
                    raise InputError(f"{where}: {address} is the address of {owner}, too: name another in the string")
                found[kind, port] = rule
    return list(found.values())


def alone(guests: list[Guest]) -> list[str]:
    """A line for each interface whose switch nothing else is at: two names that should be one, perhaps."""
    ports: dict[str, list[str]] = {}
    for guest in guests:
        for number, net in enumerate(guest.config["nets"]):
            ports.setdefault(net["switch"], []).append(f"{guest.path}: net[{number}].switch")
    return [
        f"{places[0]}: nothing else is at the switch {switch}"
        for switch, places in ports.items()
        if len(places) == 1 and switch != net_checks.HOST
    ]


def _linked(guests: list[Guest]) -> dict[str, str]:
    """The guests whose COM1 has a cable, whichever file lays it, and where that leads."""
    far: dict[str, str] = {}
    for guest in guests:
        for link in guest.config["links"]:
            here = f"{guest.name}:{link['uart']}"
            far[here], far[link["to"]] = link["to"], here
    return {end.removesuffix(":com1"): to for end, to in far.items() if end.endswith(":com1")}


def assign_lines(guests: list[Guest]) -> dict[str, str]:
    """Gives each guest its console's serial line; returns {'com2': name, 'com3': name}.

    Lines that guest files ask for go first, the others in the order of the guests, and
    the monitor gets each one. A guest for which none is left has its console at the
    prompt only, one whose COM1 has a cable has none.
    """
    owners: dict[str, str] = {}
    linked = _linked(guests)
    for guest in guests:
        line = guest.config["console"]
        if line in _LINES:
            if guest.name in linked:
                raise InputError(f"{guest.path}: console: COM1 is linked to {linked[guest.name]} and no console")
            if line in owners:
                raise InputError(f"{guest.path}: console: {line} is the console of {owners[line]} already")
            owners[line] = guest.name
    for guest in guests:
        free = [line for line in _LINES if line not in owners]
        if guest.config["console"] is None and free and guest.name not in linked:
            owners[free[0]] = guest.name
            guest.config["console"] = free[0]
    return owners
