"""The arguments and results of system calls as text: flags, paths, buffers, errors.

Types come from the kernel (vmm/insight/linux/calls.py); this module has the meanings that types do not give, for the
most frequent calls. Values: the kernel's ABI on x86-64 (include/uapi, arch/x86/include/uapi).
"""

from micropython import const

from vmm.insight.linux.callring import LISTED
from vmm.vtx.x86 import MASK64

_SHOWN = const(32)  # bytes of a string or a buffer
_ADDRESS = const(1 << 20)  # an unsigned long from here on is shown as an address

_ERRORS = (
    "EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY "
    "EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK "
    "EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP - ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT "
    "EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT - EBFONT ENOSTR ENODATA ETIME "
    "ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ "
    "EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK "
    "EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT "
    "EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS "
    "EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS "
    "ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED "
    "EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON"
)
_RESTARTS = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK"}
_SIGNALS = (
    "SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM "
    "SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF "
    "SIGWINCH SIGIO SIGPWR SIGSYS"
)

# Words: "NAME=value", "NAME=value/mask" where several bits are one field.
_OPEN = (
    "O_RDONLY=0/3 O_WRONLY=1/3 O_RDWR=2/3 O_CREAT=0x40 O_EXCL=0x80 O_NOCTTY=0x100 O_TRUNC=0x200 O_APPEND=0x400 "
    "O_NONBLOCK=0x800 O_SYNC=0x101000/0x101000 O_DSYNC=0x1000 O_DIRECT=0x4000 O_LARGEFILE=0x8000 "
    "O_TMPFILE=0x410000/0x410000 O_DIRECTORY=0x10000 O_NOFOLLOW=0x20000 O_NOATIME=0x40000 O_CLOEXEC=0x80000 "
    "O_PATH=0x200000"
)
# Flags of calls that do not take open()'s access modes: there 0 is not O_RDONLY.
_PIPE = "O_NOTIFICATION_PIPE=0x80 O_NONBLOCK=0x800 O_DIRECT=0x4000 O_CLOEXEC=0x80000"
_AT = "AT_SYMLINK_NOFOLLOW=0x100 AT_REMOVEDIR=0x200 AT_SYMLINK_FOLLOW=0x400 AT_NO_AUTOMOUNT=0x800 AT_EMPTY_PATH=0x1000"
_PROT = "PROT_NONE=0/7 PROT_READ=1 PROT_WRITE=2 PROT_EXEC=4"
_MAP = (
    "MAP_SHARED=1/15 MAP_PRIVATE=2/15 MAP_FIXED=0x10 MAP_ANONYMOUS=0x20 MAP_GROWSDOWN=0x100 MAP_DENYWRITE=0x800 "
    "MAP_LOCKED=0x2000 MAP_NORESERVE=0x4000 MAP_POPULATE=0x8000 MAP_STACK=0x20000 MAP_FIXED_NOREPLACE=0x100000"
)
_CLONE = (
    "CLONE_VM=0x100 CLONE_FS=0x200 CLONE_FILES=0x400 CLONE_SIGHAND=0x800 CLONE_VFORK=0x4000 CLONE_PARENT=0x8000 "
    "CLONE_THREAD=0x10000 CLONE_NEWNS=0x20000 CLONE_SYSVSEM=0x40000 CLONE_SETTLS=0x80000 CLONE_PARENT_SETTID=0x100000 "
    "CLONE_CHILD_CLEARTID=0x200000 CLONE_CHILD_SETTID=0x1000000 SIGCHLD=17/255"
)
_FCNTL = (
    "F_DUPFD=0 F_GETFD=1 F_SETFD=2 F_GETFL=3 F_SETFL=4 F_GETLK=5 F_SETLK=6 F_SETLKW=7 F_SETOWN=8 F_GETOWN=9 "
    "F_DUPFD_CLOEXEC=1030 F_SETPIPE_SZ=1031 F_GETPIPE_SZ=1032 F_ADD_SEALS=1033 F_GET_SEALS=1034"
)
_IOCTL = (
    "TCGETS=0x5401 TCSETS=0x5402 TCSETSW=0x5403 TCSETSF=0x5404 TIOCSCTTY=0x540E TIOCGPGRP=0x540F TIOCSPGRP=0x5410 "
    "TIOCGWINSZ=0x5413 TIOCSWINSZ=0x5414 FIONREAD=0x541B FIONBIO=0x5421 TIOCGSID=0x5429"
)
_SOCKET = "AF_UNSPEC=0 AF_UNIX=1 AF_INET=2 AF_INET6=10 AF_NETLINK=16 AF_PACKET=17 AF_VSOCK=40"
_ACCEPT = "SOCK_NONBLOCK=0x800 SOCK_CLOEXEC=0x80000"
_TYPE = "SOCK_STREAM=1/15 SOCK_DGRAM=2/15 SOCK_RAW=3/15 SOCK_SEQPACKET=5/15 " + _ACCEPT
_CLOCKS = (
    "CLOCK_REALTIME=0 CLOCK_MONOTONIC=1 CLOCK_PROCESS_CPUTIME_ID=2 CLOCK_THREAD_CPUTIME_ID=3 CLOCK_MONOTONIC_RAW=4 "
    "CLOCK_REALTIME_COARSE=5 CLOCK_MONOTONIC_COARSE=6 CLOCK_BOOTTIME=7 CLOCK_REALTIME_ALARM=8 CLOCK_BOOTTIME_ALARM=9 "
    "CLOCK_TAI=11"
)

