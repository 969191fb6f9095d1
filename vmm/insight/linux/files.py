"""Open files of a process, as /proc/PID/fd and fdinfo show them."""

from micropython import const

from vmm.insight.linux import paths
from vmm.insight.table import Table

_MOST = const(1 << 20)  # file descriptors
_COLUMNS = ("FD", "MODE", "POS", "PATH")
_MODES = ("-", "r", "w", "rw")


def opened(kernel, task):
    """Yield (fd, struct file) of a task. ValueError where its table is invalid."""
    if not task.files:
        return
    table = task.files.fdt
    count = table.max_fds
    if count > _MOST:
        raise ValueError("task %d says that it has %d file descriptors" % (task.pid, count))
    number = kernel.space.number
    bits, files = int(table.open_fds), int(table.fd)
    for word in range((count + 63) // 64):
        left = number(bits + 8 * word, 8)
        fd = 64 * word
        while left and fd < count:
            if left & 1:
                file = number(files + 8 * fd, 8)
                if file:  # reserved, and not open yet
                    yield fd, kernel.object("struct file", file)
            left >>= 1
            fd += 1


def files(kernel, task):
    """A Table: FD, MODE (r, w, rw), POS, PATH."""
    rows = []
    for fd, file in opened(kernel, task):
        rows.append((fd, _MODES[file.f_mode & 3], file.f_pos, paths.of_file(kernel, file)))
    return Table(_COLUMNS, rows)
