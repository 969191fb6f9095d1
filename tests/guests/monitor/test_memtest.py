"""Debian's memtest86+, a foreign binary: its screen on its console, and what it says of memory that changes."""

import pytest
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT

SLOW = 240  # seconds; a machine with nothing else to do takes a tenth


@pytest.fixture(scope="module")
def memtest():
    with Monitor(engine=vtx.engine(), guests=[ROOT / "guests/memtest.toml"]) as monitor:
        monitor.wait_booted()
        yield monitor


def test_the_screen_shows_the_test(memtest):
    screen = memtest.console("memtest")
    screen.expect(rb"Memtest86\+ v6", SLOW)
    screen.expect(rb"Moving inversions", SLOW)
    screen.expect(rb"Status: Testing", SLOW)
    screen.expect(rb"Pass:  0 +Errors: 0 ", SLOW)


@pytest.mark.long  # its pass over the memory takes minutes
def test_memory_that_does_not_keep_its_value_is_found(memtest):
    """The prompt writes into each MiB, as bad memory would, and more than once: it tests a part at a time."""
    screen = memtest.console("memtest")
    memtest.exec(
        "import time\n"
        "for _ in range(200):\n"
        "    for gpa in range(4 << 20, 15 << 20, 1 << 20): vms['memtest'].memory.write_u32(gpa, 0x12345678)\n"
        "    time.sleep_ms(100)",
        2 * SLOW,
    )
    screen.expect(rb"Errors: [1-9]", SLOW)
    assert memtest.eval("vms['memtest'].state") == "running"
