"""How arguments of system calls look: flags by name, and 0 where there is none."""

import pytest

from vmm.insight.linux import values


class Called:
    """What show() asks of a call."""

    space = None
    result = None
    old = False

    def __init__(self, name, *numbers):
        self.name = name
        self.values = numbers


def shown(call, name, number, type="int"):
    return values.show(Called(call, number), type, name, number)


@pytest.mark.parametrize(
    "call, flags",
    [
        ("pipe2", {0x80000: "O_CLOEXEC", 0x84800: "O_NONBLOCK|O_DIRECT|O_CLOEXEC"}),
        ("dup3", {0x80000: "O_CLOEXEC"}),
        ("accept4", {0x80800: "SOCK_NONBLOCK|SOCK_CLOEXEC"}),
        ("eventfd2", {1: "EFD_SEMAPHORE", 0x80800: "EFD_NONBLOCK|EFD_CLOEXEC"}),
        ("epoll_create1", {0x80000: "EPOLL_CLOEXEC"}),
        ("inotify_init1", {0x80800: "IN_NONBLOCK|IN_CLOEXEC"}),
        ("signalfd4", {0x80000: "SFD_CLOEXEC"}),
        ("timerfd_create", {0x800: "TFD_NONBLOCK"}),
        ("timerfd_settime", {1: "TFD_TIMER_ABSTIME"}),
        ("clock_nanosleep", {1: "TIMER_ABSTIME"}),
        ("memfd_create", {3: "MFD_CLOEXEC|MFD_ALLOW_SEALING"}),
        ("userfaultfd", {0x80001: "UFFD_USER_MODE_ONLY|O_CLOEXEC"}),
        ("pidfd_open", {0x800: "PIDFD_NONBLOCK"}),
        ("close_range", {4: "CLOSE_RANGE_CLOEXEC"}),
        ("renameat2", {1: "RENAME_NOREPLACE"}),
        ("getrandom", {1: "GRND_NONBLOCK"}),
        ("umount2", {2: "MNT_DETACH"}),
    ],
)
def test_flags(call, flags):
    """Those of no flag at all are 0, with no name of a way to open; a bit without a name is a number."""
    assert shown(call, "flags", 0) == "0"
    for number, text in flags.items():
        assert shown(call, "flags", number) == text
    assert shown(call, "flags", 0x40000000) == "0x40000000"


def test_flags_under_other_names():
    assert shown("unlinkat", "flag", 0) == "0"
    assert shown("unlinkat", "flag", 0x200) == "AT_REMOVEDIR"
    assert shown("wait4", "options", 0) == "0"
    assert shown("unshare", "unshare_flags", 0, "unsigned long") == "0"


def test_ways_to_open_have_a_name_for_0():
    assert shown("openat", "flags", 0) == "O_RDONLY"
    assert shown("openat", "flags", 0x80002) == "O_RDWR|O_CLOEXEC"
    assert shown("open_by_handle_at", "flags", 0) == "O_RDONLY"
    assert shown("mmap", "prot", 0, "unsigned long") == "PROT_NONE"
    assert shown("access", "mode", 0) == "F_OK"


def test_one_of_several():
    assert shown("epoll_ctl", "op", 3) == "EPOLL_CTL_MOD"
    assert shown("timerfd_create", "clockid", 7) == "CLOCK_BOOTTIME"
    assert shown("clock_gettime", "which_clock", 12, "const clockid_t") == "0xc"
