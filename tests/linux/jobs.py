"""The jobs that README shows, as they stand there; breakpoints and watches are debugger.py's."""

from pcanel.repl import RemoteError

_RELEASE = "vm.object('struct uts_namespace', vm.symbols.init_uts_ns).at_('name.release')"
_MODEL = "vm.kernel.per_cpu('cpu_info', 0).at_('x86_model_id')"


def check(shell, guest):
    monitor = shell.monitor
    monitor.exec(f"vm = vms[{guest!r}]")
    shell.run("mkfifo /tmp/pipe; /bin/busybox cat /tmp/pipe & echo started")
    hung = monitor.eval("[row[0] for row in vm.linux.ps() if row[3] in ('cat', 'busybox')]")
    assert len(hung) == 1, hung
    stack = monitor.eval(f"repr(vm.linux.stack({hung[0]}))")
    assert "in system call 257: openat(" in stack and "fifo_open+0x" in stack, stack
    shell.run("echo > /tmp/pipe; rm /tmp/pipe; wait")

    pid = int(shell.run("echo $$"))
    monitor.exec(f"from recipes import files\no = files.opens(vm, pid={pid})")
    shell.run("echo 43 > /tmp/answer")
    opened = monitor.eval("repr(o)")
    monitor.exec("o.stop()")
    assert f'sh[{pid}] openat(dfd=AT_FDCWD, filename="/tmp/answer", flags=O_WRONLY|O_CREAT|O_TRUNC' in opened, opened

    kept = monitor.eval(f"(bytes(vm.vcpu.peek({_RELEASE}, 64)), bytes(vm.vcpu.peek({_MODEL}, 64)))")
    monitor.exec(f"vm.vcpu.poke({_RELEASE}, b'7.0-mine\\0')\nvm.vcpu.poke({_MODEL}, b'Pcanel 5000\\0')")
    said = shell.run("uname -r; grep 'model name' /proc/cpuinfo")
    monitor.exec("vm.symbols.forget()")
    assert monitor.eval("vm.symbols.at(vm.symbols['do_sys_openat2'])") == "do_sys_openat2"  # it is known all the same
    monitor.exec(f"vm.vcpu.poke({_RELEASE}, {kept[0]!r})\nvm.vcpu.poke({_MODEL}, {kept[1]!r})")
    assert said.startswith("7.0-mine\nmodel name\t: Pcanel 5000\n"), said
    assert not shell.run("uname -r").startswith("7.0-mine")
    try:
        monitor.eval("vm.linux.stack(4000000)")
    except RemoteError as error:
        assert "KeyError" in error.traceback or "ValueError" in error.traceback
    else:
        raise AssertionError
