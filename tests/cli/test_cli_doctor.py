"""`pcanel doctor`: every lack is named with the one command that mends it."""

import dataclasses

import pytest
from pcanel import health
from pcanel.engines import bochs_programs


def test_this_machine(pcanel):
    done = pcanel("doctor")
    assert done.returncode == 0, done.stdout
    for subject in ("Debian packages", "VT-x", "nested VMX", "/dev/kvm", "Bochs", "fast Bochs", "QEMU"):
        assert subject in done.stdout
    for subject in ("UEFI firmware", "image"):
        assert subject in done.stdout
    assert "LACK" not in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("--engine auto takes ")
    assert ": " in last


def test_missing_packages():
    finding = health.packages(["one", "two", "three"], lambda name: name == "two")
    assert finding.state is False
    assert finding.words == "2 of 3 are missing: one three"
    assert finding.mend.endswith("apt-get install --no-install-recommends one three")


def test_missing_program():
    finding = health.program("Thing", "no-such-program", (), "thing-package")
    assert finding.state is False
    assert finding.mend.endswith("apt-get install --no-install-recommends thing-package")


def test_missing_firmware(tmp_path):
    assert health.firmware(tmp_path).mend.endswith("apt-get install --no-install-recommends ovmf")


def test_bochs_without_its_firmware(tmp_path):
    finding = health.bochs(bochs_programs.firmware(tmp_path))
    assert (finding.state, finding.words) == (False, f"{tmp_path}/BIOS-bochs-latest is not there")
    assert finding.mend.endswith("bochs bochsbios vgabios")


def test_a_fast_bochs_that_is_not_built(tmp_path):
    finding = health.fast_bochs(dataclasses.replace(bochs_programs.FAST, path=str(tmp_path / "bochs")))
    assert (finding.state, finding.mend) == (None, "make bochs")
    assert f"{tmp_path}/bochs is not built" in finding.words


@pytest.mark.parametrize(
    "flags, state, words, mend",
    [
        ({"vmx"}, True, "the CPU has it", ""),
        ({"vmx", "hypervisor"}, True, "inside a virtual machine", ""),
        ({"svm"}, None, "AMD-V", "Intel"),
        ({"hypervisor"}, None, "shows none, inside a virtual machine", "modprobe kvm_intel nested=1"),
        (set(), None, "shows none", "firmware's set-up"),
    ],
)
def test_vt_x(flags, state, words, mend):
    finding = health.vt_x(flags)
    assert finding.state is state
    assert words in finding.words
    assert mend in finding.mend
    assert bool(finding.mend) == (state is None)


def test_nothing_built(tmp_path):
    findings = health.built(tmp_path)
    assert {finding.state for finding in findings} == {False}
    assert [finding.mend for finding in findings] == ["make setup", "make guests", "make all", "make all"]


def test_the_list_of_packages_is_the_set_ups():
    names = health.needed_packages(health.ROOT / "host-tools/setup/packages.txt")
    assert "bochs" in names
    assert all(name and not name.startswith("#") for name in names)
    assert len(set(names)) == len(names)
