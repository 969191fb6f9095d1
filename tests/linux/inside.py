"""vm.type(), vm.object() and vm.linux beside the guest's own /proc."""

import re

import pytest
import vtx
from pcanel.bench import inside as bench_inside
from pcanel.bench.measures import INSIDE
from pcanel.repl import RemoteError


def check_costs(shell, guest):
    """Ticks and heap of first questions and later ones are those that are promised (pcanel bench --inside)."""
    costs = bench_inside.costs(shell.monitor, guest)
    print(costs)
    goals = {measure.name: measure.goal for measure in INSIDE if measure.unit == "bytes" or vtx.engine() == "bochs"}
    assert {name: costs[name] for name in goals if costs[name] > goals[name]} == {}


def check(shell, guest):
    """Processes, log, modules and arguments are what the guest's own tools say."""
    vm = f"vms['{guest}']"
    ask = shell.monitor.eval
    assert ask(f"{vm}.object('char [14]', {vm}.symbols['linux_banner'])") == "Linux version "

    said = {}
    for line in shell.run("cat /proc/[0-9]*/stat").splitlines():
        pid, _, rest = line.partition(" (")
        comm, _, rest = rest.rpartition(") ")
        state, ppid = rest.split()[:2]
        said[int(pid)] = (int(ppid), state, comm)
    seen = {pid: tuple(rest) for pid, *rest in ask(f"[tuple(row) for row in {vm}.linux.ps()]")}
    lasting = {pid for pid in said if not said[pid][2].startswith(("kworker", "cat"))}
    assert {1, 2} < lasting and len(lasting) > 20 and lasting <= set(seen)
    different = {pid: (seen[pid], said[pid]) for pid in lasting if seen[pid][::2] != said[pid][::2]}
    assert different == {}, different
    # One that runs at the one moment sleeps at the other.
    quiet = [pid for pid in lasting if "R" not in (seen[pid][1], said[pid][1])]
    assert [(seen[pid], said[pid]) for pid in quiet if seen[pid] != said[pid]] == []

    count = int(shell.run("dmesg | wc -l"))
    log = ask(f"str({vm}.linux.dmesg()).split('\\n')[-20:]")
    assert shell.run("dmesg | tail -n 20").splitlines() == log
    assert ask(f"str({vm}.linux.dmesg()).count('\\n') + 1") == count

    modules = [line.split()[:3] for line in shell.run("cat /proc/modules").splitlines()]
    assert ask(f"[tuple(row) for row in {vm}.linux.modules()]") == [
        (n, int(size), int(used)) for n, size, used in modules
    ]

    pid = int(shell.run("echo $$"))
    for number in (1, pid):
        arguments = shell.run(f"tr '\\0' '\\n' < /proc/{number}/cmdline").splitlines()
        assert ask(f"{vm}.linux.cmdline({number})") == arguments
    assert ask(f"{vm}.linux.cmdline(2)") == []
    assert ask(f"{vm}.linux.task({pid}).mm.mm_users.counter") >= 1
    assert ask(f"{vm}.linux.task({pid}).real_parent.pid") == said[pid][0]
    assert "comm = 'kthreadd'" in ask(f"repr({vm}.linux.task(2))")
    again = f"{vm}.container_of({vm}.linux.task(1).at_('tasks'), 'struct task_struct', 'tasks')"
    assert ask(f"{again}.pid") == 1
    assert ask(f"repr({vm}.type('struct list_head'))").startswith(
        "struct list_head {  // 16 bytes\n    0x0 struct list"
    )


def typed(monitor, line):
    """What the prompt prints of a line that a person types."""
    console = monitor.console("repl")
    console.send("\r")
    console.expect(r"\n>>> $", 60)
    console.send(line + "\r")
    return console.expect(re.escape(line) + r"\n((?s:.*?))>>> ", 60).group(1).decode()


def check_refusals(shell, guest):
    """One line each, and the guest runs on."""
    vm = f"vms['{guest}']"
    for code, line in (
        (f"{vm}.type('struct nope')", "ValueError: the guest's BTF has no type struct nope"),
        (f"{vm}.linux.task(1).nope", "AttributeError: struct task_struct has no member nope"),
        (f"{vm}.linux.task(99999)", "ValueError: no process has PID 99999"),
        (f"{vm}.object('int', 0x1000)", "ValueError: gva 0x1000 is not mapped"),
        (f"{vm}.linux.task(2).mm.pgd", "ValueError: struct mm_struct \\* is NULL: no pgd"),
    ):
        with pytest.raises(RemoteError, match=line + "$"):
            shell.monitor.exec(code)
        assert re.fullmatch(line + "\n", typed(shell.monitor, code))
    data = r"jiffies(\+0x8)? is data: no code is executed there \(the address, 0xffffffff8[0-9a-f]{7}, is taken .*\)"
    for code in ("break_at('jiffies')", "break_at('jiffies+0x8')", "on(CALL, at='jiffies')", "on(RETURN, at='jiffies')",
                 "on(EXECUTE, at='jiffies', size=4)"):  # fmt: skip
        said = typed(shell.monitor, f"{vm}.{code}")
        assert re.fullmatch(f"ValueError: (at='jiffies': )?{data}\n", said), said
    shell.monitor.exec(f"{vm}.pause()")
    with pytest.raises(RemoteError, match=f"ValueError: {data}$"):
        shell.monitor.exec(f"{vm}.until('jiffies')")
    shell.monitor.exec(f"{vm}.break_at({vm}.symbols['jiffies']).remove()\n{vm}.resume()")  # by its address it is
    assert shell.monitor.eval(f"{vm}.on(READ, at='jiffies')(lambda vcpu: None).detach()") is None
    said = typed(shell.monitor, f"{vm}.break_at('vfs_raed')")
    assert re.fullmatch(r"KeyError: no symbol vfs_raed; there are vfs_read, \w+, \w+\n", said), said
    assert shell.run("echo $((6 * 7))") == "42\n"
