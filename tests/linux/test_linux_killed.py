"""The engine is killed at random moments of a journalled write load, again and again, for an hour."""

import os
import random
import signal
import time

import journal
import pytest
import vtx
from pcanel.bench import modules
from pcanel.guest.initramfs import Archive
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from shell import Shell

pytestmark = pytest.mark.long
SECONDS = int(os.environ.get("PCANEL_KILL_SECONDS", "3600"))


def test_no_flushed_byte_is_lost(tmp_path, record_property):
    image = tmp_path / "disk.img"
    drivers = Archive()
    modules.add_modules(drivers, modules.VIRTIO + modules.BLK)
    (tmp_path / "initrd").write_bytes((ROOT / "build/guests/initrd.cpio").read_bytes() + drivers.finish())
    file = tmp_path / "linux.toml"
    file.write_text(f"""
memory = "256M"
protocol = "linux"
kernel = "{ROOT}/build/guests/cloud.vmlinux"
initrd = "initrd"
cmdline = "console=ttyS0 quiet cryptomgr.notests"
[[disk]]
image = "disk.img"
mode = "rw"
""")
    end = time.monotonic() + SECONDS
    kills = 0
    while kills < 2 or time.monotonic() < end:
        journal.make(image)
        with Monitor(engine=vtx.engine(), guests=[file]) as monitor:
            shell = Shell(monitor, "linux").wait()
            shell.run(modules.INSMOD)
            shell.console.send(journal.LOAD.format(device="/dev/vda") + "\n")
            shell.console.expect(rb"flushed 3\r?\n", 240)
            time.sleep(random.random() * 5)
            numbers = journal.told(shell.console.log.read_bytes())
            os.kill(monitor.engine.pid, signal.SIGKILL)
        journal.check(image, numbers)
        kills += 1
        print(f"kill {kills}: {len(numbers)} flushed files are there", flush=True)
    record_property("kills", kills)