_BITS = {
    ("open", "flags"): _OPEN, ("openat", "flags"): _OPEN, ("open_by_handle_at", "flags"): _OPEN,
    ("pipe2", "flags"): _PIPE, ("dup3", "flags"): "O_CLOEXEC=0x80000", ("accept4", "flags"): _ACCEPT,
    ("eventfd2", "flags"): "EFD_SEMAPHORE=1 EFD_NONBLOCK=0x800 EFD_CLOEXEC=0x80000",
    ("epoll_create1", "flags"): "EPOLL_CLOEXEC=0x80000",
    ("inotify_init1", "flags"): "IN_NONBLOCK=0x800 IN_CLOEXEC=0x80000",
    ("signalfd4", "flags"): "SFD_NONBLOCK=0x800 SFD_CLOEXEC=0x80000",
    ("timerfd_create", "flags"): "TFD_NONBLOCK=0x800 TFD_CLOEXEC=0x80000",
    ("timerfd_settime", "flags"): "TFD_TIMER_ABSTIME=1 TFD_TIMER_CANCEL_ON_SET=2",
    ("clock_nanosleep", "flags"): "TIMER_ABSTIME=1",
    ("userfaultfd", "flags"): "UFFD_USER_MODE_ONLY=1 O_NONBLOCK=0x800 O_CLOEXEC=0x80000",
    ("pidfd_open", "flags"): "PIDFD_NONBLOCK=0x800",
    ("memfd_create", "flags"):
        "MFD_CLOEXEC=1 MFD_ALLOW_SEALING=2 MFD_HUGETLB=4 MFD_NOEXEC_SEAL=8 MFD_EXEC=16",
    ("close_range", "flags"): "CLOSE_RANGE_UNSHARE=2 CLOSE_RANGE_CLOEXEC=4",
    ("renameat2", "flags"): "RENAME_NOREPLACE=1 RENAME_EXCHANGE=2 RENAME_WHITEOUT=4",
    ("newfstatat", "flag"): _AT, ("unlinkat", "flag"): _AT, ("faccessat2", "flags"): _AT, ("linkat", "flags"): _AT,
    ("statx", "flags"): _AT, ("execveat", "flags"): _AT, ("fchownat", "flag"): _AT,
    ("mmap", "prot"): _PROT, ("mprotect", "prot"): _PROT, ("mmap", "flags"): _MAP,
    ("clone", "clone_flags"): _CLONE, ("unshare", "unshare_flags"): _CLONE,
    ("access", "mode"): "F_OK=0/7 X_OK=1 W_OK=2 R_OK=4", ("faccessat", "mode"): "F_OK=0/7 X_OK=1 W_OK=2 R_OK=4",
    ("faccessat2", "mode"): "F_OK=0/7 X_OK=1 W_OK=2 R_OK=4",
    ("wait4", "options"): "WNOHANG=1 WUNTRACED=2 WCONTINUED=8 __WALL=0x40000000",
    ("waitid", "options"): "WNOHANG=1 WSTOPPED=2 WEXITED=4 WCONTINUED=8 WNOWAIT=0x1000000",
    ("umount2", "flags"): "MNT_FORCE=1 MNT_DETACH=2 MNT_EXPIRE=4 UMOUNT_NOFOLLOW=8",
    ("mount", "flags"): "MS_RDONLY=1 MS_NOSUID=2 MS_NODEV=4 MS_NOEXEC=8 MS_REMOUNT=32 MS_BIND=0x1000 MS_REC=0x4000",
    ("socket", "type"): _TYPE, ("socketpair", "type"): _TYPE,
    ("getrandom", "flags"): "GRND_NONBLOCK=1 GRND_RANDOM=2",
}  # fmt: skip
_ONE = {
    ("lseek", "whence"): "SEEK_SET=0 SEEK_CUR=1 SEEK_END=2 SEEK_DATA=3 SEEK_HOLE=4",
    ("fcntl", "cmd"): _FCNTL, ("ioctl", "cmd"): _IOCTL,
    ("socket", "family"): _SOCKET, ("socketpair", "family"): _SOCKET,
    ("rt_sigprocmask", "how"): "SIG_BLOCK=0 SIG_UNBLOCK=1 SIG_SETMASK=2",
    ("arch_prctl", "option"): "ARCH_SET_GS=0x1001 ARCH_SET_FS=0x1002 ARCH_GET_FS=0x1003 ARCH_GET_GS=0x1004",
    ("madvise", "behavior"): "MADV_NORMAL=0 MADV_RANDOM=1 MADV_WILLNEED=3 MADV_DONTNEED=4 MADV_FREE=8",
    ("clock_gettime", "which_clock"): _CLOCKS, ("clock_getres", "which_clock"): _CLOCKS,
    ("clock_settime", "which_clock"): _CLOCKS, ("clock_nanosleep", "which_clock"): _CLOCKS,
    ("timer_create", "which_clock"): _CLOCKS, ("timerfd_create", "clockid"): _CLOCKS,
    ("epoll_ctl", "op"): "EPOLL_CTL_ADD=1 EPOLL_CTL_DEL=2 EPOLL_CTL_MOD=3",
}  # fmt: skip
BY_RESULT = const(-1)
# Where a buffer's size is: the index of an argument, or BY_RESULT.
_BUFFERS = {
    ("read", "buf"): -1, ("pread64", "buf"): -1, ("write", "buf"): 2, ("pwrite64", "buf"): 2, ("sendto", "buff"): 2,
    ("recvfrom", "ubuf"): -1, ("readlink", "buf"): -1, ("readlinkat", "buf"): -1, ("getcwd", "buf"): -1,
}  # fmt: skip
_SIGNAL_ARGUMENTS = ("sig", "signum")
_OCTAL = ("umode_t", "mode_t")
_AT_FDCWD = const(-100)
_POINTERS = ("mmap", "brk", "mremap", "shmat")  # calls whose result is an address


