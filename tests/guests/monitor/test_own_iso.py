"""This project's own ISO in a guest's CD drive, by the guest file that is there for it."""

import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT

SLOW = 600  # seconds; 10 on an idle machine


def test_the_monitor_in_a_guest():
    """SeaBIOS, GRUB, and a monitor that has no VT-x: it says which bit, and has a prompt."""
    with Monitor(engine=vtx.engine(), guests=[ROOT / "guests/iso.toml"], memory=600) as monitor:
        console = monitor.console("iso")
        console.expect(r"CPUID\.1:ECX bit 5 \(VMX\)", SLOW)
        console.expect(r"^>>> ", SLOW)
        console.send("6 * 7\r")
        console.expect(r"^42\r?\n", SLOW)
        assert monitor.eval("vms['iso'].state") in ("running", "halted")
