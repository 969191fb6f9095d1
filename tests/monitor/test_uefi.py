"""OVMF's own shell: a variable is in its file when the guest has written it, and is there after a reset and in the next
run."""

import os
import re
import shutil
import signal
import time

import pytest
import vtx
from pcanel.guest.file import UEFI_VARIABLES
from pcanel.monitor import Monitor

pytestmark = pytest.mark.long

PROMPT = rb"Shell> "
BOOT = 900  # seconds; 30 on an idle machine
NAME, GUID, VALUE = "Kept", "5a3f9e02-5f0d-4c1c-8a63-3c4e8f6f0b11", "over resets"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("uefi")
    shutil.copyfile(UEFI_VARIABLES, directory / "variables.fd")
    file = directory / "shell.toml"
    file.write_text('memory = "128M"\nprotocol = "uefi"\nvariables = "variables.fd"\n')
    return file


def shell(monitor):
    console = monitor.console("shell")
    console.expect(PROMPT, BOOT)
    return console


def has_kept(console):
    console.send(f"setvar {NAME} -guid {GUID}\r")
    shown = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", console.expect(rb"((?s:.*))" + PROMPT, 300).group(1))
    return VALUE.encode().hex(" ").upper().encode() in shown


def test_variables_outlive_resets_and_runs(file):
    with Monitor(engine=vtx.engine(), guests=[file], memory=256) as monitor:
        console = shell(monitor)
        assert not has_kept(console)
        console.send(f'setvar {NAME} -guid {GUID} -bs -rt -nv =S"{VALUE}"\r')
        console.expect(PROMPT, 300)
        end = time.monotonic() + 60
        while not monitor.eval("vms['shell'].firmware.variables.kept"):
            assert time.monotonic() < end, "the variable is on its way for a minute"
            time.sleep(0.3)
        content = (file.parent / "variables.fd").read_bytes()
        assert f"{NAME}\0".encode("utf-16-le") + VALUE.encode() in content
        console.send("reset\r")
        shell(monitor)
        assert has_kept(console)
        assert monitor.eval("(vms['shell'].starts, vms['shell'].firmware.variables.failures)") == (2, 0)
        assert monitor.eval("vms['shell'].unclaimed()['refused']") == {}
        os.kill(monitor.engine.pid, signal.SIGKILL)
    with Monitor(engine=vtx.engine(), guests=[file], memory=256) as monitor:
        assert has_kept(shell(monitor))
