"""System calls and tasks as the monitor sees them, beside what a program in the guest does."""

import pytest
from pcanel.repl import RemoteError

_BEGIN = """
vm = vms[%r]
entered, left = [], []
@vm.on(SYSCALL, comm='ls')
def enters(vcpu):
    call = vcpu.syscall
    entered.append((vcpu.task.tgid, call.name, call.args, repr(call)))
@vm.on(SYSRET, comm='ls')
def leaves(vcpu):
    call = vcpu.syscall
    left.append((vcpu.task.tgid, call.name, call.result, call.error))
"""


def check(shell, guest):
    """Calls, arguments and results of one program; answers instead of the kernel's; and nothing stays behind."""
    monitor = shell.monitor
    monitor.exec(f"vm = vms[{guest!r}]\nlstar = vm.vcpu.msr(0xC0000082)")
    monitor.exec(_BEGIN % guest)
    pid = int(shell.run("sh -c 'echo $$; exec ls /bin/busybox /nowhere' 2> /dev/null || true").split()[0])
    entered, left = monitor.eval("entered"), monitor.eval("left")
    monitor.exec("enters.detach(); leaves.detach()")
    assert {row[0] for row in entered} == {pid}
    # The call that gives the name is left under it (busybox: prctl); exit_group never returns.
    assert left[0][1] in ("execve", "prctl") and left[0][2:] == (0, None)
    assert [name for _, name, _, _ in entered][:-1] == [name for _, name, _, _ in left][1:]
    assert entered[-1][1] == "exit_group"
    looks = [text for _, name, _, text in entered if name in ("newfstatat", "lstat", "statx")]
    assert any('filename="/nowhere"' in text for text in looks) and any('"/bin/busybox"' in text for text in looks)
    assert [row[3] for row in left if row[1] in ("newfstatat", "lstat", "statx")].count("ENOENT") == 1
    said = [text for _, name, args, text in entered if name == "write" and args[0] == 1]
    assert any('buf="/bin/busybox\\n"' in text for text in said), said

    for event in ("SYSCALL", "SYSRET"):
        monitor.exec(
            f"@vm.on({event}, number=['mkdir', 'mkdirat'], pid=1)\ndef other(vcpu): pass\n"
            f"@vm.on({event}, number='mkdir')\ndef denied(vcpu): return Value(-13)"
        )
        assert "Permission denied" in shell.run("mkdir /tmp/denied 2>&1 || true")
        assert shell.run("mkdir /tmp/allowed && rmdir /tmp/allowed || echo not") == "mkdir: can't create " + (
            "directory '/tmp/allowed': Permission denied\nnot\n"
        )
        assert monitor.eval("(denied.hits, other.hits)") == (2, 0)
        monitor.exec("denied.detach(); other.detach()")
        shell.run("rmdir /tmp/denied /tmp/allowed 2>/dev/null; mkdir /tmp/allowed && rmdir /tmp/allowed")
    assert monitor.eval("vm.vcpu.msr(0xC0000082) == lstar")
    assert monitor.eval("len(vm.hidden)") == 0


def check_forks(shell):
    """A child's own way back is seen, too."""
    monitor = shell.monitor
    monitor.exec(
        "forks = []\n@vm.on(SYSRET, number=['clone', 'fork', 'vfork', 'clone3'])\ndef forked(vcpu):\n"
        "    forks.append((vcpu.task.tgid, vcpu.syscall.result))"
    )
    pid = int(shell.run("sh -c 'echo $$; (true) & wait'").split()[0])
    forks = monitor.eval("forks")
    monitor.exec("forked.detach()")
    child = next(result for who, result in forks if who == pid and result)
    assert (child, 0) in forks


_PIPES = "/tmp/caught /tmp/again"
_CAUGHT = "sh -c 'trap \"echo done\" USR1; (sleep 1; kill -USR1 $$) & read x < /tmp/caught; echo $?' 2>/dev/null; wait"
_AGAIN = "busybox cat /tmp/again & sleep 1; kill -STOP $!; sleep 1; kill -CONT $!; sleep 1; echo > /tmp/again; wait"


