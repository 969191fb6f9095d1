"""The rescue ISO boots to the prompt everywhere: Bochs, QEMU with SeaBIOS, QEMU with OVMF."""

import pytest
from pcanel.monitor import Monitor
from pcanel.paths import ELF, ISO

MEDIA = {
    "bochs": {"engine": "bochs", "image": ISO},
    "qemu-seabios": {"engine": "qemu", "image": ISO},
    "qemu-ovmf": {"engine": "qemu", "image": ISO, "uefi": True},
    "qemu-kernel": {"engine": "qemu", "image": ELF},
    "bochs-lean-iso": {"engine": "bochs", "image": ELF},
}


@pytest.mark.parametrize("medium", MEDIA)
def test_boots_to_the_prompt(medium):
    with Monitor(**MEDIA[medium]) as monitor:
        monitor.wait_booted(240)
        assert monitor.eval("[6 * 7, 2 ** 70]") == [42, 1 << 70]
        memory = monitor.eval("sum(length for base, length, kind in __import__('multiboot').memory() if kind == 1)")
        assert 0.9 < memory / (1 << 30) <= 1
