"""Events that one process narrows: their controls are armed while it runs, and at no other time."""

import time

_LOOP = "i=0; while [ $i -lt 20 ]; do busybox true; i=$((i + 1)); done"
_COSTLY = ("STEP", "STEP, branches=True", "RING", "RDTSC", "CR, number=3", "INVLPG", "EXCEPTION, vector=14")
_SECONDS = 5  # of the guest's time, within which what a process does is seen
# What is armed, of each vCPU: primary controls without the windows for events, and the exception bitmap.
_STATE = """
def state():
    controls = [vcpu.events.primary & ~(1 << 2 | 1 << 22) for vcpu in vm.vcpus]
    return controls, [vcpu.read(0x4004) for vcpu in vm.vcpus], len(vm.hidden), len(vm.policies)
"""


def _exits(monitor):
    return {name: count for name, (count, _) in monitor.eval("vm.exit_counts()").items()}


def _during(shell, command):
    """How many exits of each reason a command causes."""
    before = _exits(shell.monitor)
    shell.run(command)
    after = _exits(shell.monitor)
    return {name: after[name] - before.get(name, 0) for name in after}


def check(shell, guest):
    """On a guest with two processors."""
    monitor = shell.monitor
    monitor.exec(f"vm = vms[{guest!r}]\n{_STATE}")
    before = monitor.eval("state()")
    check_others(shell)
    check_rings(shell)
    check_tasks(shell)
    assert monitor.eval("state()") == before


def check_others(shell):
    """Other processes cause no exits, but for a breakpoint at each switch and each execve."""
    monitor = shell.monitor
    alone = _during(shell, _LOOP)
    watchers = ", ".join([f"vm.on({event}, comm='nobody')(lambda vcpu: None)" for event in _COSTLY])
    monitor.exec(f"held = [{watchers}]")
    watched = _during(shell, _LOOP)
    print(alone, watched)
    for name in ("RDTSC", "RDTSCP", "INVLPG", "INVPCID", "CONTROL_REGISTER_ACCESS"):
        assert watched.get(name, 0) == alone.get(name, 0) == 0, (name, watched)
    assert watched["MONITOR_TRAP_FLAG"] < 500 and watched["EXCEPTION_OR_NMI"] < 1500, watched
    assert monitor.eval("sum([one.hits for one in held])") == 0
    monitor.exec("for one in held: one.detach()")


def check_rings(shell):
    """The first changes of ring come soon, though each timer interrupt is stepped."""
    monitor = shell.monitor
    monitor.exec("rings, began = [], vm.clock.now()")
    monitor.exec(
        "@vm.on(RING, comm='busybox', limit=10)\n"
        "def ring(vcpu): rings.append((vcpu.task.comm, vcpu.cpl, vm.clock.now() - began))"
    )
    shell.console.send("busybox uname; echo status=$?\n")
    for _ in range(600):
        if not monitor.eval("ring.attached"):
            break
        time.sleep(0.2)
    rings = monitor.eval("rings")
    monitor.exec("ring.detach()")
    shell.console.expect(rb"status=0\n", 240)
    assert [row[:2] for row in rings] == [("busybox", level) for level in (3, 0) * 5], rings
    assert rings[-1][2] < _SECONDS * monitor.eval("vm.clock.hz"), rings


def check_tasks(shell):
    """By process, on either processor; a kernel thread, which has no page tables; one that gets its name later."""
    monitor = shell.monitor
    pid = int(shell.run("(while :; do :; done) & echo $!"))
    kernel = shell.run("cat /proc/[0-9]*/comm | grep -xE 'rcu_(sched|preempt)'").strip()
    seen = "[(vcpu.task.tgid, vcpu.task.comm)]"
    monitor.exec("seen, hits = {'pid': [], 'kernel': [], 'renamed': []}, {}")
    for name, filters in (("pid", f"pid={pid}"), ("kernel", f"comm={kernel!r}"), ("renamed", "comm='renamed'")):
        monitor.exec(
            f"@vm.on(STEP, limit=300, {filters})\ndef step(vcpu): seen[{name!r}] += {seen}\nhits[{name!r}] = step"
        )
    shell.run("sh -c 'printf renamed > /proc/$$/comm; i=0; while [ $i -lt 30 ]; do i=$((i + 1)); done'")
    for cpu in (0, 1):
        shell.run(f"taskset -p {1 << cpu:x} {pid}; sleep 1")
        for _ in range(100):
            if not monitor.eval("hits['pid'].attached"):
                break
            time.sleep(0.1)
        else:
            raise AssertionError(monitor.eval("hits"))
        monitor.exec(f"@vm.on(STEP, limit=300, pid={pid})\ndef step(vcpu): seen['pid'] += {seen}\nhits['pid'] = step")
    shell.run(f"kill {pid}; wait; sleep 1")
    monitor.exec("for name in hits: hits[name].detach()")
    found = monitor.eval("seen")
    assert {row[0] for row in found["pid"]} == {pid} and len(found["pid"]) >= 600
    assert [row[1] for row in found["kernel"]] == [kernel] * 300
    assert [row[1] for row in found["renamed"]] == ["renamed"] * 300
