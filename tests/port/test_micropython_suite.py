"""MicroPython's own tests on the image, the plain pass in full."""

import os
from pathlib import Path

import micropython_suite as suite
from pcanel.paths import BUILD, ELF

MICROPYTHON = Path(os.environ.get("MICROPYTHON") or BUILD / "micropython")
IMAGE = Path(os.environ.get("PCANEL_ELF") or ELF)
MPY_CROSS = BUILD / "mpy-cross/mpy-cross"


def test_plain_pass(tmp_path, capsys):
    result = suite.run_twice(IMAGE, MICROPYTHON, MPY_CROSS, tmp_path)
    with capsys.disabled():
        print()
        status = suite.report(result, ())
    assert result.ran >= 800
    assert status == 0