def show(call, type, name, value):
    """An argument of a call, as text."""
    from vmm.insight.linux.calls import signed

    known = call.name, name
    if known in _BUFFERS and "*" in type:
        return _buffer(call, value, _BUFFERS[known])
    if "*" in type:
        return pointed(call, type, value)
    number = signed(type, value, call.old)
    if known in _BITS:
        return bits(_BITS[known], number)
    if known in _ONE:
        return _one(_ONE[known], number)
    if name in _SIGNAL_ARGUMENTS:
        return signal(number)
    if name.endswith("dfd") and number == _AT_FDCWD:
        return "AT_FDCWD"
    if type in _OCTAL:
        return "0%o" % number
    if type in ("unsigned long", "off_t", "loff_t") and number >= _ADDRESS or "flag" in name:
        return hex(number) if number else "0"
    return str(number)


def buffer_of(call, name):
    """Which argument is the size of a call's buffer, BY_RESULT, or None where it is no buffer."""
    return _BUFFERS.get((call, name))


def pointed(call, type, value):
    """A pointer as text: the string or strings that it points to, else the address."""
    if not value:
        return "NULL"
    space = call.space
    if space is not None:
        try:
            if type == "const char *":
                return quoted(_string(space, value))
            if type == "const char *const *":
                return _strings(space, value, 4 if call.old else 8)
        except ValueError:
            pass
    return hex(value)


