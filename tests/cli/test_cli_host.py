"""What the host offers, and which engine that leads to."""

import pytest
from pcanel.engines import choose, host
from pcanel.errors import InputError


@pytest.fixture
def machine(tmp_path):
    """Files as a host would show them: vmx flag, /dev/kvm, kvm_intel's parameter."""

    def make(flags="fpu vmx", kvm=True, nested="Y"):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
        if kvm:
            (tmp_path / "kvm").write_text("")
        if nested is not None:
            (tmp_path / "nested").write_text(nested + "\n")
        return host.nested_vmx(tmp_path / "kvm", tmp_path / "nested", tmp_path / "cpuinfo")

    return make


def test_nested_vmx(machine):
    assert machine().usable
    assert machine(nested="1").usable


@pytest.mark.parametrize(
    "shown, reason, mend",
    [
        ({"flags": "fpu svm"}, "no VT-x", ""),
        ({"flags": ""}, "no VT-x", ""),
        ({"kvm": False}, "no /dev/kvm", "sudo modprobe kvm_intel"),
        ({"nested": None}, "not loaded", "sudo modprobe kvm_intel"),
        ({"nested": "N"}, "nested=0", "sudo modprobe -r kvm_intel"),
    ],
)
def test_no_nested_vmx(machine, shown, reason, mend):
    found = machine(**shown)
    assert not found.usable
    assert reason in found.reason
    assert found.mend.startswith(mend)


@pytest.mark.parametrize("usable, name", [(True, "qemu"), (False, "bochs")])
def test_auto(monkeypatch, usable, name):
    monkeypatch.setattr(choose, "nested_vmx", lambda: host.NestedVmx(usable, "because"))
    chosen = choose.choose("auto")
    assert (chosen.engine.name, chosen.reason) == (name, "because")


def test_asked_for(monkeypatch):
    monkeypatch.setattr(choose, "nested_vmx", lambda: host.NestedVmx(False, "because"))
    assert choose.choose("bochs").reason == "asked for"
    assert "no VT-x: because" in choose.choose("qemu").reason
    with pytest.raises(InputError):
        choose.choose("vmware")
