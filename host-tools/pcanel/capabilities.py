"""The capability reports of two engines side by side, as the table in docs/engines.md.

usage: python -m pcanel.capabilities [ENGINE ENGINE]      default: bochs nested
"""

import sys

from pcanel.errors import PcanelError
from pcanel.monitor import Monitor

_MEMORY = 128  # MiB; nothing runs
# Names of bits as vmm/controls.py has them; {name: (number as text, {names of the bits set})}.
_REPORT = """
import cpu
def bits(r):
    return [name for name, field in r.fields if r.raw & field.mask]
def report(caps):
    out = {"IA32_VMX_BASIC": ("%#x" % caps.basic.raw, []), "IA32_VMX_MISC": ("%#x" % caps.misc.raw, bits(caps.misc))}
    out["IA32_VMX_EPT_VPID_CAP"] = ("%#x" % caps.ept_vpid.raw, bits(caps.ept_vpid))
    for group in caps.found:
        found, used = caps.found[group], caps.used[group]
        name = type(found).__name__
        out[name + " offered"] = ("%#010x" % found.raw, bits(found))
        out[name + " used"] = ("%#010x" % used.raw, bits(used))
    out["preemption timer, shift"] = (str(caps.misc.PREEMPTION_TIMER_SHIFT), [])
    for leaf in (0x15, 0x16):
        words = cpu.cpuid(leaf) if cpu.cpuid(0)[0] >= leaf else (0, 0, 0, 0)
        out["CPUID %02Xh" % leaf] = (" ".join(["%x" % word for word in words]), [])
    out["TSC, MHz, measured"] = ("%.2f" % (cpu.tsc_hz / 1e6), [])
    return out
"""


def report(engine: str) -> dict[str, tuple[str, list[str]]]:
    """{line: (what the monitor on that engine found, names of the bits set)}."""
    with Monitor(engine=engine, memory=_MEMORY) as monitor:
        monitor.wait_booted()
        monitor.exec(_REPORT)
        if not monitor.eval("monitor.active"):
            raise PcanelError(f"{engine}: {monitor.eval('vmx_caps.missing')[0]}")
        return monitor.eval("report(vmx_caps)")


def table(names: list[str], reports: list[dict]) -> str:
    """Markdown: a row a line of the reports, and what one of them has alone."""
    rows = [["", *names, *(f"only {name}" for name in names)]]
    rows.append(["---"] * len(rows[0]))
    for line in sorted(set(reports[0]) | set(reports[1]), key=list(reports[0] | reports[1]).index):
        values, bits = zip(*(one.get(line, ("", [])) for one in reports), strict=True)
        alone = [" ".join(sorted(set(bits[i]) - set(bits[1 - i]))) for i in (0, 1)]
        rows.append([line, *values, *alone])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    names = sys.argv[1:3] if len(sys.argv) == 3 else ["bochs", "nested"]
    try:
        print(table(names, [report(name) for name in names]))
    except PcanelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