def _string(space, gva):
    from vmm.insight.linux.calls import string

    return string(space, gva, _SHOWN + 1)


def _strings(space, gva, size):
    """size: bytes of a pointer."""
    found = []
    while len(found) < LISTED:
        at = space.number(gva, size)
        if not at:
            return "[%s]" % ", ".join(found)
        found.append(quoted(_string(space, at)))
        gva += size
    return "[%s, ...]" % ", ".join(found)


def _buffer(call, value, size):
    length = call.result if size < 0 else call.values[size]
    if value and call.space is not None and length is not None and 0 <= length < 1 << 31:
        try:
            return quoted(call.space.read(value, min(length, _SHOWN)), length > _SHOWN)
        except ValueError:
            pass
    return hex(value) if value else "NULL"


def quoted(data, more=False):
    """Bytes as a string in C; at most _SHOWN of them."""
    if len(data) > _SHOWN:
        data, more = data[:_SHOWN], True
    out = []
    for byte in data:
        if byte == 0x22 or byte == 0x5C:
            out.append("\\" + chr(byte))
        elif 0x20 <= byte < 0x7F:
            out.append(chr(byte))
        else:
            out.append({9: "\\t", 10: "\\n", 13: "\\r"}.get(byte) or "\\%o" % byte)
    return '"%s"%s' % ("".join(out), "..." if more else "")


def _pairs(words):
    """Yield (name, value, mask) of a text such as _OPEN."""
    for word in words.split():
        name, _, value = word.partition("=")
        value, _, mask = value.partition("/")
        value = int(value, 0)
        yield name, value, int(mask, 0) if mask else value


def bits(words, number):
    """Flags by name, those without a name in hexadecimal."""
    found = []
    for name, value, mask in _pairs(words):
        if number & mask == value and (mask or not number):
            found.append(name)
            number &= ~mask
    if number or not found:
        found.append(hex(number) if number else "0")
    return "|".join(found)


def _one(words, number):
    """A value by its name."""
    for name, value, _ in _pairs(words):
        if value == number:
            return name
    return hex(number) if number > 9 else str(number)


def signal(number):
    """The name of a signal, or its number as text."""
    names = _SIGNALS.split()
    return names[number - 1] if 0 < number <= len(names) else str(number)


def error(result):
    """The name of the error that a result is, or None."""
    if result is None or not -4095 <= result < 0:
        return None
    names = _ERRORS.split(" ")
    return names[-result - 1] if -result <= len(names) else _RESTARTS.get(-result, "error %d" % -result)


def result(name, number):
    """A result as text. number: signed, of 64 bits."""
    if number is None:
        return "?"
    said = error(number)
    if said is not None:
        return "-1 " + said if -number < 512 else "? " + said
    if name in _POINTERS:
        return hex(number & MASK64)
    return str(number)


def number_of(name):
    """The number of an error by its name. ValueError."""
    names = _ERRORS.split(" ")
    if name not in names or name == "-":
        raise ValueError("there is no error %s" % name)
    return names.index(name) + 1
