"""What vm.linux says of stacks, beside the guest's own /proc."""

_STACKS = """
def stacks(vm, pids):
    said = {}
    for pid in pids:
        stack = vm.linux.stack(pid)
        call = stack.call
        said[pid] = (stack.names(), call and [call.number] + call.values, {frame.how for frame in stack})
    return said
"""


def _proc_stacks(shell):
    """{pid: ([function+offset, ...], [number, arguments...] or None)}."""
    said = {}
    lines = shell.run("cd /proc; for p in ? [12]? $$; do echo @$p; cat $p/stack $p/syscall; done 2>/dev/null; cd")
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
    shell_pid = int(shell.run("echo $$"))
    assert f"task {shell_pid} (sh) in system call " in shell.monitor.eval(
        f"repr(vms['{guest}'].linux.stack({shell_pid}))"
    )
    idle = shell.monitor.eval(f"repr(vms['{guest}'].kernel.stack(vms['{guest}'].vcpu))")
    assert "registers\n" in idle
