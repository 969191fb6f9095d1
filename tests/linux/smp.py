"""What Linux says of its processors: numbers, interrupts of each, TSCs, hot-plug, work on all at once."""

import re

# Between CPUs: what the kernel says when one does not answer, or when clocks differ.
TROUBLE = re.compile(
    r"stuck|unsynchronized|not responding|did(?:n't| not) (?:die|report|come)|failed to (?:kick|boot)|TSC warp"
    r"|Marking TSC unstable|clocksource.*(?:unstable|skew)|hrtimer: interrupt took|lost .*ticks",
    re.IGNORECASE,
)
CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
CPU = "/sys/devices/system/cpu/cpu{}/online"


def interrupts(shell):
    """{name: [count of CPU 0, ...]} of /proc/interrupts."""
    rows = [line.split() for line in shell.run("cat /proc/interrupts").splitlines()]
    cpus = len(rows[0])
    return {row[0].rstrip(":"): [int(word) for word in row[1 : 1 + cpus]] for row in rows[1:] if len(row) > cpus}


def check_boot(shell, cpus):
    """All have come, each has its timer, and the kernel found nothing to complain of."""
    assert shell.run("nproc") == f"{cpus}\n"
    assert shell.run("cat /sys/devices/system/cpu/online") == (f"0-{cpus - 1}\n" if cpus > 1 else "0\n")
    ids = re.findall(r"^(?:initial )?apicid\s*: (\d+)$", shell.run("cat /proc/cpuinfo"), re.MULTILINE)
    assert [int(i) for i in ids] == [number for number in range(cpus) for _ in range(2)]
    # Without a rate from CPUID the kernel measures the TSC for a second or two before it settles.
    wait = f"for i in 1 2 3 4 5 6 7 8 9; do grep -qx tsc {CLOCK} && break; sleep 1; done"
    assert shell.run(f"{wait}; cat {CLOCK}") == "tsc\n"
    assert shell.troubles() == []
    assert [line for line in shell.run("dmesg").splitlines() if TROUBLE.search(line)] == []


def load(shell, cpus, turns=3):
    """Programs on all CPUs at once, with pipes, forks and memory that is shared and unmapped."""
    forks = "i=0; while [ $i -lt 10 ]; do i=$((i + 1)); (echo $i | cat > /dev/null); done"
    work = f"for turn in $(seq {turns}); do dd if=/dev/zero bs=16k count=32 2>/dev/null | md5sum; {forks}; done"
    shell.run(f"echo '{work}' > /tmp/load")
    pieces = " ".join(f"sh /tmp/load > /tmp/out{n} &" for n in range(cpus * 2))
    shell.run(f"{pieces} wait", 600)
    sums = shell.run("cat /tmp/out* | sort | uniq -c").split()
    assert sums[0] == str(cpus * 2 * turns) and len(sums) == 3, sums


def check_interrupts(shell, cpus, before):
    """Timers and IPIs on each CPU since `before`."""
    now = interrupts(shell)
    for name in ("LOC", "RES", "CAL"):
        grown = [later - earlier for earlier, later in zip(before[name], now[name], strict=True)]
        assert len(grown) == cpus and (min(grown) > 0 or name != "LOC"), (name, grown)
        assert sum(grown) > 0, (name, grown)
    assert len(now["TLB"]) == cpus
    assert now.get("ERR", [0])[0] == 0


def check_hot_plug(shell, number):
    """A CPU goes and comes back, and works."""
    online = CPU.format(number)
    for _ in range(2):
        shell.run(f"echo 0 > {online}")
        assert shell.run(f"cat {online}") == "0\n"
        assert f"processor\t: {number}\n" not in shell.run("cat /proc/cpuinfo")
        shell.run(f"echo 1 > {online}")
        assert shell.run(f"cat {online}") == "1\n"
    assert shell.run(f"taskset {1 << number:x} sh -c 'echo here; taskset -p $$'").startswith("here\n")
    assert [line for line in shell.run("dmesg").splitlines() if TROUBLE.search(line)] == []
