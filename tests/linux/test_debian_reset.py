"""The guest file of the README: what Debian writes is kept over a reset, to a login again, and forgotten at the end."""

import pytest
from login import BOOT, log_in, made, run, start
from pcanel.paths import BUILD, ROOT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def monitor():
    made(BUILD / "images/debian.img", "make debian")
    with start(ROOT / "guests/debian.toml") as monitor:
        yield monitor


def test_what_it_writes_is_kept_over_a_reset(monitor, console):
    run(console, "echo kept > /root/kept")
    console.send("reboot\n")
    console.expect(rb"Welcome to GRUB", BOOT)
    log_in(console)
    assert run(console, "cat /root/kept") == "kept\n"
    assert monitor.eval("vms['debian'].starts") == 2


def test_switched_off_it_forgets(monitor, console):
    console.send("poweroff\n")
    monitor.console("repl").expect(rb"powered off by the guest", 600)
    assert monitor.eval("vms['debian'].expansion.disks[0].changed") == 0
