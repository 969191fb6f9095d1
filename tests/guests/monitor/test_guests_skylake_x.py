"""The small guests on Bochs's Skylake-X, with APIC virtualization; on QEMU with KVM: on the host's CPU."""

import pytest
import suite
import vtx


@pytest.fixture(scope="module")
def running():
    with suite.monitor("corei7_skylake_x") as running:
        if vtx.engine() == "bochs":
            assert running.eval("monitor.caps.apicv") is True
        yield running


@pytest.mark.parametrize("name", suite.NAMES)
def test_guest(running, name):
    suite.check(suite.run(running, name, passes=True), passes=True)
    assert running.eval(f"vms[{name!r}].state") == "off"


def test_a_guest_starts_again(running):
    """What the first run left in the devices, the MSRs and the vCPU does not show in the second."""
    suite.check(suite.run(running, "long64"))


def test_the_hypervisor_shows_and_vmx_does_not(running):
    counts = running.eval("vms['long64'].exit_counts()")
    assert counts["VMCALL"][0] >= 2
    refused = running.eval("vms['long64'].unclaimed()")["refused"]
    assert any(what.startswith("instruction of exit reason") for what in refused)
