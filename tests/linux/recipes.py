"""Recipes that guard and look: kernel text and tables, modules, terminals, coverage, a heap."""

# memcpy of 8 bytes over sys_call_table, with CR0.WP clear, in place of sync; memcpy_orig is what guests use.
_INTRUDER = """
def overwrites(vcpu):
    vcpu.cr0 &= ~0x10000
    vcpu.rip = vm.symbols['memcpy_orig']
    vcpu.rdi, vcpu.rsi, vcpu.rdx = vm.symbols['sys_call_table'] + 8, vm.symbols['linux_banner'], 8
    return RETRY
def protects(vcpu):
    vcpu.cr0 |= 0x10000
def table(): return vm.kernel.space.read(vm.symbols['sys_call_table'], 64)
was = table()
intruder = vm.on(CALL, at='__x64_sys_sync', once=True)(overwrites), vm.on(SYSRET, number='sync')(protects)
"""


def check(shell, guest):
    """Each sees what a command does, the guest lives on, and nothing stays behind."""
    monitor = shell.monitor
    monitor.exec(f"from recipes import coverage, guard, heap, keys\nvm = vms[{guest!r}]\nbefore = len(vm.policies)")
    check_guards(shell)
    monitor.exec("k, c = keys.log(vm), coverage.of(vm, 'vfs_statx')")
    assert shell.run("stat / > /dev/null; echo sesame") == "sesame\n"
    shell.run("true")
    assert b"echo sesame" in monitor.eval("k.typed['ttyS0']")
    executed, known, missed = monitor.eval("(len(c.executed), len(c.addresses), c.missed)")
    assert 20 < executed < known, (executed, known)
    assert monitor.eval("(c.start in c.executed, len(vm.hidden))") == (True, known - executed + 1)  # one of keys
    assert missed[-1][1] == monitor.eval("c.end")
    assert "%d of %d instructions executed\n  not vfs_statx+0x" % (executed, known) in monitor.eval("repr(c)")
    monitor.exec("k.stop(); c.stop()")
    assert monitor.eval("(len(vm.policies) - before, len(vm.hidden))") == (0, 0)
    pid = int(shell.run("secret='open the door'; export secret; echo $$"))
    assert any("the door" in text for text in monitor.eval(f"heap.strings(heap.dump(vm, {pid}))"))
    assert shell.troubles() == []


def check_guards(shell):
    """Linux's own patches are noted; an intruder's write and a module are not let through."""
    monitor = shell.monitor
    monitor.exec("g = guard.kernel(vm, allow=True)")
    key = "/proc/sys/kernel/bpf_stats_enabled"  # a static key: text that Linux patches
    shell.run(f"echo 1 > {key}; echo 0 > {key}")
    rows = monitor.eval("[tuple(row[:3]) for row in g.rows]")
    assert rows and {part for part, _, _ in rows} == {"text"}
    start, end = monitor.eval("(vm.symbols['_stext'], vm.symbols['_etext'])")
    assert all(start <= gva < end for _, gva, _ in rows)
    monitor.exec(f"g.stop()\ng, m = guard.kernel(vm, text=False), guard.modules(vm)\n{_INTRUDER}")
    shell.run("sync")
    rows = monitor.eval("[(part, gva - vm.symbols['sys_call_table']) for part, gva, _, _ in g.rows]")
    assert rows and set(rows) == {("sys_call_table", 8)}  # it writes first and last 8 bytes
    assert monitor.eval("table() == was")
    assert "memcpy_orig" in monitor.eval("repr(g)")
    assert "Operation not permitted" in shell.run("insmod /loop.ko 2>&1 || true")
    assert monitor.eval("m.hits") >= 1
    monitor.exec("g.stop()\nfor each in intruder + (m,): each.detach()")
    shell.run("insmod /loop.ko && rmmod loop")
