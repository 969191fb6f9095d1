"""Debian's netboot installer up to its first dialogue, on the screen and on the serial line."""

import time

import numpy
import pytest
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import BUILD, ROOT
from PIL import Image

pytestmark = pytest.mark.long

BOOT = 2400  # seconds; 200 on an idle machine
MACHINE = 900  # MiB
FILE = ROOT / "guests/installer.toml"
SIZE = (768, 1024)  # bochs-drm's choice where there is no EDID


def start(file):
    directory = BUILD / "guests/installer"
    assert directory.is_dir(), f"{directory} is missing (make installer)"
    return Monitor(engine=vtx.engine(), guests=[file], memory=MACHINE)


def test_on_the_screen(tmp_path):
    """A dialogue: red, grey and blue instead of the kernel's text."""
    path = tmp_path / "installer.png"
    with start(FILE) as monitor:
        end = time.monotonic() + BOOT
        while True:
            monitor.exec(f"vms['installer'].screenshot({str(path)!r})")
            shown = numpy.asarray(Image.open(path))
            coloured = (shown.max(axis=2) - shown.min(axis=2) > 64).mean()
            if shown.shape[:2] == SIZE and coloured > 0.2:
                break
            assert time.monotonic() < end, (shown.shape, coloured)
            time.sleep(10)
        assert monitor.eval("vms['installer'].pc.keyboard.mouse is not None")


def test_on_the_serial_line(tmp_path):
    file = tmp_path / "serial.toml"
    text = FILE.read_text().replace("../build", str(BUILD)).replace("console=tty0", "console=ttyS0,115200")
    file.write_text(text.replace('screen = "graphics"\n', ""))
    with start(file) as monitor:
        monitor.console("installer").expect(rb"\[!!\]", BOOT)  # in the title of its dialogues
