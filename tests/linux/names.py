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


def differences(shell, guest, lines, step):
    """[(address, name, what the monitor says)] that differ, of every step-th of the first lines: the guest spells a
    hundred thousand for half a minute."""
    rows = []
    for line in shell.run(f"head -n {lines} /proc/kallsyms | awk 'NR % {step} == 1'").splitlines():
        gva, _, name = line.split()
        rows.append((int(gva, 16), name))
    assert len(rows) >= lines // step
    shell.monitor.exec(_COMPARE)
    return shell.monitor.eval(f"compare(vms['{guest}'].symbols, {rows!r})")
