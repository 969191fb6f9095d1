"""The capability reports of two engines side by side, as the table in docs/engines.md.

usage: python -m pcanel.capabilities [ENGINE ENGINE]      default: bochs nested
"""

import sys

from pcanel.errors import PcanelError
from pcanel.monitor import Monitor

_MEMORY = 128  # MiB; nothing runs
# Names of bits as vmm/vtx/controls.py has them: [(line, number as text, names of the bits set)].
_REPORT = """
import cpu
def bits(r):
    return [name for name, field in r.fields if r.raw & field.mask]
def report(caps):
    out = [("IA32_VMX_BASIC", "%#x" % caps.basic.raw, []), ("IA32_VMX_MISC", "%#x" % caps.misc.raw, bits(caps.misc))]
    out.append(("preemption timer, shift", str(caps.misc.PREEMPTION_TIMER_SHIFT), []))
    out.append(("IA32_VMX_EPT_VPID_CAP", "%#x" % caps.ept_vpid.raw, bits(caps.ept_vpid)))
    for group in ("pin", "proc", "proc2", "exit", "entry"):
        for word, register in (("offered", caps.found[group]), ("used", caps.used[group])):
            out.append((type(register).__name__ + " " + word, "%#010x" % register.raw, bits(register)))
    for leaf in (0x15, 0x16):
        words = cpu.cpuid(leaf) if cpu.cpuid(0)[0] >= leaf else (0, 0, 0, 0)
        out.append(("CPUID %02Xh" % leaf, " ".join(["%x" % word for word in words]), []))
    out.append(("TSC, MHz, measured", "%.2f" % (cpu.tsc_hz / 1e6), []))
    return out
"""


def report(engine: str) -> list[tuple[str, str, list[str]]]:
    """(line, what the monitor on that engine found, names of the bits set)."""
    with Monitor(engine=engine, memory=_MEMORY) as monitor:
        monitor.wait_booted()
        monitor.exec(_REPORT)
        if not monitor.eval("monitor.active"):
            raise PcanelError(f"{engine}: {monitor.eval('vmx_caps.missing')[0]}")
        return monitor.eval("report(vmx_caps)")


def table(names: list[str], reports: list[list]) -> str:
    """Markdown: a row a line of the reports, and which bits one of them has alone."""
    rows = [["", *names, *(f"only {name}" for name in names)]]
    rows.append(["---"] * len(rows[0]))
    for (line, *first), (_, *second) in zip(*reports, strict=True):
        alone = [" ".join(sorted(set(a) - set(b))) for a, b in ((first[1], second[1]), (second[1], first[1]))]
        rows.append([line, first[0], second[0], *alone])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    names = sys.argv[1:3] if len(sys.argv) == 3 else ["bochs", "nested"]
    try:
        print(table(names, [report(name) for name in names]))
    except PcanelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
