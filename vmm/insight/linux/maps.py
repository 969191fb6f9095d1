"""A process's memory: its mappings as /proc/PID/maps shows them, and what lies in them."""

from micropython import const

from vmm.insight import trees
from vmm.insight.linux import paths, tasks
from vmm.insight.table import Table

_COLUMNS = ("START", "END", "PERM", "OFFSET", "DEV", "INODE", "PATH")
_FORMATS = ("%x", "%x", "%s", "%x", "%s", "%d", "%s")
_MOST = const(65536)  # mappings
_MAYSHARE = const(0x80)
_MINOR = const(20)  # bits of a device number
_TEXT = const(256)
_NO_VSYSCALL = const(2)  # of vsyscall_mode
_PAGE = const(12)


def areas(kernel, mm):
    """Yield each struct vm_area_struct of a struct mm_struct: in a maple tree from Linux 6.1 on, in a list before."""
    if mm.type_.has("mm_mt"):
        for _, _, area in trees.maple(kernel.types, kernel.space, mm.at_("mm_mt"), "struct vm_area_struct"):
            yield area
        return
    area = mm.mmap
    for _ in range(_MOST):
        if not area:
            return
        yield area[0]
        area = area.vm_next
    raise ValueError("a process has more than %d mappings" % _MOST)


def _gate(kernel):
    """The page of vsyscalls, which each process sees, or None."""
    mode = kernel.find("vsyscall_mode")
    area = kernel.find("gate_vma")
    if mode is None or area is None or kernel.space.number(mode, 4) == _NO_VSYSCALL:
        return None
    return kernel.object("struct vm_area_struct", area)


def maps(kernel, task):
    """A Table; no rows for a kernel thread."""
    rows = []
    if task.mm:
        mm = task.mm[0]
        special = kernel.find("special_mapping_vmops")
        for area in areas(kernel, mm):
            rows.append(_row(kernel, mm, area, special))
        gate = _gate(kernel)
        if gate is not None:
            rows.append(_row(kernel, None, gate, special)[:-1] + ("[vsyscall]",))
    return Table(_COLUMNS, rows, _FORMATS)


def _row(kernel, mm, area, special):
    flags = area.vm_flags
    permissions = "".join([letter if flags >> bit & 1 else "-" for bit, letter in enumerate("rwx")])
    permissions += "s" if flags & _MAYSHARE else "p"
    offset = number = inode = 0
    file = area.vm_file
    if file:
        offset = area.vm_pgoff << _PAGE
        inode = file.f_inode.i_ino
        number = file.f_inode.i_sb.s_dev
    device = "%02x:%02x" % (number >> _MINOR, number & (1 << _MINOR) - 1)
    return area.vm_start, area.vm_end, permissions, offset, device, inode, _name(kernel, mm, area, special)


def _name(kernel, mm, area, special):
    """The name of a mapping, the last column of /proc/PID/maps."""
    if area.vm_file:
        type = area.type_
        apart = type.has("anon_name") and type.offset("anon_name") != type.offset("shared")  # a union up to Linux 6.1
        return apart and _given(area, "anon_shmem") or paths.of_file(kernel, area.vm_file)
    if area.vm_ops and int(area.vm_ops) == special:
        return kernel.object("struct vm_special_mapping", int(area.vm_private_data)).name.string_(_TEXT)
    if mm is None:
        return ""
    if area.vm_start < mm.brk and area.vm_end > mm.start_brk:
        return "[heap]"
    if area.vm_start <= mm.start_stack < area.vm_end:
        return "[stack]"
    return _given(area, "anon")


def _given(area, kind):
    """ "[anon:NAME]" of memory without a file on a disk that its program has named (PR_SET_VMA_ANON_NAME), else ""."""
    if not area.type_.has("anon_name") or not area.anon_name:
        return ""
    return "[%s:%s]" % (kind, area.anon_name.name.string_(_TEXT))


def read(kernel, task, gva, size):
    """Bytes of a process's memory. ValueError: nothing is mapped there, or the page is not in memory."""
    own = space(kernel, task)
    try:
        return own.read(gva, size)
    except ValueError as error:
        raise ValueError(explained(kernel, task, str(error)))


def explained(kernel, task, error):
    """The error of a failed read of a process's memory, with what the process has mapped at that address."""
    return _why(kernel, task, error.split()[1]) if "is not mapped" in error else error


def _no_memory(task):
    why = "has ended" if task.exit_state else "is a kernel thread"
    return "task %s %s: it has no memory of its own" % (tasks.title(task), why)


def space(kernel, task):
    """The address space of a process. ValueError: it has none."""
    if not task.mm:
        raise ValueError(_no_memory(task))
    return kernel.user(task.mm)


def _why(kernel, task, where):
    """Why nothing can be read at an address. where: it, as the text of space.read()'s error."""
    gva = int(where, 16)
    special = kernel.find("special_mapping_vmops")
    for area in areas(kernel, task.mm[0]):
        if area.vm_start <= gva < area.vm_end:
            name = _name(kernel, task.mm[0], area, special)
            return "gva %s of process %d lies in %x-%x %s, but not in memory: not touched yet, or paged out" % (
                where, task.pid, area.vm_start, area.vm_end, name or "(anonymous)",
            )  # fmt: skip
    return "gva %s: process %s has nothing mapped there" % (where, tasks.title(task))
