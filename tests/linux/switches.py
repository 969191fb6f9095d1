"""Event SWITCH on a running Linux: each task that comes follows the one that left."""

import pytest
from pcanel.repl import RemoteError

_RECORD = """
linux = vms[NAME]; seen = []; pids = []; tables = []
@linux.on(SWITCH)
def every(vcpu):
    task, previous = vcpu.task, vcpu.previous
    if len(seen) < 200: seen.append((vcpu.number, previous.pid, task.pid, task.comm))
@linux.on(SWITCH, pid=PID, limit=5)
def one(vcpu): pids.append((vcpu.task.tgid, vcpu.task.comm))
@linux.on(SWITCH, cr3=linux.linux.task(PID).mm.pgd and linux.kernel.space.translate(int(linux.linux.task(PID).mm.pgd)))
def table(vcpu): tables.append(vcpu.cr3)
"""


def check(shell, guest):
    monitor = shell.monitor
    pid = int(shell.run("echo $$"))
    monitor.exec(_RECORD.replace("NAME", repr(guest)).replace("PID", str(pid)))
    shell.run("for i in 1 2 3 4; do /bin/busybox true; done")
    monitor.exec("every.detach(); one.detach(); table.detach()")
    seen, pids = monitor.eval("seen"), monitor.eval("pids")
    print(seen[:10], pids, monitor.eval("[every.hits, table.hits]"))
    assert len(seen) > 30 and pids == [(pid, "sh")] * 5
    for number in (0, 1):
        own = [row for row in seen if row[0] == number]
        assert all(before[2] == after[1] for before, after in zip(own, own[1:], strict=False)), own
    comms = {row[3] for row in seen}
    assert "sh" in comms and any(name.startswith("swapper/") for name in comms)
    assert monitor.eval("table.hits") > 3
    with pytest.raises(RemoteError, match="ValueError: switch has no filter number="):
        monitor.exec(f"vms[{guest!r}].on(SWITCH, number=3)")
    assert monitor.eval(f"len(vms[{guest!r}].policies)") == 0
