"""A journalled write load in a Linux guest, and what a disk image must have had of it at a moment.

Each file is written, flushed by fsync, and then told of on the console. Whatever has been told is in the image.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

LOAD = (
    "mkdir -p /j; i=0; mount -t ext4 {device} /j && while test $i -lt 4000; do i=$((i+1)); "
    "printf %4096d $i | dd of=/j/f$i bs=4096 conv=fsync 2>/dev/null && echo flushed $i; done"
)
END = 20 << 20  # of the file system; the image is larger
_SIZE = 24 << 20


def make(path):
    """An ext4 image with a journal."""
    with path.open("wb") as file:
        file.truncate(_SIZE)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-J", "size=4", str(path), f"{END >> 10}k"], check=True)


def told(log):
    """The numbers of the files that the console has told of."""
    return [int(n) for n in re.findall(rb"^flushed (\d+)\r?$", log, re.MULTILINE)]


def check(image, numbers):
    """The image, as it is after a crash, is whole once its journal has been replayed, and has these files."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        copy = directory / "image"
        shutil.copyfile(image, copy)
        replay(copy)
        files = directory / "files"
        files.mkdir()
        _run("debugfs", "-R", f"rdump / {files}", copy)
        for number in numbers:
            assert (files / f"f{number}").read_bytes() == b"%4096d" % number, f"file {number} of {len(numbers)}"


def replay(image):
    """Replays the journal of an ext4 image, which is whole then."""
    replayed = _run("e2fsck", "-p", image)
    assert replayed.returncode in (0, 1) and "CLEARED" not in replayed.stdout, replayed.stdout + replayed.stderr
    check_whole(image)


def check_whole(image):
    clean = _run("e2fsck", "-fn", image)
    assert clean.returncode == 0, clean.stdout + clean.stderr


def content(image, path):
    """Of a file in an ext4 image."""
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "content"
        _run("debugfs", "-R", f"dump {path} {target}", image)
        return target.read_bytes()


def _run(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
