"""Mounts the RAM file system at /, and fills it from the boot modules.

Runs before boot.py, at every soft reset. The disk is memory outside Python's heap:
it is formatted once a boot, and only then are the modules named "file:" copied in.
"""

import os
import sys

import machine
import multiboot
import uctypes
import vfs


def _makedirs(path):
    for i in range(1, len(path)):
        if path[i] == "/":
            try:
                os.stat(path[:i])
            except OSError:
                os.mkdir(path[:i])


def _copy_files():
    for string, hpa, size in multiboot.modules():
        name = string.split(" ", 1)[0]
        if name.startswith("file:"):
            path = name[5:]
            _makedirs(path)
            with open(path, "wb") as file:
                if size:
                    file.write(uctypes.bytearray_at(hpa, size))


def _mount():
    disk = machine.RamDisk()
    try:
        vfs.mount(disk, "/")
    except OSError:
        vfs.VfsFat.mkfs(disk)
        vfs.mount(disk, "/")
        _copy_files()


_mount()
sys.path.append("/lib")
