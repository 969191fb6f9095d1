"""The symbols that the monitor finds in a Linux guest's memory, beside the guest's own /proc/kallsyms."""

import time

_COMPARE = """
def compare(known, rows):
    wrong = []
    for gva, name in rows:
        at = known.at(gva)
        same = known.all(name)
        right = gva in same and (len(same) > 1 or known[name] == gva)
        if gva >> 31 and right:  # not the offset of a per-CPU variable
            right = at is not None and gva in known.all(at)
        if not right:
            wrong.append((hex(gva), name, at))
    return wrong
"""


def differences(shell, guest, lines, step):
    """[(address, name, what the monitor says)] that differ, of every step-th of the first lines: the guest spells a
    hundred thousand for half a minute."""
    rows = _rows(shell, lines, step)
    assert len(rows) >= lines // step
    shell.monitor.exec(_COMPARE)
    return shell.monitor.eval(f"compare(vms['{guest}'].symbols, {rows!r})")


def _rows(shell, lines, step):
    rows = []
    for line in shell.run(f"head -n {lines} /proc/kallsyms | awk 'NR % {step} == 1'").splitlines():
        gva, _, name = line.split()
        rows.append((int(gva, 16), name))
    return rows


_KASLR_FLAG = 1 << 1  # of hdr.loadflags: the kernel's own word that it has chosen its addresses
_LINKED = 0xFFFFFFFF81000000


def check_moved(shell, guest):
    """With KASLR: nothing is where the kernel was linked to, and names, types and breakpoints hold."""
    monitor, vm = shell.monitor, f"vms['{guest}']"
    header = f"{vm}.object('struct boot_params', {vm}.symbols['boot_params']).hdr"
    assert monitor.eval(f"{header}.loadflags") & _KASLR_FLAG and "nokaslr" not in shell.run("cat /proc/cmdline")
    text = monitor.eval(f"{vm}.symbols['_text']")
    direct = monitor.eval(f"int({vm}.object('unsigned long', {vm}.symbols['page_offset_base']))")
    print(hex(text), hex(direct))
    assert (text - _LINKED) % (1 << 21) == 0 and text >= _LINKED
    assert f"{text:x} T _text\n" in shell.run("grep ' _text$' /proc/kallsyms")
    assert monitor.eval(f"[task.comm for task in {vm}.linux.tasks() if task.pid == 1]") == ["init"]
    monitor.exec(f"{vm}.break_at('do_sys_openat2', comm='cat', once=True)")
    shell.console.send("cat /proc/sys/kernel/ostype\n")
    deadline = time.monotonic() + 60
    while monitor.eval(f"{vm}.state") != "paused":
        assert time.monotonic() < deadline, monitor.eval(f"repr({vm})")
        time.sleep(0.1)
    trace = monitor.eval(f"repr({vm}.backtrace())")
    assert "do_sys_openat2" in trace and "do_syscall_64" in trace, trace
    monitor.exec(f"{vm}.resume()")
    shell.console.expect(rb"Linux\n", 120)
    shell.console.expect(rb"linux:~# ", 60)


_SEARCH = """
def searched(vm, rows):
    import cpu
    from vmm.insight import vmcoreinfo
    memory = vm.memory
    size = memory.segments[0][1]
    words = memory.view(0, size)
    kept = []
    page = vmcoreinfo._note(words, 0, size >> 12)
    while page < size >> 12:
        kept.append((page << 12, memory.read(page << 12, 4096)))
        page = vmcoreinfo._note(words, page + 1, size >> 12)
    said = []
    try:
        for change in (lambda data: data.replace(b"(kallsyms_", b"(hallsyms_"), lambda data: bytes(4096)):
            for gpa, data in kept:
                memory.write(gpa, change(data))
            vm.symbols.forget()
            began = cpu.rdtsc()
            len(vm.symbols)
            said.append((cpu.rdtsc() - began, vm.symbols._source._image.release, compare(vm.symbols, rows)))
    finally:
        for gpa, data in kept:
            memory.write(gpa, data)
        vm.symbols.forget()
    return said
"""


def check_search(shell, guest):
    """The tables are found without what VMCOREINFO says of them, as before Linux 6.0, and without VMCOREINFO, as early
    in a boot: it is changed in the guest's memory."""
    rows = _rows(shell, 3000, 100)
    shell.monitor.exec(_COMPARE + _SEARCH)
    said = shell.monitor.eval(f"searched(vms['{guest}'], {rows!r})")
    print([ticks for ticks, _, _ in said])
    release = shell.run("uname -r").strip()
    banner = shell.run("grep -c ' linux_banner$' /proc/kallsyms || true") != "0\n"  # Debian's 32-bit kernel has none
    releases = [release, release if banner else "of an unknown release"]
    assert [rest for _, *rest in said] == [[release, []] for release in releases]
    again = f"(len(vms['{guest}'].symbols), vms['{guest}'].symbols._source._image.has('_stext'))"
    assert shell.monitor.eval(again)[1]  # by VMCOREINFO


_EARLY = """
def early(vm):
    try:
        return vm.symbols['start_kernel']
    except ValueError as error:
        return str(error)
"""


def check_early(monitor, guest, starts):
    """While a guest boots anew each question has the right answer or one line that says that it has only begun.
    starts: vm.starts before."""
    monitor.exec(_EARLY)
    said = []
    deadline = time.monotonic() + 240
    while monitor.eval(f"vms['{guest}'].starts") == starts:
        assert time.monotonic() < deadline, "the guest does not start anew"
    while not said or not isinstance(said[-1], int):
        assert time.monotonic() < deadline, said
        said.append(monitor.eval(f"early(vms['{guest}'])"))
        assert isinstance(said[-1], int) or ("begun to boot" in said[-1] or "yet" in said[-1]), said
    print(said)
    found = monitor.eval(f"(vms['{guest}'].symbols.at({said[-1]}), type(vms['{guest}'].symbols._source).__name__)")
    assert found == ("start_kernel", "Kallsyms")
