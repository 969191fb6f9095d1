"""Guests' descriptions: the monitor takes what the host's guest files become, and refuses the rest."""

import pytest
from pcanel.guest.file import load
from pcanel.paths import ROOT

from vmm import description

GOOD = {"name": "g", "memory": 1 << 20, "protocol": "flat", "kernel": "k", "address": 0x7C00}
CABLE = {"uart": "com2", "to": "a:com2"}
WINDOW = {"name": "w", "size": 0x1000}


@pytest.mark.parametrize("path", sorted((ROOT / "guests/tests").glob("*.toml")), ids=lambda path: path.stem)
def test_guest_files_are_taken(path, tmp_path):
    """Written anew where no kernel is built: the keys are what counts."""
    text = [line for line in path.read_text().splitlines() if not line.startswith("kernel")]
    (tmp_path / "k").write_bytes(b"\xf4")
    (tmp_path / path.name).write_text("\n".join([*text, 'kernel = "k"']))
    config = load(tmp_path / path.name).config
    description.check(config)
    assert set(config) <= set(description.KEYS)


def test_every_key_of_the_monitor_is_one_of_guest_files(tmp_path):
    (tmp_path / "k").write_bytes(b"\xf4")
    (tmp_path / "g.toml").write_text('memory = "1M"\nprotocol = "flat"\nkernel = "k"\naddress = 0\n')
    assert set(load(tmp_path / "g.toml").config) == set(description.KEYS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ram": 1}, "guest g: ram: unknown key; there are address, autostart,"),
        ({"name": None}, "guest None: name: is missing"),
        ({"memory": 0}, "guest g: memory: must be bytes, a multiple of 4096 from 1 MiB to 512 GiB, not 0"),
        ({"memory": (1 << 20) + 1}, "guest g: memory: must be"),
        ({"memory": 1 << 60}, "guest g: memory: must be"),
        ({"memory": "1M"}, "guest g: memory: must be"),
        ({"memory": True}, "guest g: memory: must be"),
        ({"protocol": "dos"}, "guest g: protocol: must be one of linux, multiboot, pvh, flat, bios, uefi, not 'dos'"),
        ({"protocol": "bios"}, "guest g: firmware: is missing"),
        ({"protocol": "bios", "firmware": "f", "memory": 1 << 20}, "guest g: memory: firmware needs at least 16 MiB"),
        ({"protocol": "uefi", "firmware": "f", "memory": 32 << 20}, "guest g: memory: firmware needs at least 64 MiB"),
        ({"kernel": None}, "guest g: kernel: is missing"),
        ({"modules": [1]}, "guest g: modules: must be a list of [module, string]"),
        ({"modules": [["k", 1]]}, "guest g: modules: must be a list of [module, string]"),
        ({"address": None}, "guest g: address: is missing"),
        ({"registers": {"": 1}}, "guest g: registers: must be a dict of names and numbers"),
        ({"registers": {1: 1}}, "guest g: registers: must be a dict of names and numbers"),
        ({"registers": {"ax": "1"}}, "guest g: registers: must be a dict of names and numbers"),
        ({"console": "com1"}, "guest g: console: must be com2, com3 or none"),
        ({"share": 0}, "guest g: share: must be a number from 1 to 10000, not 0"),
        ({"links": {"uart": "com2"}}, "guest g: links: must be a list of {uart, to}"),
        ({"links": [1]}, "guest g: links[0]: must be a table of uart and to, not 1"),
        ({"links": [{"uart": "com2"}]}, "guest g: links[0]: must be a table of uart and to"),
        ({"links": [{"uart": "com2", 7: "x"}]}, "guest g: links[0]: must be a table of uart and to"),
        ({"links": [CABLE, {"uart": "com5", "to": "a:com2"}]}, "guest g: links[1].uart: must be one of com1, com2,"),
        ({"links": [{"uart": [], "to": "a:com2"}]}, "guest g: links[0].uart: must be one of com1, com2,"),
        ({"links": [{"uart": "com2", "to": 7}]}, "guest g: links[0].to: must be a guest and its UART such as"),
        ({"links": [{"uart": "com2", "to": "a"}]}, "guest g: links[0].to: must be a guest and its UART such as"),
        ({"links": [{"uart": "com2", "to": ":com2"}]}, "guest g: links[0].to: must be a guest and its UART such as"),
        ({"links": [{"uart": "com2", "to": "g:com2"}]}, "guest g: links[0].to: com2 leads to itself"),
        ({"shared": [7]}, "guest g: shared[0]: must be a table of name and size, not 7"),
        ({"shared": [WINDOW, {"name": "w"}]}, "guest g: shared[1].size: must be bytes, a multiple of 4096 from 4096"),
        ({"shared": [{**WINDOW, "size": 0}]}, "guest g: shared[0].size: must be bytes"),
        ({"shared": [{**WINDOW, "size": -4096}]}, "guest g: shared[0].size: must be bytes"),
        ({"shared": [{**WINDOW, "size": 4097}]}, "guest g: shared[0].size: must be bytes"),
        ({"shared": [{**WINDOW, "size": True}]}, "guest g: shared[0].size: must be bytes"),
        ({"shared": [{**WINDOW, "size": "64K"}]}, "guest g: shared[0].size: must be bytes"),
        ({"shared": [{**WINDOW, "size": 1 << 30}]}, "guest g: shared[0].size: must be bytes"),
        ({"shared": [{**WINDOW, "size": 768 << 20}]}, "guest g: shared[0]: w would lie at 0xd0000000 and end beyond"),
        ({"shared": [{**WINDOW, "name": ""}]}, "guest g: shared[0].name: must be 1 to 16 letters"),
        ({"shared": [{**WINDOW, "name": "a b"}]}, "guest g: shared[0].name: must be 1 to 16 letters"),
        ({"shared": [{**WINDOW, "name": 5}]}, "guest g: shared[0].name: must be 1 to 16 letters"),
        ({"shared": [WINDOW, WINDOW]}, "guest g: shared[1].name: 'w' is there twice"),
        ({"shared": [{**WINDOW, "access": "wo"}]}, "guest g: shared[0].access: must be one of rw, ro, not 'wo'"),
        ({"shared": [{**WINDOW, "gsi": 4}]}, "guest g: shared[0].gsi: must be one of 5, 7, 10,"),
        ({"shared": [{**WINDOW, "gsi": "5"}]}, "guest g: shared[0].gsi: must be one of 5, 7, 10,"),
        ({"shared": [{**WINDOW, "gpa": "0"}]}, "guest g: shared[0].gpa: must be from 0xc0000000 to 0xfebff000, not"),
        ({"shared": [{**WINDOW, "gpa": 0x1000}]}, "guest g: shared[0].gpa: must be from 0xc0000000 to 0xfebff000"),
        ({"shared": [{**WINDOW, "gpa": 0xD0000800}]}, "guest g: shared[0].gpa: 0xd0000800 is not a multiple of 4096"),
        ({"shared": [{**WINDOW, "colour": 1}]}, "guest g: shared[0].colour: unknown key"),
        ({"on_reset": "halt"}, "guest g: on_reset: must be reset, stop or power-off, not 'halt'"),
    ],
)
def test_refused(change, words):
    with pytest.raises(ValueError) as info:
        description.check({**GOOD, **change})
    assert str(info.value).startswith(words)
    assert "\n" not in str(info.value)


def test_not_a_dict():
    with pytest.raises(ValueError, match="described by a dict, not str"):
        description.check("linux.toml")
