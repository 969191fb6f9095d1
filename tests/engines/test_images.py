"""Bochs and the files that it is given: images whatever they are called, and what it does not take."""

import re
import time

import pytest
from pcanel.engines.bochs import Bochs
from pcanel.errors import EngineError
from pcanel.hostdisks import Disk
from pcanel.monitor import Monitor

GUEST = 'memory = "16M"\nprotocol = "bios"\nautostart = false\n'


@pytest.fixture
def file(tmp_path):
    """A guest file with disks whose paths Bochs could not be told: it knows variables, quotes and commas."""
    names = "a $HOME#.img", 'b, "quoted".img', "c é.img"
    for n, name in enumerate(names):
        with (tmp_path / name).open("wb") as image:
            image.truncate((64 << 20) + 512 * n)
    path = tmp_path / "some.toml"
    path.write_text(GUEST + "".join(f"[[disk]]\nimage = '''{name}'''\n" for name in names))
    return path


def test_any_name_is_taken_and_nothing_is_left_beside_an_image(file):
    disks = {Disk(path, False).model: path.stat().st_size for path in file.parent.glob("*.img")}
    before = sorted(file.parent.iterdir())
    with Monitor(engine="bochs", guests=[file], memory=256) as monitor:
        said = monitor.exec("print(monitor.drives)")
        assert sorted(file.parent.iterdir()) == before
    assert len(disks) == 3 and all(model in said for model in disks), said
    assert not list(monitor.run.path.glob("*.img*"))


def test_an_engine_that_ends_before_its_lines_are_connected_is_not_waited_for(file, monkeypatch):
    monkeypatch.setattr(Bochs, "more_lines", "ata3-slave: type=disk, path=none, mode=flat\n")
    began = time.monotonic()
    with Monitor(engine="bochs", guests=[file], memory=256) as monitor:
        with pytest.raises(EngineError, match="the engine has ended before"):
            monitor.wait_booted()
        with pytest.raises(EngineError, match="the engine has ended before"):
            monitor.console("some").expect("anything", 200)
        assert re.match("bochs ended with status 1: .*>>PANIC<<", monitor.failure())
    assert time.monotonic() - began < 60
