"""The image on QEMU without KVM: no VT-x is needed for the port's own tests."""

import os
from pathlib import Path

import pytest
from pcanel.modules import BootModule
from pcanel.monitor import Monitor
from pcanel.paths import ELF


def boot(modules: dict[str, bytes] | None = None, **options) -> Monitor:
    """A monitor without guests; $PCANEL_ELF names another image than the build's."""
    image = Path(os.environ.get("PCANEL_ELF") or ELF)
    extra = [BootModule(name, content) for name, content in (modules or {}).items()]
    return Monitor(**{"engine": "qemu", "memory": 256, "image": image, "modules": extra, **options})


@pytest.fixture(scope="module")
def monitor():
    """One machine for all tests of a file."""
    with boot() as machine:
        machine.wait_booted(120)
        yield machine


@pytest.fixture
def fresh():
    """Boots a machine with options of the test's own; any number of them. booted=False: do not wait for the prompt."""
    machines = []

    def start(booted=True, **options):
        machine = boot(**options)
        machine.start()
        machines.append(machine)
        if booted:
            machine.wait_booted(120)
        return machine

    yield start
    for machine in machines:
        machine.stop()
