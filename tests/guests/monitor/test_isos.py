"""ISOs as their packages have them, booted by SeaBIOS with a screen: memtest86+, and iPXE, which asks the host's
network for an address."""

import re
import time

import pytest
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import BUILD

pytestmark = pytest.mark.long

SLOW = 600  # seconds; 30 on an idle machine
ISOS = {"memtest": "memtest/usr/lib/memtest86+/memtest86+x64.iso", "ipxe": "ipxe/usr/lib/ipxe/ipxe.iso"}


@pytest.fixture(scope="module")
def monitor(tmp_path_factory):
    directory = tmp_path_factory.mktemp("isos")
    files = []
    for name, iso in ISOS.items():
        assert (BUILD / "guests" / iso).is_file(), f"{iso} is missing (make guests)"
        files.append(directory / f"{name}.toml")
        files[-1].write_text(
            f'memory = "32M"\nprotocol = "bios"\nscreen = "graphics"\n[[cd]]\nimage = "{BUILD}/guests/{iso}"\n'
            + ('[[net]]\nswitch = "host"\n' if name == "ipxe" else "")
        )
    with Monitor(engine=vtx.engine(), guests=files, memory=256) as monitor:
        yield monitor


def shows(monitor, name, wanted):
    end = time.monotonic() + SLOW
    while True:
        shown = monitor.eval(f"str(vms[{name!r}].screen())")
        if re.search(wanted, shown, re.M):
            return shown
        assert time.monotonic() < end, shown
        time.sleep(2)


def test_memtest(monitor, tmp_path):
    shows(monitor, "memtest", r"^\s*Memtest86\+ v6")
    shows(monitor, "memtest", r"Pass:\s+0\s+Errors:\s+0")
    said = monitor.exec(f"vms['memtest'].screenshot({str(tmp_path / 'memtest.png')!r})")
    assert said.strip().endswith("the screen of memtest, 720 x 400")


def test_ipxe_gets_an_address(monitor):
    shows(monitor, "ipxe", r"iPXE 1\.")
    shows(monitor, "ipxe", r"net0: 10\.0\.2\.\d+/255\.255\.255\.0")
