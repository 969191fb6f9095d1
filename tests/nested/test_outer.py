"""The outer system: Debian's kernel in Bochs offers VMX through /dev/kvm, to programs of ours."""

from pathlib import Path

import pytest
from pcanel.errors import PcanelError
from pcanel.outer import Outer, archives

_SCRIPT = """
cat /sys/module/kvm_intel/parameters/nested
test -c /dev/kvm && echo kvm
cat /data/words
/usr/bin/env printf 'dynamic %s\\n' program
read answer
echo "$answer" > /dev/ttyS1
exit 3
"""


def test_a_script_runs_with_its_files():
    files = {"/data/words": b"six words\n", "/usr/bin/env": Path("/usr/bin/env")}
    with Outer(files, _SCRIPT, lines=1) as outer:
        outer.wait_ready()
        outer.console.send("typed\n")
        outer.consoles[1].expect("typed", 60)
        result = outer.result(60)
    assert result.status == 3
    assert result.lines == ["Y", "kvm", "six words", "dynamic program"]
    assert 0 < result.ticks < 1_000_000_000


def test_programs_bring_their_libraries():
    packed = archives.pack({"/usr/bin/env": Path("/usr/bin/env")})
    assert b"libc.so.6\0" in packed
    assert b"ld-linux-x86-64.so.2\0" in packed


@pytest.mark.parametrize("content, mode", [(b"#!/bin/sh\n", 0o100755), (b"x", 0o100644), (Path("/bin/true"), 0o100755)])
def test_modes(content, mode):
    """What stands 110 bytes before the name is the entry's header; its second field is the mode."""
    packed = archives.pack({"/the-file": content})
    header = packed[packed.index(b"the-file\0") - 110 :]
    assert (header[:6], int(header[14:22], 16)) == (b"070701", mode)


def test_a_missing_source_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "QEMU", tmp_path / "qemu")
    with pytest.raises(PcanelError, match="is missing"):
        archives.qemu()
