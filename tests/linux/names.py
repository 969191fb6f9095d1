"""The symbols that the monitor finds in a Linux guest's memory, beside the guest's own /proc/kallsyms."""

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


def differences(shell, guest, step):
    """[(address, name, what the monitor says)] of every step-th line that differ; the kernel's own symbols only."""
    rows = []
    for line in shell.run(f"sed -n 1~{step}p /proc/kallsyms").splitlines():
        gva, _, name, *module = line.split()
        if not module:
            rows.append((int(gva, 16), name))
    assert len(rows) > 20
    shell.monitor.exec(_COMPARE)
    return shell.monitor.eval(f"compare(vms['{guest}'].symbols, {rows!r})")