def check_signals(shell):
    """A call that a signal interrupts keeps its arguments, and has its result: where a handler comes first, and where
    the call is done again."""
    monitor = shell.monitor
    shell.run(f"mkfifo {_PIPES}")
    monitor.exec(
        "from recipes import files, strace\nseen = []\n"
        "opened, trace = files.opens(vm, comm='sh'), strace.trace(vm, comm='busybox', number='openat')\n"
        "@vm.on(SYSRET, number='openat', when=lambda vcpu: vcpu.task.comm in ('sh', 'busybox'))\n"
        "def leaves(vcpu): seen.append((vcpu.syscall.string(1), vcpu.syscall.result))"
    )
    assert "done\n1\n" in shell.run(_CAUGHT)
    shell.run(_AGAIN)
    monitor.exec("leaves.detach(); opened.stop(); trace.stop()")
    shell.run(f"rm {_PIPES}")
    seen = monitor.eval("seen")
    assert [result for path, result in seen if path == "/tmp/caught"] == [-4], seen
    assert [result for path, result in seen if path == "/tmp/again"][:2] == [-512, 3], seen
    lines = [line.partition("] ")[2] for line in monitor.eval("opened.lines + trace.lines")]
    text = 'openat(dfd=AT_FDCWD, filename="/tmp/%s", flags=O_RDONLY, mode=00) = %s'
    for end in (("caught", "-1 EINTR"), ("again", "? ERESTARTSYS"), ("again", "3")):
        assert lines.count(text % end) == 1, lines


def check_refusals(shell):
    """One line each."""
    for code, line in (
        ("vm.on(SYSCALL, number='opennat')", "ValueError: Linux has no system call opennat; there are open"),
        ("vm.on(SYSCALL, number='opneat')", "ValueError: Linux has no system call opneat; there are open"),
        ("vm.on(CALL, at='do_sys_openat2+z')", "ValueError: 'do_sys_openat2.z': an address, a symbol, or"),
        ("vm.on(RING, to=3, before=3)", "ValueError: to=3 and before=3: that is no change"),
        ("vm.linux.stack('sh')", "ValueError: 'sh' is no PID"),
        ("vm.linux.read(1, 0x400000, -1)", "ValueError: -1 bytes: a number from 0 up"),
        ("vm.vcpu.peek('jiffies', 8)", r"ValueError: 'jiffies' is no address: vm.symbols\['jiffies'\] is that"),
        ("vm.vcpu.poke(vm.symbols.jiffies, 8)", "ValueError: 8 are neither bytes nor a number of them"),
        ("vm.symbols.at('jiffies')", "ValueError: 'jiffies' is no address"),
        ("vm.exits.top('x')", r"ValueError: top\('x'\): how many rows"),
        ("__import__('recipes.keys', None, None, ['log']).log(vm, tty=5)", "ValueError: tty=5: a terminal's name"),
        ("__import__('recipes.firewall', None, None, ['deny']).deny(vm, ['x'])", "ValueError: msr='x': a number from"),
        ("vm.on(SYSCALL, number=[])", r"ValueError: number=\[\]: the list is empty"),
        ("vm.on(SYSCALL, comm='a name that is too long')", "ValueError: comm='a name .*: a str of 1 to 15 bytes"),
        ("vm.on(CPUID, pid=-1)", "ValueError: pid=-1: a number from 0"),
    ):
        with pytest.raises(RemoteError, match=line):
            shell.monitor.exec(code)
    shell.monitor.exec("from vmm.prompt.complete import complete")
    for typed, rest in (
        ('vm.on(CALL, at="do_sys_openat', '2"'), ("vm.on(SYSCALL, number=['read', 'fdatas", "ync'"),
        ("vm.linux.task(1).co", ""), ("task.real_par", "ent"), ("task.mm.pgta", "bles_bytes"),
    ):  # fmt: skip
        names = "dict(globals(), task=vm.linux.task(1))"
        assert shell.monitor.eval(f"complete({typed!r}, {names})") == rest, typed
    assert "comm" in shell.monitor.eval("dir(vm.linux.task(1))")


def check_names(shell, monitor):
    """A program may have any name: it is shown without control characters, and as bytes where it is no text."""
    monitor.exec("odd = files.opens(vm)")
    for name, shown in ((r"e\033[2J", r"e\x1b[2J"), (r"b\377", r"b'b\xff'")):
        shell.run(
            f"f=$(printf '/tmp/{name}'); printf '#!/bin/sh\\nread x < /etc/hostname\\n' > \"$f\"; chmod +x \"$f\"; "
            '"$f"; rm "$f"'
        )
        lines = [line for line in monitor.eval("odd.lines") if "/etc/hostname" in line]
        assert lines and lines[-1].startswith(shown + "["), (shown, lines)
    monitor.exec("odd.stop()")


