"""What is measured at the prompt: the start, the heap, the collector, many small guests, a switch between two."""

import itertools
import statistics

from pcanel.bench.guest import Row
from pcanel.bench.monitored import UNMITIGATED
from pcanel.engines.choose import choose
from pcanel.errors import InputError, PcanelError
from pcanel.modules import BootModule
from pcanel.monitor import Monitor
from pcanel.paths import BUILD, ELF, ROOT
from pcanel.symbols import sections

_SOURCE = ROOT / "guests/exitbench/measure.py"
_SMALL = BUILD / "guests/exitbench/small.bin"
_COUNTS = (1, 10, 100)
_MOST_OF_A_SWITCH = 1_000_000  # ticks; what is longer is no switch between the two
_TIMEOUT = 600  # seconds

# The first call of the idle hook is the prompt waiting for input.
_FIRST_IDLE = b"""
import cpu
idle_since = []
def first(deadline):
    idle_since.append(cpu.rdtsc())
    cpu.idle_hook(sched.hook)
    sched.hook(deadline)
cpu.idle_hook(first)
"""


def rows(cpu: str | None = None) -> dict[str, Row]:
    """All figures, by the names in `measures.SYSTEM`."""
    if not _SMALL.is_file():
        raise InputError(f"{_SMALL}: no such file (make guests builds it)")
    found = {"image_size": one(sum(size for _, size in sections(ELF)))}
    monitor = Monitor(cpu=cpu, modules=[BootModule("policy:first_idle.py", _FIRST_IDLE)], cmdline=UNMITIGATED)
    monitor.choice = choose("bochs")
    with monitor:
        monitor.wait_booted()
        found["power_on"] = one(monitor.eval("idle_since[0]"))
        at = _Prompt(monitor)
        found.update(at.run("heap()"))
        for before, count in itertools.pairwise((0, *_COUNTS)):
            found.update(at.run(f"make(monitor, {count - before}, code)\nfor vm in MADE: vm.start()"))
            found.update(at.run(f"share('guests_{count}')"))
            if count == 1:
                found["gc_pause_max"], found["gc_pause"] = longest(at.run("collect('pause')")["pause"])
            if count == 10:
                at.exec("for vm in MADE[2:]: vm.pause()\ntime.sleep_ms(1000)\nfor vm in MADE: vm.resume()")
                found["guest_switch"] = switches(at.exec("gaps()"))
        found["gc_pause_100"] = at.run("collect('pause')")["pause"]
    slope = (found["guests_100"].median - found["guests_1"].median) / (_COUNTS[-1] - _COUNTS[0])
    found["guests_slope"] = one(round(slope))
    return found


class _Prompt:
    """The prompt with the functions of guests/exitbench/measure.py."""

    def __init__(self, monitor: Monitor):
        self._monitor = monitor
        self.exec(f"{_SOURCE.read_text()}\ncode = {_SMALL.read_bytes()!r}")

    def exec(self, code: str) -> str:
        return self._monitor.exec(code, _TIMEOUT)

    def run(self, code: str) -> dict[str, Row]:
        """The figures of the lines that the code prints: name, then numbers."""
        lines = [line.split() for line in self.exec(code).splitlines() if not line.startswith("[")]
        return {name: of(map(int, figures)) for name, *figures in lines}


def one(value: float) -> Row:
    return Row(value, value, value)


def of(values) -> Row:
    ordered = sorted(values)
    return Row(round(statistics.median(ordered)), ordered[0], ordered[-1])


def longest(pauses: Row) -> tuple[Row, Row]:
    """The longest pause as a figure of its own, and the pauses."""
    return one(pauses.max), pauses


def switches(text: str) -> Row:
    """From the last instruction of one guest to the first of the other, out of the gaps that guests have noted."""
    gaps = [tuple(map(int, line.split()[1:])) for line in text.splitlines() if line.startswith("gap ")]
    began = sorted((behind, guest) for guest, _, behind in gaps)
    found = []
    for guest, before, behind in gaps:
        following = next((at for at, other in began if at > before and other != guest), behind)
        if following < min(behind, before + _MOST_OF_A_SWITCH):  # else an exit and no switch, or the ring lacks its end
            found.append(following - before)
    if not found:
        raise PcanelError(f"no guest has noted a switch in {len(gaps)} gaps")
    return of(found)
