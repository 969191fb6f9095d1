"""The bench's guest on the engine itself, with no monitor."""

from pathlib import Path

from pcanel.bench import conditions, guest
from pcanel.bench.bare import Bare
from pcanel.image import burn

_TIMEOUT = 120  # seconds
_PM_TIMER = 0xB008  # where Bochs's BIOS puts it


def rows(cpu: str | None = None, rounds: int = guest.ROUNDS, names: list[str] | None = None) -> dict[str, guest.Row]:
    """All rows that mean something without a monitor, or those of these names."""
    options = guest.cmdline(conditions.rows_of(names), rounds, pm_timer=_PM_TIMER)

    def medium(iso: Path) -> None:
        config = f"set timeout=0\nmenuentry bench {{\n    multiboot /boot/guest.elf {options}\n}}\n"
        burn(iso, config, {"boot/guest.elf": guest.image()}, "multiboot")

    with Bare(medium, cpu) as machine:
        found = guest.parse(guest.wait(machine.console, _TIMEOUT))
    return found | conditions.without_conditions(found)
