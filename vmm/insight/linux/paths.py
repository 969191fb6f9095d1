"""Names of open files: a dentry and its mount as a path, as /proc/PID/fd shows it."""

from micropython import const

_DEEPEST = const(1024)  # directories in directories
_NAME = const(256)  # bytes
_INODES = {"pipefs": "pipe", "sockfs": "socket"}


def name(dentry):
    """The last part of a dentry's path."""
    found = dentry.d_name.name.string_(_NAME)
    return found if isinstance(found, str) else repr(found)[2:-1]


def of(kernel, path, root=None):
    """The path of a struct path in its mount namespace, or below `root`, a struct path; "" where it is not below."""
    return of_dentry(kernel, path.dentry, path.mnt, root)


def of_dentry(kernel, dentry, vfsmount, root=None):
    """The path of a dentry (a Pointer) on a struct vfsmount (a Pointer)."""
    names = []
    mount = kernel.container_of(int(vfsmount), "struct mount", "mnt")
    end = (int(root.dentry), int(root.mnt)) if root is not None else None
    for _ in range(_DEEPEST):
        if (int(dentry), mount.at_("mnt")) == end:
            return "/" + "/".join(reversed(names))
        if dentry == mount.mnt.mnt_root:
            above = mount.mnt_parent
            if above == mount:
                return "" if end else "/" + "/".join(reversed(names))
            dentry = mount.mnt_mountpoint
            mount = above[0]
        elif dentry.d_parent == dentry:  # on no mount, or one that has been unmounted
            return "" if end else "/" + "/".join(reversed(names))
        else:
            names.append(name(dentry))
            dentry = dentry.d_parent
    raise ValueError("the path at dentry %#x has no beginning" % int(dentry))


def of_file(kernel, file):
    """The target of the link in /proc/PID/fd to a struct file: a path, "pipe:[1234]", "anon_inode:[eventfd]"."""
    path = file.f_path
    dentry = path.dentry
    inode = file.f_inode
    kind = inode.i_sb.s_type.name.string_(_NAME)
    if kind in _INODES:
        return "%s:[%d]" % (_INODES[kind], inode.i_ino)
    if kind == "anon_inodefs":
        return "anon_inode:" + name(dentry)
    if kind == "nsfs":
        return "%s:[%d]" % (_namespace(kernel, dentry), inode.i_ino)
    if _is_made_up(dentry) and dentry != path.mnt.mnt_root:
        return "/%s (deleted)" % name(dentry)
    text = of(kernel, path)
    gone = not dentry.d_hash.pprev and dentry.d_parent != dentry
    return text + " (deleted)" if gone else text


def _is_made_up(dentry):
    """Whether the file system makes the name (simple_dname): memfd, SysV shared memory."""
    return bool(dentry.d_op) and bool(dentry.d_op.d_dname)


def _namespace(kernel, dentry):
    operations = dentry.d_fsdata
    if not operations:
        return "ns"
    return kernel.object("struct proc_ns_operations", int(operations)).name.string_(_NAME)