def check_ring(shell, monitor):
    """A small ring keeps the newest calls, and tells how many records are gone; a call that waits is shown."""
    with pytest.raises(RemoteError, match="ValueError: size=5: a log has from 16384 to"):
        monitor.exec("strace.trace(vm, size=5)")
    monitor.exec("taken, numbers = len(vm._taken), ['write', 'read', 'poll']")
    monitor.exec("trace = strace.trace(vm, 0x4000, comm='sh', number=numbers)")
    shell.run("sh -c 'i=100; while [ $i -lt 300 ]; do echo $i > /dev/null; i=$((i + 1)); done'")
    lines, dropped = monitor.eval("(trace.lines, trace.dropped)")
    written = [line for line in lines if "write(fd=1" in line and line.endswith(" = 4")]
    written = [line.split('buf="')[1][:3] for line in written[1:]]  # of the first, the beginning may be gone
    assert written[-40:] == [str(i) for i in range(260, 300)] and len(written) < 190 < dropped, (written, dropped)
    waits = monitor.eval("trace.unfinished()")  # the shell at its prompt
    assert any("read(fd=0" in line or "poll(" in line for line in waits), waits
    assert all(line.endswith(" <unfinished ...>") for line in waits)
    monitor.exec("trace.stop()")
    assert monitor.eval("(trace.lines, trace.dropped, len(vm._taken) - taken)") == (lines, dropped, 0)


def check_names_that_change(shell):
    """A call that begins under the name has its end in the log, though execve gives the thread another one; calls of
    the new program are not in it."""
    monitor = shell.monitor
    monitor.exec("trace = strace.trace(vm, comm='sh', number=['execve', 'exit_group'])")
    pid = int(shell.run("sh -c 'echo $$; exec /bin/busybox true'"))
    lines, waits = monitor.eval("(trace.lines, trace.unfinished())")
    lines = [line for line in lines if line.startswith(f"[{pid}]")]
    assert len([line for line in lines if '"/bin/busybox"' in line]) == 1, lines
    assert lines[-1].endswith(" = 0") and '["/bin/busybox", "true"]' in lines[-1], lines
    assert waits == [], waits
    monitor.exec("trace.stop()")


def check_flags(shell):
    """A flag set without a flag is 0."""
    monitor = shell.monitor
    monitor.exec("trace = strace.trace(vm, comm='sh', number=['pipe', 'pipe2'])")
    assert shell.run("echo hello | cat") == "hello\n"
    lines = monitor.eval("trace.lines")
    assert lines and all(line.endswith(" = 0") and "RDONLY" not in line for line in lines), lines
    assert any("pipe2(" in line for line in lines) == any("flags=0)" in line for line in lines), lines
    monitor.exec("trace.stop()")


def check_faults(shell):
    """Every second call of a function fails."""
    monitor = shell.monitor
    monitor.exec("broken = faults.function(vm, 'do_filp_open', 'EIO', comm='cat', every=2)")
    said = shell.run("cat /tmp/in /tmp/in /tmp/in /tmp/in 2>&1 || true").splitlines()
    assert said.count("hello") == 2 and sum("I/O error" in line or "nput/output" in line for line in said) == 2, said
    monitor.exec("broken.detach()")


def check_recipes(shell, guest):
    """strace, files, faults, firewall on a running guest; what each has attached is gone afterwards."""
    monitor = shell.monitor
    monitor.exec(
        f"from recipes import faults, files, firewall, strace\nvm = vms[{guest!r}]\nbefore = len(vm.policies)\n"
        "trace, opened, begun = strace.trace(vm, comm='cat'), files.opens(vm, comm='cat'), files.execs(vm)"
    )
    assert shell.run("echo hello > /tmp/in; cat /tmp/in; /bin/busybox true one two") == "hello\n"
    lines = monitor.eval("trace.lines")
    assert monitor.eval("repr(trace).split('\\n') == trace.lines[-40:] and trace.unfinished() == []")
    assert any('"/tmp/in"' in line and " = 3" in line for line in lines), lines
    assert any(("write(fd=1" in line or "sendfile(out_fd=1" in line) and line.endswith(" = 6") for line in lines), lines
    assert "exit_group(error_code=0) = ?" in lines[-1]
    assert any("cat[" in line and '"/tmp/in"' in line for line in monitor.eval("opened.lines"))
    assert any('["/bin/busybox", "true", "one", "two"]' in line for line in monitor.eval("begun.lines"))
    check_names(shell, monitor)
    monitor.exec("for each in (trace, opened, begun): each.stop()")
    assert monitor.eval("trace.lines") == lines
    check_ring(shell, monitor)
    check_names_that_change(shell)
    check_flags(shell)
    monitor.exec("broken = faults.fail(vm, 'openat', 'EIO', every=2, comm='cat')")
    said = shell.run("cat /tmp/in /tmp/in /tmp/in /tmp/in 2>&1 || true").splitlines()
    assert said.count("hello") == 2 and sum("I/O error" in line or "nput/output" in line for line in said) == 2, said
    monitor.exec("broken.detach()")
    check_faults(shell)
    monitor.exec("wall = firewall.deny(vm, ports=[0x71])")
    shell.run("hwclock -r > /dev/null 2>&1 || true")
    assert "in 0x71: " in monitor.eval("repr(wall)")
    monitor.exec("wall.stop()")
    assert monitor.eval("len(vm.policies) == before")
    assert monitor.eval("len(vm.hidden)") == 0
