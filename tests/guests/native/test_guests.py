"""The small test guests boot natively: their checks must hold on the engines themselves, without the monitor."""

import pathlib
import subprocess

import engines
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = ROOT / "build/guests/tests"
IMAGES = ("real16.bin", "prot32.elf", "pae.elf", "long64.elf")


@pytest.fixture(scope="module", autouse=True)
def images():
    subprocess.run(["make", "-s", "-C", ROOT / "guests/tests", f"BUILD={BUILD}"], check=True)


def verdict(output):
    """Asserts that the guest ended, that nothing failed and that something passed."""
    lines = output.splitlines()
    assert any(line.startswith("SUMMARY: ") for line in lines), output[-2000:]
    assert not [line for line in lines if line.startswith("FAIL: ")]
    assert any(line.startswith("PASS: ") for line in lines)
    names = [line.split(": ")[1] for line in lines if line.startswith(("PASS: ", "SKIP: "))]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


@pytest.mark.parametrize("image", IMAGES)
def test_qemu(image):
    verdict(engines.run_qemu(BUILD / image))


@pytest.mark.parametrize("cpu", engines.BOCHS_MODELS)
@pytest.mark.parametrize("image", IMAGES)
def test_bochs(image, cpu):
    verdict(engines.run_bochs(BUILD / image, cpu))
