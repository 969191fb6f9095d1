"""Guest files with images and registers of all kinds: what cannot be loaded is an InputError of one line."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import bzimage, elf, multiboot_header
from pcanel.errors import InputError
from pcanel.guest import trial
from pcanel.guest.file import load

MIB = 1 << 20
FIELDS = multiboot_header(0x10000, (0x200000, 0x200000, 0, 0x200400, 0x200004)).ljust(0x80, b"x")
TEXT = multiboot_header(0).ljust(64)
IMAGES = [
    b"\xf4", bytes(0x9000), FIELDS, bzimage(b"\xf4" * 4096), bzimage(b"\xf4", relocatable=0, pref=0),
    elf(64, 62, 0x100000, [(0x100000, 0x100000, TEXT, 64)]), elf(32, 3, 0x100000, [(0x100000, 0, TEXT, 64)]),
]  # fmt: skip
EDITS = st.lists(st.tuples(st.integers(0, 0x280), st.binary(min_size=1, max_size=8)), max_size=4)
REGISTER = st.sampled_from(["", "e", "r", "ax", "esp", "rip", "eflags", "cs", "ecs", "rss"]) | st.text(max_size=3)
VALUE = st.integers(0, 0xFFFF) | st.integers(-1, 1 << 64) | st.booleans() | st.text(max_size=3)
PROTOCOLS = {
    "linux": {"initrd": st.just("initrd"), "cmdline": st.text(max_size=3000)},
    "multiboot": {"cmdline": st.text(max_size=3000), "modules": st.just(["initrd", ["kernel", "k -v"]])},
    "flat": {
        "mode": st.sampled_from(["real", "protected", "long"]),
        "registers": st.dictionaries(REGISTER, VALUE, max_size=3),
    },
}
ADDRESS = st.sampled_from([0x7C00, 0x10000, 0x90000, 0xE0000, MIB]) | st.integers(0, 1 << 40)


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


@st.composite
def guests(draw):
    protocol = draw(st.sampled_from(list(PROTOCOLS)))
    keys = {"memory": draw(st.sampled_from([1, 2, 16, 4096, 1 << 19])) * MIB, "protocol": protocol, "kernel": "kernel"}
    keys |= draw(st.fixed_dictionaries({}, optional=PROTOCOLS[protocol]))
    if protocol == "flat":
        keys["address"] = draw(ADDRESS)
    image = bytearray(draw(st.sampled_from(IMAGES)))
    for at, data in draw(EDITS):
        image[at : at + len(data)] = data
    return keys, bytes(image[: draw(st.just(len(image)) | st.integers(1, 0x300))]), draw(st.sampled_from([1, MIB // 2]))


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(guests())
def test_only_input_errors(tmp_path, guest):
    keys, image, initrd = guest
    (tmp_path / "kernel").write_bytes(image)
    (tmp_path / "initrd").write_bytes(bytes(initrd))
    path = tmp_path / "g.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in keys.items()))
    try:
        trial.check(load(path))
    except InputError as error:
        assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1


@pytest.mark.parametrize("image", IMAGES, ids=range(len(IMAGES)))
def test_unchanged_images_load(tmp_path, image):
    """Else the test above would look at nothing."""
    protocol = "linux" if b"HdrS" in image else "multiboot" if multiboot_header(0)[:4] in image else "flat"
    (tmp_path / "kernel").write_bytes(image)
    path = tmp_path / "g.toml"
    address = "address = 0x10000\n" if protocol == "flat" else ""
    path.write_text(f'memory = "32M"\nprotocol = "{protocol}"\nkernel = "kernel"\n{address}')
    trial.check(load(path))
