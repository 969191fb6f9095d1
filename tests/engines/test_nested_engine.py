"""The engine `nested` without a boot: what it refuses, what it has the outer system run, how it ends."""

import pytest
from pcanel.engines.base import Machine
from pcanel.engines.nested import Nested
from pcanel.errors import InputError
from pcanel.modules import BootModule


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "pcanel.elf").write_bytes(b"\x7fELF")
    return Machine(tmp_path, tmp_path / "pcanel.elf", 256, ports=[1001, 1002, 1003])


def test_memory_beyond_bochs_is_refused(machine):
    machine.memory = 1537
    with pytest.raises(InputError, match="--memory 1537: bochs takes at most 1536 MB"):
        Nested(machine)


def test_an_iso_is_refused(machine, tmp_path):
    machine.image = tmp_path / "x.iso"
    machine.image.write_bytes(b"")
    with pytest.raises(InputError, match="boots an ELF, not an ISO"):
        Nested(machine)


def test_a_module_outside_is_refused(machine, tmp_path):
    machine.modules = [BootModule("../x", b"")]
    with pytest.raises(InputError, match="plain relative path"):
        Nested(machine).make_medium(tmp_path / "boot.iso")


def test_lines_and_script(machine, tmp_path):
    machine.modules = [BootModule("a,b/kernel", b""), BootModule("guest:x", b"")]
    machine.cmdline = "heap=16M exec=8M"
    engine = Nested(machine)
    assert engine.lines() == [tmp_path / "outer.log", 1001, 1002, 1003]
    script = engine.script()
    assert "-accel kvm -cpu host -m 256" in script
    assert "serial,id=com3,path=/dev/ttyS3" in script
    assert "-append 'heap=16M exec=8M' -initrd a,,b/kernel,guest:x" in script


def test_the_end_of_qemu_is_told(machine, tmp_path):
    engine = Nested(machine)
    assert engine.outer_ticks() is None
    said = "outer: ready at 19.45 s, Linux 6.1\r\nqemu-system-x86_64: no\r\nouter: ended at 20.00 s with status 1\r\n"
    (tmp_path / "outer.log").write_bytes(said.encode())
    assert engine.outer_ticks() == 1_945_000_000
    assert engine.explain(1) == "QEMU in the outer system ended with status 1"
    assert "qemu-system-x86_64: no" in engine.log_tail()
