"""gdb on a Linux by `pcanel gdb`: names and frames from its memory, tasks as threads, beside what the guest says."""

import contextlib
import io
import re
import shlex
import time

from gdb_session import Gdb
from pcanel.cli import main
from shell import PROMPT

RELEASES = r"(\w*blkdev\w*|bdev_release)"  # what calls lo_release, in Linux 6.1 and in 6.12


def check(shell, guest):
    """The guest has /loop.ko."""
    monitor = shell.monitor
    monitor.wait_booted()
    shell.run("insmod /loop.ko max_loop=1")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["gdb", "--run", monitor.run.id, "--print", guest]) == 0
    session = Gdb(shlex.split(said.getvalue())[1:])
    try:
        _check(shell, guest, session)
    finally:
        session.kill()
    shell.run("rmmod loop")
    assert shell.run("echo $((6 * 7))") == "42\n"
    left = f"(len(vms[{guest!r}].hidden), vms[{guest!r}].debugger, monitor.gdb.stub)"
    assert monitor.eval(left) == (0, None, None)


def _idle(session, cpus):
    """Frames of the processors, each of them idle: where gdb has stopped one at work, the guest goes on for a while."""
    for _ in range(10):
        frames = session("thread apply all bt")
        if frames.count(" in cpu_startup_entry ()") == cpus:
            break
        session.type("c")
        time.sleep(0.2)
        session.interrupt()
        session.wait()
    return frames


def _interrupted(session):
    """From the handler of a timer's interrupt, on the interrupts' stack, to the idle loop that it has interrupted."""
    session("delete", "break hrtimer_interrupt")
    session.type("c")
    for _ in range(10):
        stack = session.wait() + session("bt")
        assert re.search(r"#0 .* in hrtimer_interrupt \(\)\n#1 .* in __sysvec_apic_timer_", stack), stack
        assert "corrupt stack" not in stack and "signal handler" not in stack, stack
        if " in cpu_startup_entry ()" in stack:
            break
        session.type("c")
    assert re.search(r" in sysvec_apic_timer_interrupt \(\)\n.* in asm_sysvec_apic_timer_", stack), stack
    assert re.search(r" in do_idle \(\)\n.* in cpu_startup_entry \(\)\n", stack), stack


def _check(shell, guest, session):
    cpus = shell.monitor.eval(f"len(vms[{guest!r}].vcpus)")
    idle = _idle(session, cpus)
    assert idle.count(" in cpu_startup_entry ()") == cpus, idle
    assert re.search(" in (secondary|common)_startup_64(_no_verify)? ()", idle), idle
    session('break do_sys_openat2 if $_streq((char *)$rsi, "/proc/uptime")')
    session.type("c")
    shell.console.send("cat /proc/uptime\n")
    stack = session.wait() + session("bt", "x/s $rsi", "info threads")
    assert re.search(r"Breakpoint 1, 0x\w+ in do_sys_openat2 \(\)", stack), stack
    entry = r"#2 .* in do_syscall_64 \(\)\n#3 .* in entry_SYSCALL_64_after_hwframe \(\)\n#4 "
    assert re.search(r"#1 .* in __x64_sys_openat \(\)\n" + entry, stack), stack
    assert '"/proc/uptime"' in stack and f"({guest}: vCPU 0, 64-bit" in stack
    _interrupted(session)
    session("delete", "break lo_release")
    session.type("c")
    shell.console.expect(PROMPT)
    shell.console.send("head -c 1 /dev/loop0\n")
    stack = session.wait() + session("bt")
    assert re.search(rf"#0 .* in lo_release \(\)\n#1 .* in {RELEASES} \(\)\n", stack), stack
    assert "do_syscall_64" in stack, stack
    out = session("delete", "finish", "watch *(long *)&jiffies_64", "c", "bt 1")
    assert (
        re.search(rf"Run till exit.*\n.* in {RELEASES} \(\)", out)
        and "Hardware watchpoint" in out
        and "Old value" in out
    ), out
    out = session("monitor tasks on", "info threads")
    assert re.search(rf"\({guest}: init \(PID 1\)\) +0x\w+ in (__switch_to_asm|__schedule|.*) \(\)", out), out
    first = re.search(rf"^ +(\d+) +Thread [0-9.]+ \({guest}: init \(PID 1\)\)", out, re.MULTILINE)
    assert first, out
    stack = session(f"thread {first[1]}", "bt")
    assert " in schedule ()" in stack and "do_syscall_64" in stack, stack
    session("monitor tasks off", "delete", "detach")
    shell.console.expect(PROMPT)
