"""Break in Debian's kernel by name, a backtrace, steps, a watch on a global, as a person at the prompt does it."""

import time

from shell import PROMPT


def check(shell, guest):
    monitor = shell.monitor
    vm = f"vms['{guest}']"
    ask = monitor.eval

    def wait():
        for _ in range(200):
            if ask(f"{vm}.state") == "paused":
                return ask(f"{vm}.why")
            time.sleep(0.1)
        raise AssertionError(ask(f"repr({vm})"))

    made = ask(f"repr({vm}.break_at('do_sys_openat2', comm='cat', once=True))")
    number = int(made.split()[1])  # of the guest's breakpoints and watches so far
    assert made == f"<breakpoint {number} at do_sys_openat2: 0 hits, enabled, comm='cat' once>"
    shell.console.send("cat /proc/sys/kernel/ostype\n")
    assert f"breakpoint {number} at 0x" in wait() and "do_sys_openat2 on vCPU" in ask(f"{vm}.why")
    assert ask(f"{vm}.stopped.task.comm") == "cat"
    assert "do_sys_openat2" in ask("repr(vms)")
    assert f"[pcanel: {guest} is paused: breakpoint {number} at 0x" in shell.monitor.console(guest).text()
    trace = ask(f"repr({vm}.backtrace())")
    print(trace)
    lines = trace.splitlines()
    assert lines[0].endswith("by ORC") and lines[1].endswith(" do_sys_openat2")
    assert "__x64_sys_open" in lines[2] and "do_syscall_64" in trace and "(user mode)" in trace
    assert ask(f"{vm}.args()[0]") == 0xFFFFFF9C and ask(f"{vm}.args()[1] == {vm}.stopped.rsi")  # AT_FDCWD
    assert ask(f"repr({vm}.args(0))").startswith("(0x")
    check_unknown_code(monitor, vm, lines)
    listing = ask(f"repr({vm}.disassemble('do_sys_openat2', 12))")
    assert listing.startswith("do_sys_openat2:\n=> 0xffffffff")
    stop = ask(f"repr({vm}.step())")
    assert "do_sys_openat2+0x" in stop
    stop = ask(f"repr({vm}.finish())")
    print(stop)
    assert "__x64_sys_open" in stop and f"returned {ask(f'{vm}.result()'):#x}" in stop
    monitor.exec(f"{vm}.watch('jiffies_64', 8, once=True)\n{vm}.resume()")
    assert f"watch {number + 1} at 0x" in wait()
    said = ask(f"{vm}.messages[-1]")
    print(said)
    old, new = said.split(": ")[1].split(",")[0].split(" -> ")
    assert int(new, 16) > int(old, 16) and ("tick" in said or "do_timer" in said)
    check_finish(monitor, vm, wait)
    walk = ask(f"repr({vm}.walk('linux_banner', 'w'))")
    assert "PML4E at" in walk and "RW = 0, and CR0.WP = 1" in walk
    assert "asm_exc_page_fault" in ask(f"repr({vm}.idt())") and "IST1" in ask(f"repr({vm}.tss())")
    assert ask(f"len({vm}.breakpoints)") == 0
    monitor.exec(f"{vm}.resume()")
    shell.console.expect(rb"Linux\n", 120)
    shell.console.expect(PROMPT, 60)
    assert shell.run("echo $((6 * 7))") == "42\n"
    at = f"{vm}.vcpu.poke({vm}.symbols['panic_cpu'], %r)"
    assert "panicked" not in ask(f"repr({vm}.explain())")
    monitor.exec(at % b"\1\0\0\0")  # as if it had
    assert ask(f"repr({vm}.explain())").startswith("the kernel has panicked, on processor 1; vm.linux.dmesg() has")
    monitor.exec(at % b"\xff\xff\xff\xff")


def check_unknown_code(monitor, vm, lines):
    """As if NULL had been called there, or code that no table knows: the callers are found all the same."""
    at, below = monitor.eval(f"({vm}.stopped.rip, {vm}.stopped.rsp - 0x400)")
    monitor.exec(f"{vm}.stopped.poke({below:#x}, b'\\x0f\\x1f\\x44\\0\\0')")  # as a BPF program begins
    for rip in (0, below):
        monitor.exec(f"{vm}.stopped.rip = {rip:#x}")
        trace = monitor.eval(f"repr({vm}.backtrace({vm}.stopped))")
        monitor.exec(f"{vm}.stopped.rip = {at:#x}")
        assert trace.splitlines()[1].startswith(f"#0  {rip:#018x}") and trace.splitlines()[2:] == lines[2:], trace


def check_finish(monitor, vm, wait):
    """Out of the handler of an interrupt, which has a stack of its own, back to the interrupted task's."""
    monitor.exec(f"{vm}.break_at('tick_sched_timer', once=True)\n{vm}.resume()")
    assert "tick_sched_timer" in wait()
    names = []
    while not names or not names[-1].startswith("asm_"):
        stop = monitor.eval(f"repr({vm}.finish())")
        assert " returned 0x" in stop.replace("\n", " ") and len(names) < 20, (names, stop)
        names.append(stop.split()[4].partition("+")[0])
    assert names[-2].partition("sysvec_")[1:] == names[-1].partition("sysvec_")[1:], names
