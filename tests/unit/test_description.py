"""Guests' descriptions: the monitor takes what the host's guest files become, and refuses the rest."""

import pytest
from pcanel.guest.file import load
from pcanel.paths import ROOT

from vmm import description

GOOD = {"name": "g", "memory": 1 << 20, "protocol": "flat", "kernel": "k"}


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
        ({"protocol": "dos"}, "guest g: protocol: must be linux, multiboot or flat, not 'dos'"),
        ({"modules": [1]}, "guest g: modules: must be a list of [module, string]"),
        ({"console": "com1"}, "guest g: console: must be com2, com3 or none"),
        ({"share": 0}, "guest g: share: must be a number from 1 to 10000, not 0"),
        ({"on_reset": "halt"}, "guest g: on_reset: must be reset, stop or power-off, not 'halt'"),
    ],
)
def test_refused(change, words):
    with pytest.raises(ValueError) as info:
        description.check({**GOOD, **change})
    assert str(info.value).startswith(words)
    assert "\n" not in str(info.value)


def test_not_a_dict():
    with pytest.raises(ValueError, match="described by a dict, not 'linux.toml'"):
        description.check("linux.toml")
