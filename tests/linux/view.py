"""What vm.linux says of stacks, processes and sockets, beside the guest's own /proc."""

import ipaddress
import time

_STACKS = """
def stacks(vm, pids):
    said = {}
    for pid in pids:
        stack = vm.linux.stack(pid)
        call = stack.call
        said[pid] = (stack.names(), call and [call.number] + list(call.values), {frame.how for frame in stack})
    return said
"""


def _proc_stacks(shell):
    """{pid: ([function+offset, ...], [number, arguments...] or None)}."""
    said = {}
    lines = shell.run("cd /proc; for p in ? [12]? $(pidof sleep); do echo @$p; cat $p/stack $p/syscall; done; cd")
    for part in lines.split("@")[1:]:
        pid, *rows = part.splitlines()
        names = [row.split()[1].partition("/")[0] for row in rows if row.startswith("[<0>]")]
        call = rows[-1].split() if rows else []
        entered = len(call) == 9 and names and names[-1].startswith("entry_")  # zeros for a kernel thread
        said[int(pid)] = (names, [int(word, 0) for word in call[:7]] if entered else None)
    return said


def check_stacks(shell, guest):
    """Stacks end as /proc/PID/stack does, which leaves the scheduler's own functions out; so do system calls."""
    shell.monitor.exec(_STACKS)
    shell.run("(sleep 1000 &)")
    wrong = None
    for _ in range(3):  # a task may run in between, but not each time
        theirs = _proc_stacks(shell)
        ours = shell.monitor.eval(f"stacks(vms['{guest}'], {list(theirs)})", timeout=300)
        lasting = [pid for pid in theirs if theirs[pid][0] and "rcu_gp_kthread" not in str(theirs[pid])]
        seen = {}
        for pid in lasting if wrong is None else wrong:
            names, call = theirs[pid]
            if ours[pid][0][-len(names) :] != names or (call and call != ours[pid][1]):
                seen[pid] = ours[pid], theirs[pid]
        wrong = seen
        if not wrong:
            break
    assert len(lasting) > 10 and not wrong, wrong
    assert set().union(*[how for _, _, how in ours.values()]) <= {"registers", "saved", "orc"}
    assert any(call and len(call) == 7 for _, call in theirs.values())
    shell_pid = int(shell.run("killall sleep; echo $$"))
    assert f"task {shell_pid} (sh) in system call " in shell.monitor.eval(
        f"repr(vms['{guest}'].linux.stack({shell_pid}))"
    )
    idle = shell.monitor.eval(f"repr(vms['{guest}'].kernel.stack(vms['{guest}'].vcpu))")
    assert "registers\n" in idle


def _rows(text, skip=0):
    return [line.split() for line in text.splitlines()[skip:]]


def _maps(text):
    rows = []
    for line in text.splitlines():
        range_, perm, offset, device, inode, *path = line.split(None, 5)
        start, _, end = range_.partition("-")
        rows.append((int(start, 16), int(end, 16), perm, int(offset, 16), device, int(inode), *(path or [""])))
    return rows


