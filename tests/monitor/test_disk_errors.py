"""Disks of the machine whose image's file fails: full, cut, grown. Whoever waits for the request is told; nobody else
notices."""

import dataclasses
import os

import pytest
import vtx
from pcanel.engines import bochs, bochs_programs
from pcanel.monitor import Monitor

SIZE = 2 << 20
LIMIT = 1 << 20  # bytes that the file system has room for
MEMORY = 1 << 20
AT = MEMORY - 4096
DO = (
    """
from vmm.disks import SECTOR
def transfer(name, sector, write):
    vm, answer = vms[name], []
    disk = vm.expansion.disks[0]
    disk.transfer(sector, [(vm.memory.segments[0][2] + %d, 8 * SECTOR)], write, answer.append)
    disk.drive.finish(disk)
    return answer
"""
    % AT
)
FULL = """#!/bin/sh
# A limit on the size of files stands for a full disk: writes fail, and no signal tells.
trap '' XFSZ
ulimit -f {blocks}
exec {program} "$@"
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    directory = tmp_path_factory.mktemp("errors")
    paths = [directory / f"{name}.img" for name in ("one", "two")]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(SIZE)
    return paths


@pytest.fixture(scope="module")
def monitor(images):
    if vtx.engine() != "bochs":
        pytest.skip("the engine is wrapped, which is done for Bochs alone")
    directory = images[0].parent
    wrapper = directory / "bochs"
    wrapper.write_text(FULL.format(blocks=LIMIT // 512, program=bochs_programs.FAST.path))
    wrapper.chmod(0o755)
    (directory / "kernel").write_bytes(b"\xf4\xeb\xfd")  # again: hlt; jmp again
    files = []
    for image in images:
        files.append(image.with_suffix(".toml"))
        files[-1].write_text(
            f'memory = {MEMORY}\nprotocol = "flat"\nkernel = "kernel"\naddress = 0x7c00\n'
            f'[[disk]]\nimage = "{image.name}"\nmode = "rw"\n'
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bochs.Bochs, "programs", (dataclasses.replace(bochs_programs.FAST, path=str(wrapper)),))
        with Monitor(engine=vtx.engine(), guests=files) as monitor:
            monitor.exec(DO)
            yield monitor


def test_a_full_disk_of_the_host(monitor, images):
    """A write that has no room fails, and nothing but it."""
    monitor.exec(f"vms['one'].memory.write({AT}, b'kept' * 1024)")
    last = (LIMIT - 4096) // 512
    assert monitor.eval(f"transfer('one', {last}, True)") == [True]
    assert monitor.eval(f"transfer('one', {last + 8}, True)") == [False]
    assert monitor.eval("transfer('two', 0, True)") == [True]
    assert monitor.eval(f"transfer('one', {last}, True)") == [True]
    content = images[0].read_bytes()
    assert content[LIMIT - 4096 : LIMIT] == b"kept" * 1024 and not any(content[LIMIT:])
    assert monitor.eval("(vms['one'].state, vms['two'].state)") == ("halted", "halted")


def test_an_image_that_is_cut_while_it_is_used(monitor, images):
    assert monitor.eval("transfer('two', 2048, False)") == [True]
    os.truncate(images[1], SIZE // 4)
    assert monitor.eval("transfer('two', 2048, False)") == [False]
    assert monitor.eval("transfer('two', 0, False)") == [True]


def test_an_image_that_grows_keeps_its_size(monitor, images):
    os.truncate(images[1], 2 * SIZE)
    assert monitor.eval("vms['two'].expansion.disks[0].sectors") == SIZE // 512
    assert monitor.eval("transfer('two', 2048, False)") == [True]
