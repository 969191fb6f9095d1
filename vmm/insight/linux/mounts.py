"""Mounts that a process sees, as /proc/PID/mounts shows them, without the options of each file system's own."""

from micropython import const

from vmm.insight.linux import paths
from vmm.insight.table import Table

_COLUMNS = ("SOURCE", "PATH", "TYPE", "OPTIONS")
_READONLY = const(0x40)  # MNT_READONLY
_SB_READONLY = const(1)
_MOUNT = ((1, "nosuid"), (2, "nodev"), (4, "noexec"), (8, "noatime"), (16, "nodiratime"), (32, "relatime"),
          (128, "nosymfollow"))  # fmt: skip
_SUPER = ((16, "sync"), (128, "dirsync"), (64, "mand"), (1 << 25, "lazytime"))
_TEXT = const(1024)


def each(namespace):
    """Yield the struct mounts of a struct mnt_namespace: a list up to Linux 6.7, an rbtree from then on."""
    if namespace.type_.has("list"):
        return namespace.list.list_("struct mount", "mnt_list")
    return namespace.mounts.rb_("struct mount", "mnt_node")


def mounts(kernel, task):
    """A Table: SOURCE, PATH, TYPE, OPTIONS."""
    if not task.nsproxy or not task.fs:
        raise ValueError("task %d is ending: it has no mounts any more" % task.pid)
    root = task.fs.root
    rows = []
    for mount in each(task.nsproxy.mnt_ns[0]):
        path = paths.of_dentry(kernel, mount.mnt.mnt_root, mount.mnt.pointer_(), root)
        if path:
            block = mount.mnt.mnt_sb
            kind = block.s_type.name.string_(_TEXT)
            if block.s_subtype:
                kind += "." + block.s_subtype.string_(_TEXT)
            source = mount.mnt_devname.string_(_TEXT) if mount.mnt_devname else "none"
            rows.append((source, path, kind, _options(mount.mnt.mnt_flags, block.s_flags)))
    return Table(_COLUMNS, rows)


def _options(flags, super):
    words = ["ro" if flags & _READONLY or super & _SB_READONLY else "rw"]
    words += [word for bit, word in _SUPER if super & bit]
    words += [word for bit, word in _MOUNT if flags & bit]
    return ",".join(words)