def check_processes(shell, guest):
    """Threads, files, mappings, mounts and memory of the shell, running and paused."""
    vm = f"vms['{guest}']"
    ask = shell.monitor.eval
    shell.monitor.exec("def refused(f):\n try: f()\n except ValueError as error: return str(error)")

    def table(code):
        return [tuple(row) for row in ask(f"[tuple(row) for row in {vm}.linux.{code}]")]

    pid = int(shell.run("exec 7</etc/passwd 8>/tmp/gone; rm /tmp/gone; echo $$"))

    threads = [line.split()[0] for line in shell.run(f"ls /proc/{pid}/task").splitlines()]
    assert [str(row[0]) for row in table(f"threads({pid})")] == threads
    links = {}
    for line in shell.run(f"ls -l /proc/{pid}/fd").splitlines()[1:]:
        number, _, path = line.partition(" -> ")
        links[int(number.split()[-1])] = path
    files = table(f"files({pid})")
    assert {row[0]: row[3] for row in files} == links
    assert links[8] == "/tmp/gone (deleted)"
    modes = {row[0]: row[1] for row in files}
    assert (modes[7], modes[8]) == ("r", "w")

    for number in (1, pid):
        assert table(f"maps({number})") == _maps(shell.run(f"cat /proc/{number}/maps"))
    assert table("maps(2)") == []
    shell.monitor.exec(f"{vm}.pause()")
    start = ask(f"{vm}.linux.maps({pid})[0][0]")
    assert ask(f"{vm}.linux.read({pid}, {start}, 4)") == b"\x7fELF"
    assert ask(f"{vm}.linux.threads({pid})[0][2]") == "sh"
    shell.monitor.exec(f"{vm}.resume()")

    mounts = [(*row[:3], row[3].split(",")) for row in _rows(shell.run("cat /proc/mounts"))]
    ours = table("mounts()")
    assert [row[:3] for row in ours] == [row[:3] for row in mounts]
    assert all(set(row[3].split(",")) <= set(other[3]) for row, other in zip(ours, mounts, strict=True))

    for code, line in (
        (f"read({pid}, 0x1000, 4)", f"gva 0x1000: process {pid} (sh) has nothing mapped there"),
        ("read(2, 0x1000, 4)", "task 2 (kthreadd) is a kernel thread: it has no memory of its own"),
        ("files(99999)", "no process has PID 99999"),
    ):
        said = ask(f"refused(lambda: {vm}.linux.{code})")
        assert said == line
    stack = [row for row in table(f"maps({pid})") if row[6] == "[stack]"][0]
    assert "[stack], but not in memory: not touched yet, or paged out" in ask(
        f"refused(lambda: {vm}.linux.read({pid}, {stack[0]}, 4))"
    )


def _address(text):
    """Of /proc/net/tcp and its like, as the monitor prints it."""
    host, _, port = text.partition(":")
    data = b"".join(bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8))
    if len(data) == 4:
        return str(ipaddress.ip_address(data)), int(port, 16)
    return f"[{ipaddress.ip_address(data)}]", int(port, 16)


def _internet_sockets(shell):
    """(protocol, state, local address, peer, inode) of each, as /proc has them."""
    found = set()
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for row in _rows(shell.run(f"cat /proc/net/{protocol}"), 1):
            local, peer = _address(row[1]), _address(row[2])
            state = {1: "ESTAB", 6: "TIME-WAIT", 7: "UNCONN", 10: "LISTEN"}.get(int(row[3], 16), row[3])
            found.add((protocol, state, "%s:%d" % local, f"{peer[0]}:{peer[1] or '*'}", int(row[9])))
    return found


def check_sockets(shell, guest):
    """What listens, is connected or bound."""
    shell.run("ifconfig lo up; httpd -p 127.0.0.1:80; httpd -p 8080; syslogd -R 127.0.0.1")
    shell.run("(sleep 1000 | nc 127.0.0.1 80 > /dev/null 2>&1 &)")
    for _ in range(60):  # nc connects, and syslogd sends, when they come to it; nothing may change between the looks
        shell.run("logger hello")
        before = _internet_sockets(shell)
        ours = [tuple(row) for row in shell.monitor.eval(f"[tuple(row) for row in vms['{guest}'].linux.sockets()]")]
        theirs = _internet_sockets(shell)
        kinds = {row[:2] for row in theirs}
        if before == theirs and kinds >= {("tcp", "ESTAB"), ("tcp", "LISTEN")} and "udp" in {row[0] for row in theirs}:
            break
        time.sleep(0.5)
    else:
        raise AssertionError(f"the guest's programs have not come to their sockets, or its sockets change: {theirs}")
    unix = {(int(row[6]), *row[7:]) for row in _rows(shell.run("cat /proc/net/unix"), 1)}
    netlink = {int(row[9]) for row in _rows(shell.run("cat /proc/net/netlink"), 1)}
    assert {row for row in ours if row[0][:3] in ("tcp", "udp")} == theirs and len(theirs) >= 4
    assert {(row[4], *([row[2]] if row[2] != "*" else [])) for row in ours if row[0].startswith("u_")} == unix
    assert any("/dev/log" in row for row in unix)
    assert {row[4] for row in ours if row[0] == "nl"} == netlink
    shell.run("killall httpd syslogd sleep nc; true")
