"""A run without input repeats to the tick: start, guests and interrupts, twice."""

import re

from pcanel.bench import guest
from pcanel.modules import BootModule
from pcanel.monitor import Monitor

LIMIT = 300  # seconds; a second or two of a whole CPU
ROWS = ["cpuid", "in_pic", "tsc_deadline_arm", "late_spin", "late_hlt"]
# The first call of the idle hook is the prompt waiting for input.
FIRST_IDLE = b"""
import cpu
def first(deadline):
    print("idle at tick", cpu.rdtsc())
    cpu.idle_hook(monitor.idle)
cpu.idle_hook(first)
"""


def run(directory):
    file = directory / "exitbench.toml"
    file.write_text(
        f'name = "{guest.NAME}"\nmemory = "32M"\nprotocol = "multiboot"\nkernel = "{guest.image()}"\n'
        f'cmdline = "{guest.cmdline(ROWS, 50)}"\n'
    )
    modules = [BootModule("policy:first.py", FIRST_IDLE)]
    with Monitor(engine="bochs", memory=256, guests=[file], modules=modules) as monitor:
        rows = guest.wait(monitor.console(guest.NAME), LIMIT)
        idle = monitor.console("repl").wait(rb"idle at tick (\d+)", LIMIT)
        return int(idle[1]), rows


def test_a_run_without_input_repeats_to_the_tick(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert first == second
    assert first[0] > 10_000_000
    assert len(re.findall(r"^row ", first[1], re.MULTILINE)) == len(ROWS)
